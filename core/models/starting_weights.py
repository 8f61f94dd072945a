"""Starting weights: file of pretrained weights, and the record of their origin."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import timm
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from timm.models import get_deprecated_models, split_model_name_tag

from core.config.training import BackboneConfig
from core.errors import UserError, escape_control
from core.models.backbone import check_model_name
from core.models.checkpoint import load_facts
from core.models.weights import PublicWeights, find_public_weights

# longest name in a record
_LONGEST = 200


@dataclass(frozen=True)
class Origin:
    """Origin of starting weights; `file` is a name without its folder, or ""."""

    name: str
    """The hub's repository, the flag that named the file, or "none"."""
    file: str = ""
    sha256: str = ""
    weights_name: str = ""
    """Value of --weights_name, or ""."""
    licence: str = ""
    """Licence of the weights; "" if unknown. Older records lack it."""

    @classmethod
    def of(cls, name: str, path: Path) -> "Origin":
        """Origin `name` with the SHA-256 of the file `path`."""
        with path.open("rb") as file:
            return cls(name, path.name, hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def read(cls, record: object) -> "Origin | None":
        """Read the origin from the JSON of a run or checkpoint; None if it is missing."""
        values = record if isinstance(record, Mapping) else {}
        texts = [values.get(name) for name in ("name", "file", "sha256")]
        texts += [values.get(name, "") for name in ("weights_name", "licence")]
        if not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts):
            return None
        return cls(*map(escape_control, map(str, texts)))

    @property
    def is_random(self) -> bool:
        """Whether the weights were random."""
        return self.name == "none"

    def record(self) -> dict[str, str]:
        """JSON-able record, without an unknown name or licence."""
        optional = ("weights_name", "licence")
        return {name: text for name, text in asdict(self).items() if text or name not in optional}

    def __str__(self) -> str:
        if self.is_random:
            return "random weights (--no-pretrained)"
        return f"{self.name} {self.file}{f' as {self.weights_name}' if self.weights_name else ''}"

    def describe(self) -> str:
        """ "timm/resnet50.a1_in1k model.safetensors, licence apache-2.0, SHA-256 0123..." """
        text = f"{self}, licence {self.licence}" if self.licence else str(self)
        return f"{text}, SHA-256 {self.sha256}" if self.sha256 else text


def describe_origin(origin: Origin | None) -> str:
    """Describe an origin; None means no record."""
    return origin.describe() if origin else "not recorded"


def checkpoint_origin(flag: str, path: Path) -> Origin:
    """Origin of a model from the checkpoint of `flag`. Raises UserError if it is not a file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise UserError(f"{flag} {path} {what}: give a checkpoint (.safetensors)")
    return _with_licence(Origin.of(flag, path), path)


def _with_licence(origin: Origin, path: Path) -> Origin:
    """The origin with the licence of the weights from which a checkpoint of this project began."""
    with suppress(UserError):
        before = Origin.read(load_facts(path).get("starting_weights"))
        if before is not None:
            return replace(origin, licence=before.licence, weights_name=before.weights_name)
    return origin


def find_weights(config: BackboneConfig) -> tuple[Path | None, Origin]:
    """Find the file of pretrained backbone weights, and the origin of the starting weights.

    Downloads weights into the hub's cache. The file is None for --init_from and --no-pretrained.
    Raises UserError for an unknown model, a missing file and a failed download.
    """
    check_model_name(config.model)
    if config.init_from is not None:
        return None, checkpoint_origin("--init_from", config.init_from)
    row = find_public_weights(config.weights_name) if config.weights_name else None
    # a tag names pretrained weights, not the network
    if row is not None and split_model_name_tag(config.model)[0] != row.model:
        raise UserError(
            f"--weights_name {row.name} is of {row.model}, and --model, --config or the run in "
            f"--out_dir has {config.model}: give --model {row.model}, or other weights"
        )
    if (path := config.weights_file) is not None:
        _check_file(path)
        origin = _with_licence(Origin.of("--weights_file", path), path)
        return path, _of_row(origin, path, row)
    if row is not None:
        fetched = _fetch(row.repository, row.file, row.revision) if row.is_downloadable else None
        if fetched is None:
            why = "cannot be downloaded" if row.is_downloadable else "are no safetensors file"
            raise UserError(f"the weights {row.name} {why}: {row.describe_fetch()}")
        return fetched, _of_row(Origin.of(row.repository, fetched), fetched, row)
    return _find_pretrained(config) if config.pretrained else (None, Origin("none"))


def _find_pretrained(config: BackboneConfig) -> tuple[Path, Origin]:
    """timm's weights of --model. Raises UserError if there are none, or no network."""
    # timm lists weights by their current names only
    source = timm.get_pretrained_cfg(get_deprecated_models().get(config.model) or config.model)
    repository = source.hf_hub_id if source else None
    if source is None or not repository:
        raise UserError(
            f"timm has no pretrained weights of {config.model}: give --weights_file "
            "FILE.safetensors, or --no-pretrained to train from random weights"
        )
    fetched = _fetch(repository)
    if fetched is None:
        raise UserError(
            f"the pretrained weights of {config.model} ({repository}) cannot be downloaded and are "
            f"not in the hub's cache {constants.HF_HUB_CACHE}: give --weights_file "
            "FILE.safetensors, copy that cache from another computer, or give --no-pretrained to "
            "train from random weights"
        )
    licence = str(source.license or "")
    return fetched, replace(Origin.of(repository, fetched), licence=licence)


def _check_file(path: Path) -> None:
    """Raise UserError if --weights_file is missing or no .safetensors file."""
    if not path.is_file():
        raise UserError(f"--weights_file {path} is not there")
    if path.suffix != ".safetensors":
        raise UserError(
            f"--weights_file {path} must be a .safetensors file, as other formats can run code: "
            f"convert it by `python -m core.models.convert {path} "
            f"{path.with_suffix('.safetensors').name}`"
        )


def _of_row(origin: Origin, path: Path, row: PublicWeights | None) -> Origin:
    """The origin with the row's name and licence. Raises UserError if its SHA-256 differs."""
    if row is None:
        return origin
    if row.is_downloadable and row.sha256 and origin.sha256 != row.sha256:
        raise UserError(
            f"{path} is not the file of --weights_name {row.name}: its SHA-256 is "
            f"{origin.sha256}, not {row.sha256}; download it again"
        )
    return replace(origin, weights_name=row.name, licence=row.describe_licence())


def _fetch(repository: str, file: str = "model.safetensors", revision: str = "main") -> Path | None:
    """Fetch weights from the hub's cache, else from the hub; None if that fails."""
    cached = try_to_load_from_cache(repository, file, None, revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # with a short timeout: a download alone retries for most of a minute
        HfApi().model_info(repository, revision=revision, timeout=5)
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception:  # of any kind: the weights are unavailable
        return None
