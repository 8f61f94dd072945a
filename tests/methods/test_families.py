"""One small network of each family of timm trains, is saved, loaded and predicts, or is refused.

All of them by `make test-families`; eight of them here, the methods in turn.
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

# timm's module, its network of fewest parameters, and its own size where that is fixed
NETWORKS = [
    line.split()
    for line in """
beit beit_base_patch16_224 224
byoanet halonet_h1 256
byobnet test_byobnet 64
cait cait_xxs24_224 224
coat coat_tiny 224
convit convit_tiny 224
convmixer convmixer_768_32 64
convnext test_convnext 64
cpubone cpubone_nano 64
crossvit crossvit_tiny_240 240
csatv2 csatv2 512
cspnet cs3darknet_focus_s 64
cspnext cspnext_tiny 64
davit davit_tiny 64
deit deit_tiny_patch16_224 224
densenet densenet121 64
dla dla46x_c 64
dpn dpn48b 64
edgenext edgenext_xx_small 64
efficientformer efficientformer_l1 224
efficientformer_v2 efficientformerv2_s0 224
efficientnet test_efficientnet 64
efficientvim efficientvim_m1 64
efficientvit_mit efficientvit_b0 64
efficientvit_msra efficientvit_m0 224
eva vit_tiny_patch16_dinov3_qkvb 256
fasternet fasternet_t0 64
fastvit fastvit_t8 64
focalnet focalnet_tiny_srf 64
gcvit gcvit_xxtiny 224
gemma4_vit gemma4_vit_167m 48
ghostnet ghostnet_050 64
hardcorenas hardcorenas_b 64
hgnet hgnetv2_b0 64
hiera hiera_tiny_224 224
hieradet_sam2 sam2_hiera_tiny 64
hrnet hrnet_w18_small 64
iformer iformer_t 64
inception_next inception_next_atto 64
inception_resnet_v2 inception_resnet_v2 96
inception_v3 inception_v3 96
inception_v4 inception_v4 96
lcnetv2 lcnetv2_small 64
levit levit_128s 224
lowformer lowformer_b0 64
mambaout test_mambaout 64
maxxvit test_coatnet 160
metaformer poolformerv2_s12 64
mlp_mixer gmlp_ti16_224 224
mobilenetv3 lcnet_035 64
mobilenetv5 mobilenetv5_base 64
mobilevit mobilevit_xxs 64
mvitv2 mvitv2_tiny 224
naflexvit naflexvit_base_patch16_parfac_gap 64
nasnet nasnetalarge 64
nest nest_tiny 224
nextvit nextvit_small 64
nfnet test_nfnet 64
pit pit_ti_224 224
pnasnet pnasnet5large 64
pvt_v2 pvt_v2_b0 64
qwen3_vit qwen3_vit_88m 64
rdnet rdnet_tiny 64
regnet regnetx_002 64
repghost repghostnet_050 64
repvit repvit_m1 64
res2net res2next50 64
resnest resnest14d 64
resnet test_resnet 64
resnetv2 resnetv2_18 64
rexnet rexnet_100 64
selecsls selecsls42 64
senet legacy_seresnet18 64
sequencer sequencer2d_s 224
shvit shvit_s1 64
sknet skresnet18 64
starnet starnet_s050 64
swiftformer swiftformer_xs 224
swin_transformer swin_tiny_patch4_window7_224 224
swin_transformer_v2 swinv2_tiny_window8_256 256
swin_transformer_v2_cr swinv2_cr_tiny_224 224
tiny_vit tiny_vit_5m_224 64
tnt tnt_s_legacy_patch16_224 224
tresnet tresnet_m 64
twins twins_svt_small 224
vgg vgg11 64
visformer visformer_tiny 224
vision_transformer test_vit 160
vision_transformer_hybrid vit_tiny_r_s16_p8_224 224
vision_transformer_relpos test_vit_relpos 160
vision_transformer_sam samvit_base_patch16_224 224
vitamin vitamin_small_224 224
volo volo_d1_224 224
vovnet ese_vovnet19b_slim_dw 64
xception legacy_xception 64
xception_aligned xception41p 64
xcit xcit_nano_12_p8_224 224
""".strip().splitlines()
]
# 411 million parameters, and as many numbers again for the gradient, the moments and the average
TOO_LARGE = {"deepseek_vit"}
NO_MAP = "has no map of features"
REFUSED = {
    "csatv2": (METHODS, "fails on one-channel images of its own --img_size 512"),
    # bounds of its activations
    "gemma4_vit_167m": (METHODS, "has numbers that are not finite in 448 tensors"),
    **dict.fromkeys(
        ("coat_tiny", "crossvit_tiny_240", "efficientvim_m1", "efficientvit_b0"),
        (("csra_db_cas",), NO_MAP),
    ),
    **dict.fromkeys(("inception_next_atto", "volo_d1_224"), (("csra_db_cas",), NO_MAP)),
}
# of those that are quick: tied tensors, tokens, channels last, no map
EIGHT = [
    ("coat_lite_tiny", 224),
    ("efficientvit_b0", 64),
    ("test_vit", 160),
    ("test_mambaout", 64),
    ("test_coatnet", 160),
    ("lcnet_035", 64),
    ("efficientvim_m1", 64),
    ("crossvit_tiny_240", 240),
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
    [(METHODS[place % 3], *network) for place, network in enumerate(EIGHT)],
)
def test_eight_families(
    method: str, network: str, size: int, train_family: Callable[..., None]
) -> None:
    train_family(method, network, size)


@pytest.mark.families
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("network", "size"), [(line[1], int(line[2])) for line in NETWORKS])
def test_every_family(
    method: str, network: str, size: int, train_family: Callable[..., None]
) -> None:
    train_family(method, network, size)


@pytest.mark.families
def test_no_family_is_left_out() -> None:
    """A newer timm may have more."""
    assert set(timm.list_modules()) - {module for module, *_ in NETWORKS} == TOO_LARGE


@pytest.mark.families
def test_a_first_layer_that_timm_would_leave_at_random(tmp_path: Path) -> None:
    """A linear layer of flattened patches of three colours."""
    model, path = "naflexvit_base_patch16_gap", tmp_path / "w.safetensors"
    save_file(timm.create_model(model, pretrained=False).state_dict(), path)
    sentence = r"1 of 174 tensors not adaptable to one channel \(embeds\.proj\.weight\)"
    with pytest.raises(UserError, match=sentence):
        Backbone(BackboneConfig(model=model), path)
    path.unlink()
