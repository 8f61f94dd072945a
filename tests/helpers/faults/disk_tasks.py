"""What is run on the small disk: every command that writes, with results of seconds."""

import json
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.models.checkpoint import load_tensors
from tests.helpers.faults.same_results import assert_same
from tests.helpers.faults.small_disk import Ended, Room
from tests.helpers.training.small_run import MODEL, flags

# a file that is appended to may end in half a row, which the next start drops
_APPENDED = {"metrics.csv", "timing.csv", "pack.blocks.jsonl"}
# how a whole file ends
_ENDS = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".csv": b"\n", ".json": b"}"}


@dataclass
class Task:
    """A command that writes into `room.path/work`, and what that is undisturbed."""

    room: Room
    module: str
    arguments: list[str]
    undisturbed: Path = field(init=False)
    steps: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.work = self.room.path / "work"
        self.seen = self.room.seen / "work"
        self.undisturbed = Path(tempfile.mkdtemp(dir=self.room.notes)) / "work"
        self.begin()
        ended = self.run()
        assert (ended.code, ended.error) == (0, ""), ended.error[-3000:]
        # without what tells a temporary file from that of another process
        self.steps = [(what, re.sub(r"\.\d+(?=\.\w+$)", "", name)) for what, name in ended.steps]
        shutil.copytree(self.seen, self.undisturbed)

    def begin(self) -> None:
        """An empty place to work in."""
        for path in self.room.seen.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.seen.mkdir()

    def run(self, blow: dict[str, Any] | None = None, **files: str) -> Ended:
        """The command."""
        return self.room.call(self.module, *self.arguments, blow=blow, **files)

    def number(self, what: str, name: str, time: int = 1) -> int:
        """Of the step `what` with a file of this ending, the number (from 1) the `time`th time."""
        numbers = [
            number
            for number, (done, file) in enumerate(self.steps, start=1)
            if done == what and file.endswith(name)
        ]
        return numbers[time - 1]

    def check_what_is_left(self) -> None:
        """Every file is whole, and none is temporary."""
        unfinished = {path.parent for path in self.seen.rglob("phantom.partial")}
        for path in self.seen.rglob("*"):
            assert not path.name.startswith(".") or path.is_dir() or path.name == ".lock", path
            if not path.is_file() or path.name in _APPENDED or unfinished & set(path.parents):
                continue
            if path.suffix == ".safetensors":
                load_tensors(path)
            elif path.suffix in _ENDS:
                assert (
                    path.read_bytes()
                    .rstrip(b"\n" * (path.suffix != ".csv"))
                    .endswith(_ENDS[path.suffix])
                ), path
            if path.suffix == ".json":
                json.loads(path.read_text())

    def check_the_same_command_ends(self) -> None:
        """Given again, it comes to the result of a command that was not disturbed."""
        ended = self.run()
        assert (ended.code, ended.error) == (0, ""), ended.error[-3000:]
        assert_same(self.seen, self.undisturbed)

    def try_full(self, blow: dict[str, Any]) -> str:
        """Begin anew on a disk that is full at `blow`; make room, and go on; what was told."""
        self.begin()
        ended = self.run(blow)
        (self.room.seen / "ballast").unlink(missing_ok=True)
        assert len(ended.steps) >= blow["at"], "the disk was never full"
        if ended.code == 0:
            # features that find no room are computed anew, and what is left may need no more room
            assert not ended.error
            if "are computed anew" not in ended.out:
                assert_same(self.seen, self.undisturbed)
            return ""
        told = ended.sentence()
        assert "cannot be" in told, told
        self.check_what_is_left()
        self.check_the_same_command_ends()
        return told


def training(room: Room, method: str, data: Path) -> Task:
    """One fold of a method: two epochs of the head, whose features are kept, and one of all."""
    out = room.path / "work" / "out"
    options = ["--run_folds", 1, "--epochs", 1, "--labels", "Effusion,Normal", "--tensorboard"]
    if method != "label_coupling":
        options += ["--warmup_head_epochs", 2, "--head_views", 1]
    else:
        options += ["--test_csv", data / "test.csv", "--out_csv", room.path / "work" / "test.csv"]
    return Task(room, f"methods.{method}.train", flags(data, out, *options))


# what writes beside a training: {data} is a phantom with predictions of its test images, {run} the
# folder of one fold that was trained on it, {coupled} that of label_coupling, {work} where to write
COMMANDS = {
    "ensemble.infer": "--checkpoints {run}/{model}_fold1.safetensors --test_csv {data}/test.csv "
    "--image_dir {data}/images --batch_size 4 --num_workers 0 --output {work}/p.csv",
    "core.data.pack": "--train_dir {data}/images --size 32 --num_workers 1 --out {work}/pack",
    "core.data.phantom": "{work}/phantom --images 20 --size 32",
    "ensemble.evaluate": "--predictions {run}/{model}_fold1_val.csv --labels {data}/train.csv "
    "--common --output {work}/scores",
    "ensemble.choose": "--runs {run} --common --folds 2 --output {work}/ensemble.json",
    "ensemble.calibrate": "--predictions {data}/predicted.csv --labels {data}/test_labels.csv "
    "--folds 2 --output {work}/calibration.json",
    "methods.label_coupling.couplings": "{coupled}/{model}_fold1.safetensors --out_dir {work}/c",
}


def arguments_of(command: str, **places: Path) -> list[str]:
    """Those of one of COMMANDS."""
    text = COMMANDS[command].format(model=MODEL, **dict.fromkeys(("coupled", "run"), "") | places)
    return text.split()
