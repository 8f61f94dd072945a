"""Hostile CSV and JSON: read correctly or refused in one line, within ten seconds and two
gigabytes, without code execution."""

import json
from pathlib import Path

import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.harness import Watched
from tests.helpers.fuzz.text import cases as text_cases
from tests.helpers.fuzz.text import files as text_files

# of these commands each file is spoiled in turn
COMMANDS: dict[str, tuple[list[str], str, list[str]]] = {
    "evaluate": (
        [
            *("ensemble.evaluate", "--predictions", "@predictions.csv", "--labels", "@labels.csv"),
            *("--train_csv", "@train.csv", "--label_map", "@map.csv", "--meta", "@meta.csv"),
            *("--by", "site", "sex", "age", "--thresholds", "@calibration.json", "--common"),
            *("--resamples", "0", "--output", "@scores", "--overwrite"),
        ],
        "scored",
        ["predictions.csv", "labels.csv", "train.csv", "map.csv", "meta.csv", "calibration.json"],
    ),
    "calibrate": (
        [
            *("ensemble.calibrate", "--predictions", "@predictions.csv", "--labels"),
            *("@labels.csv", "--folds", "2", "--common", "--output", "@made.json"),
        ],
        "scored",
        ["predictions.csv", "labels.csv"],
    ),
    "choose": (
        ["ensemble.choose", "--runs", "@one", "--folds", "2", "--common", "--output", "@made.json"],
        "run",
        ["labels.csv", "one/config.json", "one/toy_fold1_val.csv"],
    ),
}


@pytest.fixture(scope="module")
def sandbox(watched: Watched) -> Path:
    (watched.folder / "hostile").mkdir()
    text_files.make_good(watched.folder / "good")
    return watched.folder


def seeds(soak: bool, many: int, few: int) -> range:
    # those of the short form are among the others
    return range(many if soak else few)


def test_the_good_files_are_read(watched: Watched, sandbox: Path) -> None:
    """Else nothing that is refused here would show anything."""
    good = sandbox / "good"
    calls: list[tuple[str, list]] = [
        ("training", [str(good / "training"), "train.csv", 0]),
        ("to_predict", [str(good / "training"), "test.csv", 0]),
        ("mutated_plain", [str(good / "training"), "train.csv", 0]),
        ("run_folder", [str(good / "run"), "", 0, False]),
        ("run_folder", [str(good / "run"), "", 0, True]),
        ("mutated_json", ["calibration", str(good / "json"), "calibration.json", 0]),
        ("mutated_json", ["configuration", str(good / "json"), "config.json", 0]),
        *(
            ("command", [str(good / folder), "", 0, *words])
            for words, folder, _ in COMMANDS.values()
        ),
    ]
    for target, arguments in calls:
        (outcome,) = watched.call(f"text.targets:{target}", [arguments])
        assert outcome.kind == "ok", outcome.text
    for name, (table, _) in text_files.TABLES.items():
        (outcome,) = watched.call("text.targets:source", [[str(good / name), table, "", 0]])
        assert outcome.kind == "ok", (name, outcome.text)
    # its checkpoints alone are missing
    ensemble = ["ensemble", str(good / "json"), "ensemble.json", 0]
    (outcome,) = watched.call("text.targets:mutated_json", [ensemble])
    assert "one/a.safetensors is not there" in outcome.text


def test_hand_written_tables(watched: Watched, sandbox: Path, fault: Fault) -> None:
    paths = text_cases.special(sandbox / "hostile")
    for name, data in text_cases.small():
        paths.append(sandbox / "hostile" / name)
        paths[-1].write_bytes(data)
    fault("hostile CSV", len(paths))
    assert watched.bad("text.targets:plain", [[str(path)] for path in paths]) == []


def test_large_tables(watched: Watched, sandbox: Path, fault: Fault, soak: bool) -> None:
    made = dict(text_cases.large())
    names = list(made) if soak else text_cases.LARGE_AND_FAST
    fault("hostile CSV", len(names))
    found = []
    for name in names:
        path = sandbox / "hostile" / name
        path.write_bytes(made[name]())
        found += watched.bad("text.targets:plain", [[str(path)]])
        path.unlink()
    assert found == []


