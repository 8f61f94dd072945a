"""`python -m ensemble.evaluate`: what it replaces, and what it refuses."""

from tests.helpers.synthetic.scores import Command, Files, read_json


def test_what_is_there_is_replaced_only_if_it_is_an_evaluation(
    command: Command, files: Files
) -> None:
    first = ["--predictions", files.path("best"), "--labels", files.path("labels")]
    flags = [*first, "--resamples", 0, "--output", files.folder / "out"]
    out = [files.folder / "out.json", files.folder / "out.csv"]
    assert command(*flags)[0] == 0
    before = [path.read_bytes() for path in out]
    assert command(*flags, "--common", "--thresholds", 0.5)[0] == 0
    assert [path.read_bytes() for path in out] != before
    for name, text in (("out.json", '{"kind": "calibration"}'), ("out.csv", "mine")):
        for path in out:
            path.unlink(missing_ok=True)
        (files.folder / name).write_text(text)
        code, _, error = command(*flags)
        assert code == 2
        assert f"{name} exists and is no earlier evaluation" in error
        assert [path.exists() for path in out] == [name == path.name for path in out]
        assert (files.folder / name).read_text() == text
    assert command(*flags, "--overwrite")[0] == 0
    assert read_json(out[0])["kind"] == "evaluation"
    assert "Nodule" in out[1].read_text()
    # inputs stay what they are, whatever is asked
    for name in ("labels", "best", "poor", "meta", "train"):
        path = files.path(name)
        kept = path.read_bytes()
        more = ["--against", files.path("poor"), "--meta", files.path("meta"), "--by", "sex"]
        more += ["--train_csv", files.path("train"), "--overwrite", "--output", path]
        code, _, error = command(*first, *more)
        assert code == 2
        assert f"{path} is a file that is read" in error
        assert path.read_bytes() == kept


def test_what_it_refuses(command: Command, files: Files) -> None:
    good = ["--predictions", files.path("best"), "--labels", files.path("labels")]
    nan, texts, empty = (files.folder / name for name in ("nan.csv", "texts.csv", "empty.csv"))
    nan.write_text("ImageID,Mass\n000.png,nan\n")
    texts.write_text("ImageID,Site\n000.png,x\n")
    empty.write_text("")
    (files.folder / "folder.json").mkdir()
    (files.folder / "broken.json").write_text("{")
    below = files.path("best") / "x"
    for arguments, told in (
        ([], "no predictions are given"),
        (["--predictions", files.path("best")], "no labels are given"),
        (["--predictions", files.path("no"), *good[2:]], "There is no file"),
        (["--predictions", nan, *good[2:]], "row 2 (the header is row 1), column 'Mass' holds"),
        (["--predictions", empty, *good[2:]], "is empty"),
        ([*good[:2], "--labels", texts], "has no column for any class of"),
        ([*good, "--labels", files.path("best")], "a label is 1, 0, -1 (uncertain) or blank"),
        ([*good, "--against", files.path("best")], "is the file itself"),
        ([*good[:2], files.path("best"), *good[2:]], "is given more than once"),
        ([*good, "--train_csv", texts], "has no column for any of the classes Effusion, "),
        ([*good, "--resamples", -1], "--resamples must be at least 0"),
        ([*good, "--seed", -1], "--seed must be at least 0"),
        ([*good, "--sensitivity", 0], "--sensitivity must be above 0"),
        ([*good, "--thresholds", 2], "--thresholds must lie within 0 and 1"),
        ([*good, "--thresholds", files.folder / "broken.json"], "it is no JSON"),
        ([*good, "--thresholds", 0.5, "--sensitivity", 0.9], "contradict each other"),
        ([*good, "--gated"], "--gated chooses among"),
        ([*good, "--thresholds", 0.5, "--gated"], "--gated chooses among"),
        ([*good, "--by", "sex"], "--by sex is no column of"),
        ([*good, "--meta", files.path("meta")], "--meta has columns for --by"),
        ([*good, "--view_column", "Sex"], "--view_column says what --by view means"),
        ([*good[:2], files.path("poor"), *good[2:], "--by", "age"], "are of one file"),
        ([*good, "--image_column", "Name"], "has no column 'Name' (--image_column)"),
        ([*good, "--patient_column", "Who"], "has no column 'Who' (--patient_column)"),
        ([*good, "--uncertain", "two"], "there is no --uncertain 'two'"),
        ([*good, "--output", files.folder / "folder"], "it is a folder"),
        ([*good, "--output", below], "lies below a file"),
        ([*good, "--output", "."], "is a folder"),
    ):
        before = sorted(files.folder.rglob("*"))
        code, _, error = command(*arguments)
        assert code == 2, arguments
        assert told in error
        assert error.count("\n") == 1, error
        assert sorted(files.folder.rglob("*")) == before
