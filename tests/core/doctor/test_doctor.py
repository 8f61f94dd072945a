"""The doctor as a command: what it finds of sound and of spoiled data, and its exit code."""

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from core.config.training import flat
from core.data.images.store import ImageStore
from core.doctor import machine
from core.doctor.__main__ import main
from core.doctor.findings import WIDTH, Findings
from core.errors import UserError
from methods.csra_db_cas.config import PRESETS
from tests.conftest import Call
from tests.helpers.doctor_checks import ROWS, Doctor, data, doctor, edit, sound_machine
from tests.helpers.doctor_output import listed, marked

__all__ = ["data", "doctor", "sound_machine"]


def test_sound_data_end_with_0(doctor: Doctor) -> None:
    code, findings, text = doctor()
    assert code == 0
    assert not marked(findings, "✗")
    good = marked(findings, "✓")
    for part in (
        f"each of the {ROWS} images has a file",
        f"{ROWS} images can be read, 40 x 40 to 40 x 40 px",
        "no image is there under two names",
        "2 labels, by positives: ",
        "2 folds of ",
        "the same grey everywhere",
    ):
        assert part in good
    assert "--full looks for them" in marked(findings, "-")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert re.search(rf"^{len(findings)} checks: \d+ ✓", text, re.MULTILINE)


def test_positives_and_patients_are_counted(doctor: Doctor, data: Path) -> None:
    table = pd.read_csv(data / "train.csv")
    good = marked(doctor()[1], "✓")
    for label in ("Effusion", "Normal"):
        assert f"{label} {int(table[label].sum())}" in good
    sizes = table["PatientID"].value_counts()
    assert f"{len(sizes)} patients with {sizes.min()} to {sizes.max()} images each" in good


def test_without_a_flag_it_looks_at_the_computer_alone(doctor: Doctor) -> None:
    code, findings, text = doctor(train=False)
    assert "Environment" in text
    assert "Data" not in text
    assert "Python " in marked(findings, "✓")
    assert code == int(bool(marked(findings, "✗")))


def test_a_broken_image_is_named_and_the_others_are_still_looked_at(
    doctor: Doctor, data: Path
) -> None:
    first, second = sorted((data / "images").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:200])
    cv2.imwrite(str(second), np.full((40, 40), 7, dtype=np.uint8))
    code, findings, text = doctor()
    assert code == 1
    bad = marked(findings, "✗")
    assert f"of {ROWS} images, 1 cannot be read: {first.name}" in bad
    assert "take their rows out of the CSV" in bad
    assert f"1 image has the same grey everywhere, as a failed export does ({second.name})" in (
        marked(findings, "!")
    )
    number = 1 + [mark for mark, _ in findings].index("✗")
    assert f"(see {number})" in text


def test_a_missing_image_and_what_cannot_be_looked_at_then(doctor: Doctor, data: Path) -> None:
    gone = sorted((data / "images").iterdir())[3]
    gone.unlink()
    code, findings, _ = doctor("--full")
    assert code == 1
    assert f"1 of {ROWS} images have no file in {data / 'images'}: {gone.name}" in (
        marked(findings, "✗")
    )
    assert "2 labels, by positives" in marked(findings, "✓")
    assert "2 folds of" in marked(findings, "✓")
    assert marked(findings, "-").count("every image needs a file first") == 2


def test_labels_that_cannot_be_learnt(doctor: Doctor, data: Path) -> None:
    def spoil(table: pd.DataFrame) -> None:
        table["Effusion"], table["Hernia"] = "0", "0"
        # of a single patient, so that one fold has none
        table.loc[table["PatientID"] == table["PatientID"][0], "Effusion"] = "1"

    edit(data, spoil)
    code, findings, _ = doctor("--labels", "Effusion,Normal,Hernia")
    assert code == 1
    assert "1 label has no positive and can neither be learnt nor scored: Hernia" in (
        marked(findings, "✗")
    )
    # once
    assert "positive for Hernia" not in marked(findings, "!")
    doubt = marked(findings, "!")
    places = re.search(
        r"not scored: Effusion in fold (\d); .* learn it: Effusion in fold (\d)", doubt
    )
    assert places is not None
    assert {places[1], places[2]} == {"1", "2"}
    assert "Hernia in fold" not in doubt


def test_a_csv_that_cannot_be_read(doctor: Doctor, data: Path) -> None:
    (data / "train.csv").write_text("ImageID,Mass\na.png,maybe\n")
    code, findings, text = doctor()
    assert code == 1
    assert "maybe" in marked(findings, "✗")
    assert "need a --train_csv that can be read" in marked(findings, "-")
    # the readers' sentences point to the doctor: not from here
    assert "python -m core.doctor" not in text


