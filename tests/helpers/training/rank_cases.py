"""Cases of FoldTrainer, with a record of what each rank sees.

A command with the arguments DATA OUT: trains a toy network on the phantom DATA, in one process or
in those of a launcher. Rank R leaves of each case OUT/CASE/rankR.json and .safetensors beside the
run's own files. An update takes `GLOBAL_BATCH` images, however many processes there are.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

import core.training.loop
from core.config.training import LoaderConfig
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData
from core.errors import UserError
from core.losses import NAMES, build_loss
from core.models.checkpoint import load_into, load_tensors
from core.models.data_digests import NAME
from core.models.predict import identity, mirror, predict
from core.runtime.fabric import make_fabric
from core.training.loop import FoldTrainer
from core.training.optimizer import Phase
from core.training.step_monitor import StepMonitor
from methods.csra_db_cas.model import CSRAHead
from methods.label_coupling.model import CoupledHead, LabelCoupling
from tests.helpers.training.toy_model import Toy, half_known, toy_run

# two_way compares the images of a batch with each other: another batch, another loss
LOSSES = [name for name in NAMES if name != "two_way"]
GLOBAL_BATCH = 8
# of 60 images: 6 updates an epoch
TRAINING_IMAGES = 50
VALIDATION_SIZES = (11, 13)
STOP_AT = 3
SPOILED = 9
EVER = 1e9
BOTH = (identity, mirror)
ALL = Phase("all", 2, {"backbone": 1e-2, "head": 1e-2})
HEAD = Phase("head", 1, {"head": 1e-2})
# brings some couplings back to 0, and others not
L1 = 3e-3
Sampler = Literal["uniform", "class_aware", "repeat_factor"]


class Witness(StepMonitor):
    """Record of the rows of each update of this rank, and of the updates followed by a save."""

    rows: dict[int, list[int]]
    saved_after: list[int]
    # what this rank does to itself at an update
    stop_at: int | None = None

    def remember(self, update: int, rows: Tensor) -> None:
        super().remember(update, rows)
        self.rows.setdefault(update, []).extend(rows.tolist())
        if update == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def reset_clock(self) -> None:
        super().reset_clock()
        self.saved_after.append(len(self.rows))


class Headed(nn.Module):
    """A model with a head, like those of the methods."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class Spoiled(nn.Module):
    """A loss that is NaN at its call number `at`, or only its gradient is."""

    def __init__(self, loss: nn.Module, at: int, *, gradient: bool) -> None:
        super().__init__()
        self.loss, self.at, self.gradient, self.calls = loss, at, gradient, 0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        loss = self.loss(logits, targets)
        if self.calls != self.at:
            return loss
        if not self.gradient:
            return loss * torch.nan
        loss.register_hook(lambda gradient: gradient * torch.nan)
        return loss


