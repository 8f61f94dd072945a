"""Training of a method that also keeps the validation predictions of each epoch.

    python -m benchmarks.keep_epochs methods/csra_db_cas/train.py FLAGS...

The flags are those of the script. Beside the files of the run, <out_dir>/epochs/fold<k>.safetensors
has the probabilities of each epoch, (E, V, C), and the rows of the table (V,).
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import core.training.loop
from benchmarks.studies.paired import epochs_file
from core.config.command_line import run
from core.io.atomic import write_atomically
from core.training.fold_record import FoldRecord, TrainedEpoch


class EpochRecord(FoldRecord):
    """FoldRecord that keeps the predictions of each epoch."""

    def end_epoch(
        self,
        epoch: TrainedEpoch,
        stages: Sequence[int],
        module: nn.Module,
        probabilities: np.ndarray,
    ) -> None:
        """`FoldRecord.end_epoch`; replaces the predictions of epochs that are trained again."""
        path = epochs_file(self.run.folder.path, self.data.fold)
        path.parent.mkdir(exist_ok=True)
        found = torch.from_numpy(probabilities)[None].float()
        done = self.state.progress.epoch
        if done and path.exists():
            found = torch.cat([load_file(path)["epochs"][:done], found])
        tensors = {"epochs": found, "rows": torch.from_numpy(self.data.val_rows)}
        write_atomically(path, lambda file: save_file(tensors, file))
        super().end_epoch(epoch, stages, module, probabilities)


def main() -> None:
    """Run a method's training script with this record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("script", type=Path, help="train.py of a method")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="flags of the script")
    given = parser.parse_args()
    core.training.loop.FoldRecord = EpochRecord  # type: ignore[misc]
    sys.argv = [str(given.script), *given.flags]
    import_module(".".join(given.script.with_suffix("").parts)).main()


if __name__ == "__main__":
    run(main)
