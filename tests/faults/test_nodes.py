"""Two launchers as nodes of one launch: train, stop, resume and end together."""

import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.faults.commands import assert_complete, training
from tests.helpers.faults.launch import Launch, wait_until
from tests.helpers.faults.launches import TRAIN, Launches, Place
from tests.helpers.faults.same_results import differing

STOP = "stop of two nodes, resumed with another number of processes"


def train_until(nodes: list[Launch], out: Path, epochs: int) -> None:
    """Wait until so many epochs are recorded, and some of the next one's updates are made."""
    metrics = out / "metrics.csv"

    def recorded() -> bool:
        assert not nodes[0].has_ended(), nodes[0].printed[-3000:]
        return metrics.exists() and len(metrics.read_text().splitlines()) > epochs

    wait_until(recorded, 200)
    time.sleep(0.1)


@pytest.mark.fault(STOP, tried=2)
def test_nodes_stop_and_resume_in_any_number(
    launches: Launches, data: Path, tmp_path: Path, soak: bool
) -> None:
    """Two nodes of one process, then one process; in the long form then two nodes of two."""
    out = tmp_path / "out"
    words = training(data, out, "--epochs", 20)
    nodes = launches.nodes(TRAIN, *words, processes=1)
    train_until(nodes, out, 2)
    for node in nodes:
        node.send(signal.SIGTERM)
    assert all(node.ends() for node in nodes)
    printed = nodes[0].printed + nodes[1].printed
    assert printed.count("; the same command goes on from here") == 1, printed
    assert not any(node.has_traceback() for node in nodes)
    alone = launches.start(TRAIN, *words)
    epochs = len(pd.read_csv(out / "metrics.csv"))
    train_until([alone], out, epochs + 2)
    alone.send(signal.SIGTERM)
    assert alone.ends() == 128 + signal.SIGTERM
    assert "An update now takes 4 images and took 8" in alone.printed
    sizes = [2, 1]
    if soak:
        words = training(data, out, "--epochs", 20)
        four = launches.nodes(TRAIN, *words, processes=2)
        assert "An update now takes 16 images and took 4" in four[0].finishes()
        four[1].finishes()
        assert_complete(out, epochs=21)
        sizes.append(4)
    processes = pd.read_csv(out / "timing.csv")["processes"].tolist()
    assert sorted(set(processes), key=processes.index) == sizes


@pytest.mark.soak
@pytest.mark.fault(STOP)
def test_two_nodes_resume_as_one_to_the_same_bits(
    launches: Launches, data: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "out", training(data, tmp_path / "out", "--epochs", 12)
    launches.start(TRAIN, *words, place=Place(2), fabric=False).finishes()
    expected = out.rename(tmp_path / "expected")
    nodes = launches.nodes(TRAIN, *words, processes=1)
    train_until(nodes, out, 2)
    for node in nodes:
        node.send(signal.SIGTERM)
    assert all(node.ends() for node in nodes)
    assert "An update now takes" not in launches.start(TRAIN, *words, place=Place(2)).finishes()
    assert not differing(out, expected)


@pytest.mark.fault("SIGKILL to a whole node of two")
@pytest.mark.parametrize(
    ("lost", "processes"),
    [
        (0, 1),
        *(pytest.param(*case, marks=pytest.mark.soak) for case in ((1, 1), (1, 2), (0, 2))),
    ],
)
def test_a_lost_node_ends_the_other_one(
    lost: int, processes: int, launches: Launches, data: Path, tmp_path: Path
) -> None:
    """The launcher and all its processes, killed at once."""
    out = tmp_path / "out"
    nodes = launches.nodes(TRAIN, *training(data, out, "--epochs", 2000), processes=processes)
    train_until(nodes, out, 2)
    nodes[lost].kill()
    message = nodes[1 - lost].sentence()
    ranks = [lost * processes + local for local in range(processes)]
    world = 2 * processes
    named = f"process {ranks[0] + 1} of {world} (rank {ranks[0]})"
    if processes == 2:
        both = f"{ranks[0] + 1} and {ranks[1] + 1} of {world}"
        named = f"processes {both} (ranks {ranks[0]} and {ranks[1]})"
    assert named in message
    assert message.endswith("; rerun the same command to resume")


@pytest.mark.fault("nodes with other data or settings", tried=4)
def test_nodes_that_see_other_files_do_not_train(
    launches: Launches, data: Path, tmp_path: Path
) -> None:
    """Other labels, other settings, another run folder, no images at all."""
    table = pd.read_csv(data / "train.csv")
    table["Effusion"] = 1 - table["Effusion"]
    table.to_csv(tmp_path / "other.csv", index=False)
    same = training(data, tmp_path / "out")

    def refusal(*second: object) -> str:
        port = launches.port()
        given: list[list[object]] = [[*same], [*same, *second]]
        nodes = [
            launches.start(TRAIN, *words, place=Place(1, 2, node), port=port)
            for node, words in enumerate(given)
        ]
        assert all(node.ends() for node in nodes)
        sentences = nodes[0].errors + nodes[1].errors
        assert len(sentences) == 1, sentences
        return sentences[0]

    both = "processes 1 and 2 of 2 (ranks 0 and 1) do not have the same"
    remedy = "give the same command on each machine, and the same files"
    other = refusal("--train_csv", tmp_path / "other.csv")
    assert other == f"{both} --train_csv, labels, folds: {remedy}"
    assert refusal("--log_every", 3) == f"{both} --log_every: {remedy}"
    assert refusal("--out_dir", tmp_path / "elsewhere") == f"{both} --out_dir: {remedy}"
    nowhere = tmp_path / "nowhere"
    assert refusal("--train_dir", nowhere).startswith(f"The image folder {nowhere} does not exist")
    assert {path.name for path in tmp_path.iterdir()} == {"other.csv"}