class Cases:
    """Shared state of the cases: processes, images and output folder."""

    def __init__(self, fabric: Fabric, data: Path, out: Path) -> None:
        self.fabric, self.out = fabric, out
        self.last_rank = fabric.global_rank == fabric.world_size - 1
        self.table = half_known(data)

    def fold(
        self, validation: int = 10, accumulate: int = 1, sampler: Sampler = "uniform"
    ) -> FoldData:
        rows = np.arange(len(self.table))
        batch = GLOBAL_BATCH // self.fabric.world_size // accumulate
        loader = LoaderConfig(img_size=32, batch_size=batch, num_workers=0, sampler=sampler)
        parts = rows[:TRAINING_IMAGES], rows[-validation:]
        nothing = Augmentation([], seed=0)
        return FoldData(self.fabric, 1, self.table, *parts, loader, accumulate, nothing)

    def toy(self, norm: bool = False) -> Toy:
        torch.manual_seed(0)
        return Toy(len(self.table.class_names), nn.BatchNorm2d(2) if norm else nn.Identity())

    def with_head(self, method: str) -> nn.Module:
        """The toy with a method's head; without the batch norm of one: its statistics would be
        those of a rank's own images."""
        toy, classes = self.toy(), len(self.table.class_names)
        if method == "csra_db_cas":
            unpooled = toy.backbone[:-2]
            return Headed(unpooled, CSRAHead(features=2, classes=classes, heads=2))
        return Headed(toy.backbone, CoupledHead(8, classes, 0.0, LabelCoupling(classes)))

    def fit(
        self,
        case: str,
        loss: str = "bce",
        phases: Sequence[Phase] = (ALL,),
        *,
        model: nn.Module | None = None,
        accumulate: int = 1,
        sampler: Sampler = "uniform",
        norm: bool = False,
        stop_at: int | None = None,
        spoil: str = "",
        elsewhere: str = "",
        **loop: Any,
    ) -> None:
        """Train in OUT/`case` (or `elsewhere`) and write down what this rank saw; a second time, as
        rankR_2."""
        folder = self.out / (elsewhere or case)
        folder.mkdir(exist_ok=True)
        Witness.rows, Witness.saved_after, Witness.stop_at = {}, [], stop_at
        data = self.fold(accumulate=accumulate, sampler=sampler)
        counts = data.training_counts()
        epochs = sum(phase.epochs for phase in phases)
        module = build_loss(loss, *counts, epochs=epochs)
        if spoil:
            module = Spoiled(module, SPOILED, gradient=spoil == "gradient")
        options = {"log_every": 2, "save_minutes": EVER, "accumulate": accumulate} | loop
        run = toy_run(data, folder, fabric=self.fabric, **options)
        fit = FoldTrainer(run, data, model or self.toy(norm), module, list(phases))
        ended = ""
        try:
            fit.fit()
        except (SystemExit, UserError) as error:
            ended = str(error)
        weights = {f"model.{name}": value for name, value in fit.model.state_dict().items()}
        if fit.state.average is not None:
            states = fit.state.average.module.state_dict()
            weights |= {f"average.{name}": value for name, value in states.items()}
        seen = {"rows": Witness.rows, "saved_after": Witness.saved_after}
        self.write(case, seen | {"ended": ended} | msgspec.to_builtins(fit.state.progress), weights)

    def write(self, case: str, seen: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        (self.out / case).mkdir(exist_ok=True)
        stem = self.out / case / f"rank{self.fabric.global_rank}"
        if stem.with_suffix(".json").exists():
            stem = stem.with_name(f"{stem.name}_2")
        seen |= {"world_size": self.fabric.world_size, "rank": self.fabric.global_rank}
        stem.with_suffix(".json").write_text(json.dumps(seen), encoding="utf-8")
        whole = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(whole, stem.with_suffix(".safetensors"))

    def evaluate(self, size: int) -> None:
        """Predict `size` images and record which of them this rank read."""
        case = f"validation{size}"
        data, model = self.fold(size), self.toy().eval()
        rows = torch.cat([batch.rows for batch in data.validation()]).tolist()
        options = (self.fabric, model, data.validation(), data.val_rows)
        predictions = {
            name: torch.from_numpy(predict(*options, views=BOTH if name == "both" else BOTH[:1]))
            for name in ("plain", "both")
        }
        self.write(case, {"rows": rows}, predictions)

    def start(self) -> None:
        """The weights with which all cases start, as OUT/start."""
        self.write("start", {}, self.toy().state_dict())

    def predict_again(self, case: str) -> None:
        """The predictions of the weights that lie in the folder of `case`, as OUT/`case`_again."""
        path = self.out / case / "toy_fold1.safetensors"
        model, data = self.toy(norm=True).eval(), self.fold()
        tensors = load_tensors(path)[0]
        del tensors[NAME]
        load_into(model, tensors, path)
        loader, rows = data.validation(), data.val_rows
        again = predict(self.fabric, model, loader, rows, views=BOTH)
        self.write(f"{case}_again", {}, {"predictions": torch.from_numpy(again)})

    def fit_methods(self) -> None:
        """Train the head of each method, with its other settings."""
        name = "csra_db_cas"
        self.write("start_csra", {}, self.with_head(name).state_dict())
        options = ("csra", "distribution_balanced", [HEAD, ALL])
        self.fit(*options, model=self.with_head(name), sampler="class_aware", ema=True)
        name = "label_coupling"
        self.write("start_coupling", {}, self.with_head(name).state_dict())
        for case, l1 in (("coupling", L1), ("coupling_free", 0.0)):
            freely = replace(ALL, name="freely", rates=ALL.rates | {"head.coupling": 5e-2})
            phases = [freely, replace(freely, name="penalised", l1=l1)]
            self.fit(case, phases=phases, model=self.with_head(name), ema=True)
        frozen = Phase("head", 3, {"head": 1e-2, "head.coupling": 5e-2}, head_views=3)
        self.fit("coupling_frozen", phases=[frozen], model=self.with_head(name), ema=True)

    def run(self) -> None:
        """Run all cases of tests/test_several_processes.py."""
        self.start()
        for loss in LOSSES:
            self.fit(f"{loss}_1", loss)
        self.fit("bce_2", accumulate=2)
        self.fit("head", phases=[HEAD], ema=True)
        self.fit("head_all", phases=[HEAD, ALL], ema=True)
        for views in (0, 2, 4):
            kept = replace(HEAD, epochs=4, head_views=views)
            self.fit(f"head_views_{views}", phases=[kept, ALL], ema=True)
        for size in VALIDATION_SIZES:
            self.evaluate(size)
        self.fit_methods()
        self.fit("norm", norm=True, ema=True)
        self.predict_again("norm")
        first = self.fabric.is_global_zero
        self.fit("first_clock", save_minutes=1e-9 if first else EVER)
        self.fit("other_clocks", save_minutes=EVER if first else 1e-9)
        still = replace(ALL, epochs=9, rates={"backbone": 1e-12, "head": 1e-12})
        self.fit("patience", phases=[still], patience=2)
        self.fit("stop", stop_at=STOP_AT if self.last_rank else None)
        self.fit("stop")
        # the first rank sees the state of the last case, as on a disk of its own
        self.fit("unshared", elsewhere="stop" if first else "")
        for what in ("loss", "gradient"):
            self.fit(f"spoiled_{what}", accumulate=2, spoil=what if self.last_rank else "")


def main() -> None:
    """Go through the cases."""
    core.training.loop.StepMonitor = Witness  # type: ignore[misc]
    Cases(make_fabric(amp="off"), *map(Path, sys.argv[1:])).run()
