"""What a training of a method needs: memory by counting, time by measuring a few steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.functional import binary_cross_entropy_with_logits

from core.doctor.above import build_model
from core.doctor.findings import Findings
from core.doctor.machine import existing, free_bytes, free_memory
from core.errors import counted, size_of

# of a chest X-ray table, where none is given to count
USUAL_CLASSES = 14
_SMALL, _LARGE = 2, 8
# seconds of a step of _SMALL images after which no more is measured
_PATIENCE = 3.0


# Python and its packages, as they are when the first step begins
_PROGRAM = 1_000_000_000
# Beside what is counted a step takes gradients of activations and room to compute in. Measured, the
# largest networks apart, as 1.17 to 1.38 times the activations (five networks on a CPU).
_STEP = 1.3


@dataclass(frozen=True)
class Memory:
    """Bytes of one training process."""

    parameters: int
    """How many there are."""
    weights: int
    """Weights, gradients, both moments of AdamW and the moving average."""
    image: int
    """What one image's forward pass keeps for its backward pass."""

    def total(self, batch_size: int) -> int:
        """Bytes with batches of so many images."""
        return _PROGRAM + self.weights + self.activations(batch_size)

    def activations(self, batch_size: int) -> int:
        """Those that grow with the batch."""
        return int(_STEP * batch_size * self.image)


@dataclass(frozen=True)
class Data:
    """What is to be trained on."""

    images: int
    classes: int
    read: float | None
    """images that the workers decode in a second; None where none was decoded"""


def check_estimate(
    find: Findings, method: str, settings: Any, data: Data | None, out_dir: Path
) -> None:
    """Estimate memory, disk and time for a method's `settings`."""
    classes = USUAL_CLASSES if data is None else data.classes
    memory = find.look("memory", count_memory, method, settings, classes)
    if memory is None:
        return
    find.look("memory", _check_memory, memory, settings)
    find.look("disk", _check_room, memory, settings, out_dir)
    find.look("time", _check_time, memory, method, settings, classes, data)


def count_memory(_: Findings, method: str, settings: Any, classes: int) -> Memory:
    """Count what training keeps, on an outline of the network that has shapes and no numbers.

    Activations are the tensors that autograd saves for the backward pass, each storage once, under
    the autocast of a training on this computer; the parameters among them count as weights alone.
    """
    device = device_of_training()
    with torch.device("meta"):
        model = build_model(method, settings, classes).train()
    size, counts = settings.loader.img_size, []
    own, buffers = _bytes(model.parameters()), _bytes(model.buffers())
    parameters = sum(one.numel() for one in model.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device):
        model.to_empty(device=device)
        for count in (_SMALL, 2 * _SMALL):
            images = torch.empty(count, 1, size, size, dtype=torch.uint8)
            with autocast(settings, device):
                counts.append(saved_bytes(model, images, torch.zeros(count, classes)))
    image = (counts[1] - counts[0]) // _SMALL
    return Memory(
        parameters=parameters,
        # what does not grow with the batch: parameters in autocast's type
        weights=(2 if settings.loop.ema else 1) * (own + buffers)
        + 3 * own
        + max(0, counts[0] - _SMALL * image),
        image=image,
    )


def device_of_training() -> torch.device:
    """Where one process would train."""
    # a build for GPUs names one where there is none
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def autocast(settings: Any, device: torch.device) -> torch.autocast:
    """What `core.runtime.fabric.make_fabric` asks for: bf16 on a GPU."""
    enabled = settings.loop.amp and device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def saved_bytes(model: nn.Module, images: Tensor, targets: Tensor) -> int:
    """Bytes that the forward pass of `images` and their loss keep for the backward pass."""
    weights = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    # held, so that no later storage gets the number of one that is gone
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        binary_cross_entropy_with_logits(model(images), targets)
    return sum(storage.nbytes() for storage in kept.values())


def _check_memory(find: Findings, memory: Memory, settings: Any) -> None:
    batch, device = settings.loader.batch_size, device_of_training()
    need = memory.total(batch)
    told = (
        f"memory: about {size_of(need)} on this {device.type.upper()} for {settings.model.model}, "
        f"{settings.loader.img_size} px, --batch_size {batch}: {size_of(memory.weights)} for "
        f"{memory.parameters / 1e6:.1f} million parameters with gradients, AdamW and moving "
        f"average, {size_of(memory.activations(batch))} for the step, {size_of(_PROGRAM)} for "
        "Python and its packages (an estimate: within a tenth where it was measured, on CPUs)"
    )
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else free_memory()
    if free is None:
        find.good(told)
    elif need <= free:
        find.good(f"{told}; {size_of(free)} are free")
    else:
        fits = int((free - memory.total(0)) / memory.activations(1))
        smaller = f"--batch_size {fits} would fit, or take " if fits >= 2 else "take "
        find.bad(
            f"{told}; {size_of(free)} are free",
            f"{smaller}a smaller --img_size or --model, or --grad_checkpointing",
        )


