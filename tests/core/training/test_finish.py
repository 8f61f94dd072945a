"""End of a run: history for the pictures, and names of settings."""

from pathlib import Path

import pytest

from core.config.data import DataConfig
from core.config.values import flat
from core.errors import UserError
from core.training.finish import _as_text, _read_history

HEAD = "fold,epoch,phase,train_loss,mAP,mAUROC,best,lr_factor\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            (f"{HEAD}{fold},{epoch},all,1,0.5,0.5,1,1\n", f"not each {what} is a number from 1")
            for fold, epoch, what in (("", 1, "fold"), (1, "1e300", "epoch"), (1, 1.5, "epoch"))
        ),
        ("epoch,mAP\n1,0.5\n", "it has no column fold"),
        (f"{HEAD}1,1,all,~,0.5,0.5,1,1\n", "cannot be read"),
    ],
)
def test_a_damaged_history_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=expected):
        _read_history(path)


def test_a_history_with_losses_of_nan_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"{HEAD}1,1,all,inf,0.5,0.5,1,1\n1,2,all,,0.25,0.5,0,1\n")
    history = _read_history(path)
    assert history is not None
    assert history["mAP"].tolist() == [0.5, 0.25]


def test_a_missing_history_is_empty(tmp_path: Path) -> None:
    assert _read_history(tmp_path / "metrics.csv") is None


def test_without_names_paths_alone_are_cut() -> None:
    config = DataConfig(train_csv=(Path("/of/patients/t.csv"),), labels="Mass/Nodule,Hernia")
    shown = {name: _as_text(value) for name, value in flat(config, whole_paths=False).items()}
    assert (shown["train_csv"], shown["labels"]) == ("t.csv", "Mass/Nodule,Hernia")