@pytest.mark.parametrize(
    ("change", "mark", "sentence"),
    [
        (lambda table: table.drop(columns="PatientID"), "!", "no column names the patients"),
        (
            lambda table: table.assign(PatientID=range(len(table))),
            "!",
            "each image is another patient's",
        ),
        (
            lambda table: table.assign(Normal=["", *["1"] * (len(table) - 1)]),
            "!",
            "1 label has no negative: Normal",
        ),
        (
            lambda table: table.assign(Normal="1"),
            "!",
            "are left out: Normal. Name them by --labels",
        ),
        (
            lambda table: table.assign(Normal=["-1", *table["Normal"][1:]]),
            "!",
            f"{1 / (2 * ROWS):.1%} of the labels are unknown and masked, most of Normal",
        ),
    ],
)
def test_what_looks_doubtful(
    doctor: Doctor, data: Path, change: Callable, mark: str, sentence: str
) -> None:
    edit(data, change)
    code, findings, _ = doctor()
    assert code == 0
    assert sentence in marked(findings, mark)


def test_a_label_that_would_be_lost_is_an_error(doctor: Doctor, data: Path) -> None:
    edit(data, lambda table: table.assign(Normal=["large", "0"] * (len(table) // 2)))
    code, findings, _ = doctor()
    assert code == 1
    assert "column 'Normal' holds 'large'" in marked(findings, "✗")


def test_time_of_decoding_counts_the_wait(
    doctor: Doctor, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ImageStore.read

    def wait(store: ImageStore, place: int) -> np.ndarray:
        time.sleep(0.01)
        return read(store, place)

    monkeypatch.setattr(ImageStore, "read", wait)
    told = re.search(r"px, (\d+) a second by 1 thread", marked(doctor()[1], "✓"))
    assert told is not None
    assert int(told[1]) < 100


def test_config_gives_the_flags_of_the_data(call: Call, data: Path) -> None:
    settings = flat(PRESETS["small"]())
    settings |= {"train_csv": [str(data / "train.csv")], "train_dir": [str(data / "images")]}
    settings |= {"folds": 3, "num_workers": 0}
    for name in ("config", "overwrite"):
        del settings[name]
    (data / "run.json").write_text(json.dumps(settings))
    code, out, _ = call(main, "--config", data / "run.json")
    good = marked(listed(out), "✓")
    assert code == 0
    assert f"each of the {ROWS} images has a file" in good
    assert "3 folds of" in good
    # a flag goes before it
    assert "2 folds of" in marked(
        listed(call(main, "--config", data / "run.json", "--folds", 2)[1]), "✓"
    )
    (data / "run.json").write_text('{"trian_csv": []}')
    code, _, error = call(main, "--config", data / "run.json")
    assert (code, "did you mean 'train_csv'" in error) == (2, True)


def test_wrong_flags_end_with_2(call: Call) -> None:
    for flags, sentence in (
        (("--test_dir", "x"), "--test_csv and --test_dir are compared with --train_csv"),
        (("--folds", 1), "--folds must be at least 2"),
        (("--num_workers", -1), "--num_workers must be at least 0"),
        (("--nothing",), "--nothing"),
    ):
        code, out, error = call(main, *flags)
        assert code == 2, flags
        assert sentence in error
        assert "✓" not in out


def test_a_check_that_fails_itself_leaves_the_others_alone(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("of a package")

    monkeypatch.setattr(machine, "check_accelerator", fail)
    code, findings, _ = doctor()
    assert code == 1
    assert "accelerator could not be checked: ZeroDivisionError: of a package" in (
        marked(findings, "✗")
    )
    assert f"{ROWS} images can be read" in marked(findings, "✓")


def test_a_terminal_that_cannot_print_the_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    find = Findings()
    find.heading("Things")
    find.good("fine")
    find.bad("broken.", "mend it")
    find.look("this", lambda _: (_ for _ in ()).throw(UserError("a sentence")))
    assert find.end() == 1
    out.seek(0)
    assert out.read().splitlines() == [
        "Things",
        "  1 ok fine",
        "  2 NO broken: mend it",
        "  3 NO a sentence",
        "",
        "3 checks: 1 ok, 2 NO (see 2, 3)",
    ]


def test_errors_of_a_training_point_to_the_doctor(train: Call, data: Path) -> None:
    flags = (
        *("--train_csv", data / "train.csv", "--train_dir", data / "images", "--preset", "small"),
        *("--model", "test_efficientnet", "--no-pretrained", "--img_size", 32, "--batch_size", 8),
        *("--folds", 2, "--num_workers", 0, "--out_dir", data / "out"),
    )
    first, second = sorted((data / "images").iterdir())[:2]
    first.write_bytes(b"no image")
    code, _, error = train(*flags)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{first.name} cannot be read" in error
    assert (
        "; `python -m core.doctor --full` with the same flags of the data, or --config, names all"
        in (error)
    )
    second.unlink()
    code, _, error = train(*flags)
    assert (code, error.count("\n")) == (2, 1)
    assert (
        "; `python -m core.doctor` with the same flags of the data, or --config, looks at" in error
    )


def test_help_imports_nothing_heavy() -> None:
    """The time itself is measured by `python -m benchmarks startup`."""
    words = "import sys, core.doctor.__main__; print({'torch', 'timm', 'cv2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