def _check_room(find: Findings, memory: Memory, settings: Any, out_dir: Path) -> None:
    """Room for weights of each fold, and the state of one in training while it is replaced."""
    weights = 4 * memory.parameters
    need = settings.split.folds * weights + 2 * 4 * weights
    free = free_bytes(existing(out_dir))
    told = (
        f"disk: a run of {settings.split.folds} folds takes up to {size_of(need)} "
        f"({size_of(weights)} a fold, and the state of the one in training)"
    )
    if need > free:
        find.bad(
            f"{told}; {size_of(free)} are free at {out_dir}",
            "make room there, or name another --out_dir",
        )
    else:
        find.good(f"{told}; {size_of(free)} are free")


def _check_time(
    find: Findings, memory: Memory, method: str, settings: Any, classes: int, data: Data | None
) -> None:
    free = free_memory()
    if free is not None and memory.total(_SMALL) > 0.7 * free:
        find.unseen(
            f"time: even {_SMALL} images take {size_of(memory.total(_SMALL))}, and "
            f"{size_of(free)} are free"
        )
        return
    step, update, forward = measure(method, settings, classes)
    batch = settings.loader.batch_size
    per_image = step + update / batch
    device = device_of_training()
    threads = counted(torch.get_num_threads(), "CPU thread")
    where = threads if device.type == "cpu" else str(device)
    told = (
        f"time on {where}: {1 / per_image:,.1f} images a second in training (measured with "
        f"{_SMALL} and {_LARGE} images, without augmentation and decoding)"
    )
    images = 1000 if data is None else data.images
    optim, folds = settings.optim, settings.split.folds
    views = 2 if settings.loop.tta else 1
    heads = getattr(optim, "warmup_head_epochs", 0)
    part = (folds - 1) / folds
    epoch = images * (part * per_image + (1 - part) * views * forward)
    head = images * (part * min(heads, getattr(optim, "head_views", heads)) * forward)
    whole = folds * (head + optim.epochs * epoch)
    told += (
        f"; an epoch of {images:,} images takes about {_spoken(epoch)}, {folds} folds of "
        f"{heads} + {optim.epochs} epochs about {_spoken(whole)}. An estimate"
    )
    if data is not None and data.read is not None and data.read < 1 / per_image:
        find.doubt(
            f"{told}; the workers decode {data.read:,.1f} images a second, which takes longer",
            "pack them once (python -m core.data.pack), or give more --num_workers",
        )
        return
    find.good(told if data is not None else f"{told}; --train_csv gives it for your images")


def measure(method: str, settings: Any, classes: int) -> tuple[float, float, float]:
    """(seconds of a training step for each image, and beside these for each step; seconds of a
    prediction for each image), measured on the device that a training takes."""
    device = device_of_training()
    model = build_model(method, settings, classes)
    model = model.to(memory_format=torch.channels_last).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    size = settings.loader.img_size

    def seconds(images: int, what: Callable[[Tensor], Any]) -> float:
        batch = torch.randint(0, 256, (images, 1, size, size), dtype=torch.uint8, device=device)
        best = float("inf")
        # the first one also allocates
        for _ in range(3):
            began = time.perf_counter()
            with autocast(settings, device):
                what(batch)
            if device.type != "cpu":
                torch.accelerator.synchronize()
            best = min(best, time.perf_counter() - began)
            if best > _PATIENCE:
                break
        return best

    def train(batch: Tensor) -> None:
        logits = model(batch).float()
        binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def forward(batch: Tensor) -> None:
        with torch.no_grad():
            model(batch)

    few = seconds(_SMALL, train)
    step, update = few / _SMALL, 0.0
    if few <= _PATIENCE:
        many = seconds(_LARGE, train)
        step = max((many - few) / (_LARGE - _SMALL), 0.2 * few / _SMALL)
        update = max(0.0, few - _SMALL * step)
    predicted = seconds(_SMALL if few > _PATIENCE else _LARGE, forward)
    return step, update, predicted / (_SMALL if few > _PATIENCE else _LARGE)


def _bytes(tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _spoken(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