@pytest.mark.parametrize("name", text_files.TABLES)
def test_tables_of_known_sources(
    watched: Watched, sandbox: Path, fault: Fault, soak: bool, name: str
) -> None:
    table, beside = text_files.TABLES[name]
    tries = [
        [str(sandbox / "good" / name), table, victim, seed]
        for victim in (table, *beside)
        for seed in seeds(soak, 140, 4)
    ]
    fault("hostile CSV", len(tries))
    assert watched.bad("text.targets:source", tries) == []


@pytest.mark.parametrize(
    ("target", "victims"),
    [
        ("training", ["train.csv", "val.csv", "map.csv"]),
        ("to_predict", ["test.csv", "sample.csv"]),
        ("mutated_plain", ["train.csv", "val.csv"]),
    ],
)
def test_tables_of_training_and_prediction(
    watched: Watched, sandbox: Path, fault: Fault, soak: bool, target: str, victims: list[str]
) -> None:
    good = str(sandbox / "good" / "training")
    tries = [[good, victim, seed] for victim in victims for seed in seeds(soak, 200, 5)]
    fault("hostile CSV", len(tries))
    assert watched.bad(f"text.targets:{target}", tries) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_whole_commands(
    watched: Watched, sandbox: Path, fault: Fault, soak: bool, name: str
) -> None:
    words, folder, victims = COMMANDS[name]
    tries = [
        [str(sandbox / "good" / folder), victim, seed, *words]
        for victim in victims
        for seed in seeds(soak, 100, 4)
    ]
    csvs = sum(victim.endswith(".csv") for victim in victims) * len(tries) // len(victims)
    fault("hostile CSV", csvs)
    fault(
        "hostile run folder" if name == "choose" else "hostile calibration.json", len(tries) - csvs
    )
    assert watched.bad("text.targets:command", tries) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_folders_that_are_taken_up(
    watched: Watched, sandbox: Path, fault: Fault, soak: bool, overwrite: bool
) -> None:
    run = sandbox / "good" / "run"
    victims = ["one/config.json", "one/env.json", "one/metrics.csv", "one/toy_fold1_val.csv"]
    tries = [[str(run), victim, n, overwrite] for victim in victims for n in seeds(soak, 150, 4)]
    for name in ("config.json", "env.json"):
        document = json.loads((run / "one" / name).read_bytes())
        for number, changed in enumerate(text_cases.leaves(document)):
            if soak or number % 97 == 0:
                tries.append([str(run), f"one/{name}", json.dumps(changed), overwrite])
    fault("hostile run folder", len(tries))
    assert watched.bad("text.targets:run_folder", tries) == []


@pytest.mark.parametrize(
    ("kind", "name", "every"),
    [
        ("calibration", "calibration.json", 23),
        ("ensemble", "ensemble.json", 23),
        ("configuration", "config.json", 121),
    ],
)
def test_documents(
    watched: Watched, sandbox: Path, fault: Fault, soak: bool, kind: str, name: str, every: int
) -> None:
    good = text_files.documents()[name]
    texts = [json.dumps(changed).encode() for changed in text_cases.leaves(good)]
    whole = list(text_cases.texts_of_json(good))
    texts = texts[:: 1 if soak else every] + whole[:: 1 if soak else 3]
    paths = [sandbox / "hostile" / f"{number} {name}" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    spoiled = [[kind, str(sandbox / "good" / "json"), name, n] for n in seeds(soak, 500, 8)]
    fault(f"hostile {name.replace('config.json', 'configuration')}", len(paths) + len(spoiled))
    found = watched.bad(f"text.targets:{kind}", [[str(path)] for path in paths])
    assert found + watched.bad("text.targets:mutated_json", spoiled) == []
    for path in paths:
        path.unlink()
