"""Training, saving and prediction with one small network of each timm family.

All of them by `make test-families`; five of them here, the methods in turn.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from core.config.training import BackboneConfig
from core.data.images.decode import load_image
from core.errors import UserError
from core.models.backbone import Backbone
from methods import load_model
from tests.conftest import Train
from tests.helpers.training.small_run import METHODS, flags

# the network of fewest parameters of each of timm's modules, by its image size
SIZES = {
    48: "gemma4_vit_167m",
    64: (
        "convmixer_768_32 cpubone_nano cs3darknet_focus_s cspnext_tiny davit_tiny densenet121 "
        "dla46x_c dpn48b edgenext_xx_small efficientvim_m1 efficientvit_b0 "
        "ese_vovnet19b_slim_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf ghostnet_050 "
        "hardcorenas_b hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto lcnet_035 "
        "lcnetv2_small legacy_seresnet18 legacy_xception lowformer_b0 mobilenetv5_base "
        "mobilevit_xxs naflexvit_base_patch16_parfac_gap nasnetalarge nextvit_small "
        "pnasnet5large poolformerv2_s12 pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 "
        "repghostnet_050 repvit_m1 res2next50 resnest14d resnetv2_18 rexnet_100 "
        "sam2_hiera_tiny selecsls42 shvit_s1 skresnet18 starnet_s050 test_byobnet "
        "test_convnext test_efficientnet test_mambaout test_nfnet test_resnet tiny_vit_5m_224 "
        "tresnet_m vgg11 xception41p"
    ),
    96: "inception_resnet_v2 inception_v3 inception_v4",
    160: "test_coatnet test_vit test_vit_relpos",
    224: (
        "beit_base_patch16_224 cait_xxs24_224 coat_tiny convit_tiny deit_tiny_patch16_224 "
        "efficientformer_l1 efficientformerv2_s0 efficientvit_m0 gcvit_xxtiny gmlp_ti16_224 "
        "hiera_tiny_224 levit_128s mvitv2_tiny nest_tiny pit_ti_224 samvit_base_patch16_224 "
        "sequencer2d_s swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 "
        "tnt_s_legacy_patch16_224 twins_svt_small visformer_tiny vit_tiny_r_s16_p8_224 "
        "vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224"
    ),
    240: "crossvit_tiny_240",
    256: "halonet_h1 swinv2_tiny_window8_256 vit_tiny_patch16_dinov3_qkvb",
    512: "csatv2",
}
NETWORKS = [(name, size) for size, names in SIZES.items() for name in names.split()]
# 411 million parameters, and as many numbers again for the gradient, the moments and the average
TOO_LARGE = {"deepseek_vit"}
REFUSED = {
    "csatv2": (METHODS, "fails on one-channel images of its default --img_size 512"),
    # bounds of its activations
    "gemma4_vit_167m": (METHODS, "has values that are not finite in 448 tensors"),
    **dict.fromkeys(
        (
            *("coat_tiny", "crossvit_tiny_240", "efficientvim_m1", "efficientvit_b0"),
            *("inception_next_atto", "volo_d1_224"),
        ),
        (("csra_db_cas",), "has no feature map"),
    ),
}
# of those that are quick: tokens, channels last, no map
FIVE = [
    *(("test_mambaout", 64), ("efficientvit_b0", 64), ("test_vit", 160)),
    # not its own size of 160
    *(("efficientvim_m1", 64), ("test_coatnet", 64)),
]


@pytest.fixture
def train_family(
    train_method: Callable[[str], Train], phantom: Path, tmp_path: Path
) -> Iterator[Callable[..., None]]:
    """Trains a network: two updates, or one sentence before anything is written.

    What the checkpoint predicts is then what the run wrote of its validation images.
    """
    out = tmp_path / "out"

    def train(method: str, network: str, size: int) -> None:
        options = ["--model", network, "--img_size", size, "--batch_size", 2, "--epoch_size", 4]
        options += ["--folds", 12, "--run_folds", 1, "--epochs", 1, "--no-tta"]
        options += ["--labels", "Effusion,Atelectasis"]
        if method != "label_coupling":
            options += ["--warmup_head_epochs", 0]
        code, _, error = train_method(method)(*flags(phantom, out, *options))
        methods, sentence = REFUSED.get(network, ((), ""))
        if method in methods:
            assert (code, error.count("\n")) == (2, 1), error
            assert sentence in error
            assert not out.exists()
            return
        assert code == 0, error
        model, _ = load_model(out / f"{network}_fold1.safetensors")
        written = pd.read_csv(out / f"{network}_fold1_val.csv", index_col="ImageID")
        pixels = [load_image(phantom / "images" / name, size) for name in written.index]
        with torch.no_grad():
            logits = model(torch.from_numpy(np.stack(pixels))[:, None])
        np.testing.assert_allclose(logits.sigmoid().numpy(), written.to_numpy(), atol=2e-5)

    yield train
    # up to 3 GB
    shutil.rmtree(out, ignore_errors=True)


@pytest.mark.parametrize(
    ("method", "network", "size"),
    [(METHODS[place % 3], *network) for place, network in enumerate(FIVE)],
)
def test_five_families(
    method: str, network: str, size: int, train_family: Callable[..., None]
) -> None:
    train_family(method, network, size)


@pytest.mark.families
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_every_family(
    method: str, network: str, size: int, train_family: Callable[..., None]
) -> None:
    train_family(method, network, size)


@pytest.mark.families
def test_no_family_is_left_out() -> None:
    """A newer timm may have more."""
    tried = {timm.model_entrypoint(name).__module__.rpartition(".")[2] for name, _ in NETWORKS}
    assert set(timm.list_modules()) - tried == TOO_LARGE


@pytest.mark.families
def test_a_first_layer_that_timm_would_leave_at_random(tmp_path: Path) -> None:
    """A linear layer of flattened patches of three colours."""
    model, path = "naflexvit_base_patch16_gap", tmp_path / "w.safetensors"
    save_file(timm.create_model(model, pretrained=False).state_dict(), path)
    sentence = r"1 of 174 tensors not adaptable to one channel \(embeds\.proj\.weight\)"
    with pytest.raises(UserError, match=sentence):
        Backbone(BackboneConfig(model=model), path)
    path.unlink()
