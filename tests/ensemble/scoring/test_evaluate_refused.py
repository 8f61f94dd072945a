"""`python -m ensemble.evaluate`: replaced files and errors."""

from functools import partial

import pytest

from ensemble.evaluate import main
from tests.helpers.calls import refusal
from tests.helpers.synthetic.scores import Command, Files


@pytest.fixture
def command(call: Command) -> Command:
    return partial(call, main)


@pytest.mark.usefixtures("blank")
def test_what_is_there_is_replaced_only_with_overwrite(command: Command, files: Files) -> None:
    first = ["--predictions", files.path("best"), "--labels", files.path("labels")]
    flags = [*first, "--resamples", 0, "--report", "--output", files.folder / "out"]
    out = [files.folder / f"out.{ending}" for ending in ("json", "csv", "html")]
    assert command(*flags)[0] == 0
    before = [path.read_bytes() for path in out]
    other = [*flags, "--thresholds", 0.5]
    assert "out.json exists" in refusal(command, *other)
    assert [path.read_bytes() for path in out] == before
    assert command(*other, "--overwrite")[0] == 0
    assert out[0].read_bytes() != before[0]
    for place in (1, 2):
        for path in out:
            path.unlink()
        out[place].write_text("mine")
        assert f"{out[place].name} exists" in refusal(command, *flags)
        # without the JSON of an earlier evaluation it is somebody's own
        assert "not of an earlier evaluation" in refusal(command, *flags, "--overwrite")
        assert [path.read_text() for path in out if path.exists()] == ["mine"]
        out[place].unlink()
        assert command(*flags, "--overwrite")[0] == 0
    # a page of earlier scores does not stay beside others
    assert out[2].exists()
    assert command(*[word for word in flags if word != "--report"], "--overwrite")[0] == 0
    assert not out[2].exists()
    # JSON of another kind is never replaced
    out[0].write_text('{"kind": "calibration"}')
    assert "which --overwrite does not replace" in refusal(command, *flags, "--overwrite")
    assert out[0].read_text() == '{"kind": "calibration"}'
    # inputs stay what they are, whatever is asked
    for name in ("labels", "best", "poor", "meta", "train"):
        path = files.path(name)
        kept = path.read_bytes()
        more: list[object] = [
            "--against",
            files.path("poor"),
            "--meta",
            files.path("meta"),
            "--by",
            "sex",
        ]
        more += ["--train_csv", files.path("train"), "--overwrite", "--output", path]
        code, _, error = command(*first, *more)
        assert code == 2
        assert f"would overwrite the input file {path}" in error
        assert path.read_bytes() == kept


def test_what_it_refuses(command: Command, files: Files) -> None:
    good: list[object] = ["--predictions", files.path("best"), "--labels", files.path("labels")]
    several = [*good[:2], files.path("poor"), *good[2:]]
    nan, texts, empty = (files.folder / name for name in ("nan.csv", "texts.csv", "empty.csv"))
    nan.write_text("ImageID,Mass\n000.png,nan\n")
    texts.write_text("ImageID,Site\n000.png,x\n")
    empty.write_text("")
    (files.folder / "folder.json").mkdir()
    (files.folder / "broken.json").write_text("{")
    images: list[object] = ["--image_dir", files.folder]
    for arguments, expected in (
        ([], "no predictions are given"),
        (["--predictions", files.path("best")], "no labels are given"),
        (["--predictions", files.path("no"), *good[2:]], "is missing: give a CSV"),
        (["--predictions", nan, *good[2:]], "row 2 (the header is row 1), column 'Mass' holds"),
        (["--predictions", empty, *good[2:]], "is empty"),
        ([*good[:2], "--labels", texts], "has no column for any class of"),
        ([*good, "--labels", files.path("best")], "a label is 1, 0, -1 (uncertain) or blank"),
        ([*good, "--against", files.path("best")], "is the scored file itself"),
        ([*good[:2], files.path("best"), *good[2:]], "is given more than once"),
        ([*good, "--train_csv", texts], "has no column for any of the classes Effusion, "),
        ([*good, "--resamples", -1], "--resamples must be at least 0"),
        ([*good, "--sensitivity", 0], "--sensitivity must be above 0"),
        ([*good, "--thresholds", 2], "--thresholds must be within 0 and 1"),
        ([*good, "--thresholds", files.folder / "broken.json"], "it is not valid JSON"),
        ([*good, "--thresholds", 0.5, "--sensitivity", 0.9], "contradict each other"),
        ([*good, "--gated"], "--gated needs the"),
        ([*good, "--thresholds", 0.5, "--gated"], "--gated needs the"),
        ([*good, "--by", "sex"], "--by sex is not a column of"),
        ([*good, "--meta", files.path("meta")], "--meta needs --by"),
        ([*good, "--view_column", "Sex"], "--view_column is the column of --by view"),
        ([*several, "--by", "age"], "need a single file"),
        ([*good, "--image_column", "Name"], "has no column 'Name' (--image_column)"),
        ([*good, "--patient_column", "Who"], "has no column 'Who' (--patient_column)"),
        ([*good, "--uncertain", "two"], "there is no --uncertain 'two'"),
        ([*good, "--output", files.folder / "folder"], "it is a folder"),
        ([*good, "--output", files.path("best") / "x"], "lies below a file"),
        ([*good, "--output", "."], "is a folder"),
        ([*good, *images], "--image_dir has the images of the report: add --report"),
        ([*good, *images, "--report", "--anonymous"], "--anonymous shows no images"),
        ([*several, *images, "--report"], "give one of --predictions"),
        ([*good, "--report", "--image_dir", files.folder / "no"], "does not exist"),
    ):
        before = sorted(files.folder.rglob("*"))
        code, _, error = command(*arguments)
        assert code == 2, arguments
        assert expected in error
        assert error.count("\n") == 1, error
        assert sorted(files.folder.rglob("*")) == before
