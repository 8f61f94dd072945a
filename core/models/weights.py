"""Table of public weights for --weights_name. Torch is not imported, so that --help is fast.

Each row has what a training with the weights needs, and where their file and terms are found. A row
is `verified` if all its facts were read in the source or metadata of a package; the others are from
papers and model pages, and were not compared with a download. Licences are those of the revision.
"""

from dataclasses import dataclass
from typing import Any

from core.errors import UserError, suggest_name


@dataclass(frozen=True, kw_only=True)
class PublicWeights:
    """A set of public weights."""

    name: str
    """Value of --weights_name."""
    repository: str
    """Repository of the Hugging Face hub, or the address of a release."""
    revision: str = "main"
    file: str = "model.safetensors"
    sha256: str = ""
    """SHA-256 of the file; "" if unknown."""
    model: str
    """timm's name of the architecture."""
    img_size: int
    """Side of the images in pixels, in pretraining."""
    patch_size: int | None = None
    """Side of a patch in pixels; None: timm's for the architecture."""
    mean: float | None = None
    """Mean of images in [0, 1]; None: timm's for the architecture."""
    std: float | None = None
    layout: str = "timm"
    """Names of the tensors: timm, transformers, open_clip, eva, swin, torchvision."""
    whole_module: bool = False
    """The file holds a pickled network: only its owner can convert it."""
    licence: str
    terms: str
    paper: str
    verified: bool = False

    @property
    def is_downloadable(self) -> bool:
        """Whether the file can be used as it is on the hub."""
        return self.file.endswith(".safetensors")

    def settings(self) -> dict[str, Any]:
        """Settings of a training with these weights, by flag name."""
        found: dict[str, Any] = {"model": self.model, "img_size": self.img_size}
        if self.patch_size is not None:
            found["patch_size"] = self.patch_size
        if self.mean is not None and self.std is not None:
            found |= {"mean": (self.mean,), "std": (self.std,)}
        return found

    def describe_licence(self) -> str:
        """Licence, and whether it was verified."""
        return self.licence if self.verified else f"{self.licence} (not verified)"

    def describe_fetch(self) -> str:
        """How the user gets the file and gives it."""
        give = f"give it by --weights_file beside --weights_name {self.name}"
        fetch = f"fetch {self.file} of {self.repository} (revision {self.revision})"
        if self.is_downloadable:
            return f"{fetch} on another computer and {give}"
        command = f"`python -m core.models.convert {self.file} OUT.safetensors`"
        convert = f"convert it {f'as {command} prints' if self.whole_module else f'by {command}'}"
        return f"{fetch}, {convert}, and {give}"


_XRV = "https://github.com/mlmed/torchxrayvision/releases"
_XRV_TERMS = "licence of the package; the terms of each source of images apply too"
# [0, 1] to -1024..1024
_XRV_MEAN, _XRV_STD = 0.5, 1 / 2048
_XRV_TRAINED = {
    "all": "nih-pc-chex-mimic_ch-google-openi-kaggle",
    "nih": "nih",
    "pc": "pc",
    "chex": "chex",
    "rsna": "kaggle",
    "mimic-nb": "mimic_nb",
    "mimic-ch": "mimic_ch",
}
ROWS: tuple[PublicWeights, ...] = (
    PublicWeights(
        name="rad-dino",
        repository="microsoft/rad-dino",
        model="vit_base_patch14_dinov2",
        img_size=518,
        mean=0.5307,
        std=0.2583,
        layout="transformers",
        licence="Microsoft Research licence",
        terms="for research; read the model page",
        paper="arXiv:2401.10815",
    ),
    PublicWeights(
        name="medmae-chexpert",
        repository="1aurent/vit_base_patch16_224.medmae_CXR_mae_ft_CheXpert",
        model="vit_base_patch16_224",
        img_size=224,
        mean=0.5056,
        std=0.252,
        licence="unknown",
        terms="read the model page",
        paper="arXiv:2210.12843",
    ),
    *(
        PublicWeights(
            name=f"dinov3-convnext-{size}",
            repository=f"timm/convnext_{size}.dinov3_lvd1689m",
            model=f"convnext_{size}",
            img_size=224,
            licence="dinov3-license",
            terms="Meta's DINOv3 License: read it before any use",
            paper="arXiv:2508.10104",
            verified=True,
        )
        for size in ("tiny", "small", "base", "large")
    ),
    *(
        PublicWeights(
            name=f"eva-x-{size}",
            repository="MapleF/eva_x",
            file=f"eva_x_{size}_patch16_merged520k_mim.pt",
            model=f"eva02_{size}_patch14_224",
            img_size=224,
            patch_size=16,
            mean=0.4919,
            std=0.2851,
            layout="eva",
            licence="MIT",
            terms="read the model page",
            paper="arXiv:2405.05237",
        )
        for size in ("tiny", "small", "base")
    ),
    PublicWeights(
        name="xrv-resnet50-512",
        repository=_XRV,
        revision="v1",
        file="pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt",
        model="resnet50",
        img_size=512,
        mean=_XRV_MEAN,
        std=_XRV_STD,
        layout="torchvision",
        licence="Apache-2.0",
        terms=_XRV_TERMS,
        paper="arXiv:2111.00595",
        verified=True,
    ),
    *(
        PublicWeights(
            name=f"xrv-densenet121-{name}",
            repository=_XRV,
            revision="v1",
            file=f"{trained}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
            model="densenet121",
            img_size=224,
            mean=_XRV_MEAN,
            std=_XRV_STD,
            layout="torchvision",
            whole_module=True,
            licence="Apache-2.0",
            terms=_XRV_TERMS,
            paper="arXiv:2111.00595",
            verified=True,
        )
        for name, trained in _XRV_TRAINED.items()
    ),
    PublicWeights(
        name="ark-swin-base",
        repository="https://github.com/jlianglab/Ark",
        file="ark6_teacher_ep200_swinb_projector1376_mlp.pth.tar",
        model="swin_base_patch4_window7_224",
        img_size=224,
        layout="swin",
        licence="Arizona State University licence",
        terms="for research, on request to the authors",
        paper="doi:10.1007/978-3-031-43907-0_62",
    ),
    PublicWeights(
        name="biomedclip",
        repository="microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        file="open_clip_pytorch_model.bin",
        model="vit_base_patch16_224",
        img_size=224,
        mean=0.44916,
        std=0.26857,
        layout="open_clip",
        licence="MIT",
        terms="for research; read the model page",
        paper="arXiv:2303.00915",
    ),
)


def find_public_weights(name: str) -> PublicWeights:
    """The row with this name. Raises UserError with the nearest name."""
    rows = {row.name: row for row in ROWS}
    if name not in rows:
        raise UserError(
            f"there is no --weights_name '{name}'{suggest_name(name.rpartition('/')[2], rows)}"
        )
    return rows[name]


def weights_settings(name: str) -> dict[str, Any]:
    """Settings of a training with the row `name`, by flag name. Raises UserError."""
    return find_public_weights(name).settings()
