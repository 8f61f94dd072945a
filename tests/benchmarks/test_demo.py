"""The demo's commands, and that the first one that fails ends it."""

from pathlib import Path

import pytest

from benchmarks import demo
from tests.conftest import Call

DATA = (
    "--preset small --no-pretrained --img_size 64 --train_csv demo/data/train.csv "
    "--train_dir demo/data/images --folds 5 --run_folds 1"
)
TEST = "--test_csv demo/data/test.csv --image_dir demo/data/images --overwrite"
# the scores in README.md come from these
COMMANDS = [
    "-m core.data.phantom demo/data --images 1600",
    f"methods/standard_head/train.py {DATA} --epochs 4 --backbone_lr 1e-3 "
    "--out_dir demo/standard_head",
    f"methods/csra_db_cas/train.py {DATA} --epochs 4 --backbone_lr 1e-3 --out_dir demo/csra_db_cas",
    f"methods/label_coupling/train.py {DATA} --epochs 4 --lr 1e-3 --out_dir demo/label_coupling",
    *(
        f"-m ensemble.infer --checkpoints demo/{method}/net_fold1.safetensors {TEST} --no-use_tta "
        f"--output demo/{method}.csv"
        for method in ("standard_head", "csra_db_cas", "label_coupling")
    ),
    "-m ensemble.infer --checkpoints demo/csra_db_cas/net_fold1.safetensors "
    "demo/label_coupling/net_fold1.safetensors demo/standard_head/net_fold1.safetensors "
    f"{TEST} --use_tta --tta_config flip_scale --output demo/merged.csv",
    "-m ensemble.evaluate --predictions demo/merged.csv demo/standard_head.csv "
    "demo/csra_db_cas.csv demo/label_coupling.csv --labels demo/data/test_labels.csv "
    "--train_csv demo/data/train.csv --output demo/scores",
]


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for method in demo.METHODS:
        folder = tmp_path / "demo" / method
        folder.mkdir(parents=True)
        for end in (".safetensors", ".state.safetensors"):
            (folder / f"net_fold1{end}").touch()
    assert [" ".join(words) for words in demo.steps()] == COMMANDS


def test_the_first_step_that_fails_ends_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [["-c", "print(1 + 1)"], ["-c", "raise SystemExit(3)"], ["-c", "print(5)"]]
    monkeypatch.setattr(demo, "steps", lambda: iter(words))
    code, out, _ = call(demo.main)
    assert code == 3
    assert out == "\npython -c 'print(1 + 1)'\n2\n\npython -c 'raise SystemExit(3)'\n"


def test_elsewhere_it_is_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = call(demo.main)
    assert (code, error.count("\n")) == (2, 1)
    assert "run this in the project's folder" in error
