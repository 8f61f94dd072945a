"""Starts recorded in env.json, and lines on what changed since the first."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from packaging.version import Version

from core.runtime import environment
from core.runtime.environment import commit, describe_changes, limit_starts
from tests.conftest import Train
from tests.helpers.fault_table import Fault
from tests.helpers.training.small_run import flags

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run([*GIT, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init")
    (folder / "code.py").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def test_the_commit_is_that_of_the_project_itself(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert len(head) == 40
    assert commit(checkout) == head
    (checkout / "notes.txt").write_text("of no concern")
    assert commit(checkout) == head
    (checkout / "code.py").write_text("two")
    assert commit(checkout) == f"{head}-dirty"
    # a package that is installed below somebody's own checkout is not theirs
    inside = checkout / "site-packages"
    inside.mkdir()
    assert commit(inside) == ""
    # in a git hook the environment names the repository: not here
    with monkeypatch.context() as patch:
        patch.setenv("GIT_DIR", str(inside))
        assert commit(checkout) == f"{head}-dirty"
    worktree = checkout.parent / "tree"
    git(checkout, "worktree", "add", str(worktree))
    assert commit(worktree) == head
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(checkout))
        assert commit(checkout) == ""
    shutil.rmtree(checkout / ".git" / "objects")
    assert commit(checkout) == ""


def started(**more: Any) -> dict[str, Any]:
    return {"python": "3.11.7", "commit": "a", "versions": {"torch": "2.6"}} | more


def test_other_software_is_reported() -> None:
    assert describe_changes([started()]) == ""
    assert describe_changes([started(), started(time="later", platform="another")]) == ""
    message = describe_changes(
        [started(), started(), started(commit="b", versions={"torch": "2.7"})]
    )
    assert "commit a then, b now" in message
    assert "torch 2.6 then, 2.7 now" in message
    # a missing value of a start is not a change, and a damaged one does no harm
    assert describe_changes([started(), started(commit="", versions={"timm": "1"})]) == ""
    # another build of the same version is not other software
    builds = "2.14.1+cu130", "2.14.1", "2.14.1+cpu"
    first, plain, other = (started(versions={"torch": build}) for build in builds)
    assert describe_changes([first, plain]) == describe_changes([plain, first]) == ""
    assert "2.14.1+cu130 then, 2.14.1+cpu now" in describe_changes([first, other])
    assert describe_changes([{"versions": 3, "python": ["x"]}, started()]) == ""


def test_the_first_start_stays_however_many_follow() -> None:
    starts = [{"time": str(number)} for number in range(500)]
    kept = [int(start["time"]) for start in limit_starts(starts)]
    assert kept == [0, *range(401, 500)]
    assert limit_starts(starts[:1]) == starts[:1]


def test_each_start_of_a_run_is_recorded(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train, fault: Fault
) -> None:
    fault("a run that is resumed with other software or files", 2)
    out = Path(shutil.copytree(finished[0], tmp_path / "out"))
    (first,) = json.loads((out / "env.json").read_text())["starts"]
    assert first["command"][0].endswith("train.py")
    assert str(finished[0]) in first["command"]
    assert json.loads((out / "env.json").read_text())["seed"] == 42
    for name in ("torch", "opencv_python_headless", "pillow", "pydicom", "longtail_cxr"):
        assert Version(first["versions"][name]) > Version("0")
    here = Path(__file__).parents[3]
    if (here / ".git").exists():
        assert first["commit"].removesuffix("-dirty") == git(here, "rev-parse", "HEAD")
    assert os.uname().nodename not in json.dumps(first["platform"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "commit", lambda _: "f" * 40)
        code, printed, _ = train(*flags(phantom, out))
    assert code == 0
    assert f"commit {first['commit']} then, {'f' * 40} now" in printed
    with pytest.MonkeyPatch.context() as patch:
        # whoever edits a file meanwhile
        patch.setattr(environment, "commit", lambda _: first["commit"])
        code, printed, _ = train(*flags(phantom, out))
    assert code == 0
    assert "other software" not in printed
    starts = json.loads((out / "env.json").read_text())["starts"]
    assert [start["commit"] for start in starts] == [first["commit"], "f" * 40, first["commit"]]


def test_resuming_with_other_data_is_refused_by_what_differs(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train, fault: Fault
) -> None:
    data = Path(shutil.copytree(phantom, tmp_path / "data"))
    out = Path(shutil.copytree(finished[0], tmp_path / "out"))
    config = json.loads((out / "config.json").read_text())
    config |= {"train_csv": [str(data / "train.csv")], "train_dir": [str(data / "images")]}
    (out / "config.json").write_text(json.dumps(config))
    table = pd.read_csv(phantom / "train.csv")
    folds = pd.read_csv(out / "folds.csv")["fold"]
    # two patients of one fold swap names, so that no patient changes fold
    one, other = table["PatientID"][folds == 1].unique()[:2]
    swapped = table["PatientID"].replace({one: other, other: one})
    flipped = table.assign(Edema=table["Edema"].where(table.index != 3, 1 - table["Edema"]))
    cases = {
        "images": table.assign(ImageID=table["ImageID"][[1, 0, *range(2, 60)]].to_numpy()),
        "labels": flipped,
        "patients": table.assign(PatientID=swapped),
    }
    for what, other_table in cases.items():
        fault("resume with other data", 1)
        other_table.to_csv(data / "train.csv", index=False)
        before = (out / "env.json").read_bytes()
        code, _, error = train(*flags(data, out))
        assert code == 2
        assert error.count("\n") == 1
        named = error.partition("differs in the ")[2].partition(" of the CSV")[0]
        assert what in named.replace(" and ", ", ").split(", ")
        assert "--overwrite" in error
        assert (out / "env.json").read_bytes() == before
    # an older run does not record its parts
    environment = json.loads((out / "env.json").read_text())
    del environment["parts"]
    (out / "env.json").write_text(json.dumps(environment))
    assert "the images, labels, patients or folds of the CSV" in train(*flags(data, out))[2]


def test_changed_files_under_the_same_names_are_reported(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train, fault: Fault
) -> None:
    """They are not refused: an unreadable image is repaired in that way."""
    fault("a run that is resumed with other software or files", 1)
    data, out = Path(shutil.copytree(phantom, tmp_path / "data")), tmp_path / "out"
    options = ("--run_folds", 1)
    assert train(*flags(data, out, *options))[0] == 0
    image = next((data / "images").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    code, printed, _ = train(*flags(data, out, *options))
    assert code == 0
    assert "Warning: image files changed since the last start of this run" in printed
    code, printed, _ = train(*flags(data, out, *options))
    assert code == 0
    assert "image files changed" not in printed
