"""Parts of an update on a GPU: copies, autocast, scaling, flags, memory layout, feature cache."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from benchmarks.gpu.loops import in_memory
from benchmarks.gpu.plan import Plan
from benchmarks.speed.step import AlternatingBatches, Task, fit
from core.data.loading.dataset import Batch, decoding_loader
from core.errors import UserError
from core.losses import build_loss
from core.models.checkpoint import load_tensors
from core.runtime.fabric import make_fabric
from core.training.feature_cache import COPIES, FeatureCache
from core.training.loop import FoldTrainer
from core.training.optimizer import Phase, build_optimizer, make_step
from core.training.resume import ResumeState
from core.training.step_monitor import StepMonitor
from ensemble.predict.dataset import ImagesAtSizes, collate
from methods.standard_head.config import Config
from tests.helpers.training.gpu import DEVICE, NEEDS_GPU, fabric, fold, refusing_waits
from tests.helpers.training.small_run import METHODS
from tests.helpers.training.toy_model import Toy, half_known, toy_run

pytestmark = NEEDS_GPU
PHASE = Phase("all", 1, {"backbone": 1e-3, "head": 1e-3})


def plan() -> Plan:
    """Nine updates of a tiny network, of which the eighth logs the loss."""
    batches = dict.fromkeys(METHODS, 4)
    return Plan(device=DEVICE, model="resnet10t", img_size=32, batches=batches, rounds=1, updates=8)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_copied_from_pinned_memory(phantom: Path, workers: int) -> None:
    data = fold(fabric(), half_known(phantom), workers)
    for batch in (next(data.training(0, 1, 0)), next(iter(data.validation()))):
        assert batch.images.is_pinned()
        assert batch.targets.is_pinned()
    images = ImagesAtSizes(data.table.images, [32, 48])
    loader = decoding_loader(images, [[0, 1]], workers, collate=collate, pin_memory=True)
    assert all(part.is_pinned() for part in next(iter(loader)).images)


def test_a_wait_is_refused_where_waits_are_counted() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"), refusing_waits():
        torch.ones(1, device=DEVICE).item()


class WithoutWaits(AlternatingBatches):
    """Batches of a task; the host may not wait from the fourth to the seventh update."""

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of the only epoch."""
        batches = self._task.batches
        yield from batches[:3]
        with refusing_waits():
            yield from batches[3:7]
        yield from batches[7:]


@pytest.mark.parametrize("method", METHODS)
def test_an_update_does_not_wait_for_the_device(method: str, tmp_path: Path) -> None:
    task = in_memory(plan(), method)
    name = "backbone.network.conv1.0.weight"
    before = task.model().state_dict()[name]
    after = fit(task, WithoutWaits(task, None), tmp_path).state_dict()[name]
    assert not torch.equal(after, before)


def test_values_that_are_not_finite_are_noted_without_a_wait() -> None:
    gpu = fabric()
    monitor = StepMonitor(gpu, list("abcd"), lambda: "fold 1", remember=9, save_minutes=10)
    fine, bad = torch.ones((), device=DEVICE), torch.full((), torch.nan, device=DEVICE)
    norms = [fine, bad, bad]
    with refusing_waits():
        skips = []
        for update, norm in enumerate(norms):
            monitor.remember(update, torch.tensor([update]))
            skips.append(monitor.mark(update, fine, norm))
    assert torch.stack(skips).tolist() == [0, 1, 1]
    with pytest.raises(UserError, match=r"the gradient was not finite at update 2 .*images b\)"):
        monitor.decide()


def test_a_fused_step_is_skipped_on_the_device() -> None:
    gpu, model = fabric(), Toy(3, nn.Identity())
    module = gpu.setup_module(model)
    raw = build_optimizer(model, PHASE)
    optimizer = gpu.setup_optimizers(raw)
    images = torch.rand(2, 1, 32, 32, device=DEVICE) * 255
    weights = []
    for skip in (1.0, 0.0):
        gpu.backward(module(images).sum())
        flag = torch.full((), skip, device=DEVICE)
        with refusing_waits():
            make_step(gpu, optimizer, skip=flag)
        weights.append(model.head.weight.detach().clone())
    start, moved = weights
    assert (start != moved).all()
    step = raw.state[model.head.weight]["step"]
    assert (step.device.type, step.item()) == (DEVICE, 1)


@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]
)
def test_layers_compute_in_half_precision_and_losses_in_full(
    precision: str, kind: torch.dtype, phantom: Path, tmp_path: Path
) -> None:
    table, seen = half_known(phantom), set()
    gpu = fabric(precision)
    data, model = fold(gpu, table), Toy(len(table.class_names), nn.BatchNorm2d(2))
    loss = build_loss("asl", *data.training_counts())
    model.backbone[1].register_forward_hook(lambda _, given, out: seen.add(("conv", out.dtype)))
    loss.register_forward_hook(
        lambda _, given, out: seen.update([("logits", given[0].dtype), ("loss", out.dtype)])
    )
    FoldTrainer(toy_run(data, tmp_path, fabric=gpu), data, model, loss, [PHASE]).fit()
    assert seen == {("conv", kind), ("logits", torch.float32), ("loss", torch.float32)}
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_make_fabric_takes_the_gpu_and_half_precision() -> None:
    made = make_fabric(amp=Config().loop.amp)
    assert made.device.type == DEVICE
    with made.autocast():
        half = torch.get_autocast_dtype(DEVICE)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert half == (torch.bfloat16 if bf16 else torch.float16)


def test_the_scale_of_fp16_is_saved_and_restored(phantom: Path, tmp_path: Path) -> None:
    table, start = half_known(phantom), 2.0**60
    scaler = torch.amp.GradScaler(DEVICE, init_scale=start)
    gpu = fabric(plugins=MixedPrecision("16-mixed", DEVICE, scaler=scaler))
    data, model = fold(gpu, table), Toy(len(table.class_names), nn.Identity())
    loss = build_loss("bce", *data.training_counts())
    trainer = FoldTrainer(toy_run(data, tmp_path, fabric=gpu), data, model, loss, [PHASE])
    before = model.head.weight.detach().cpu().clone()
    trainer.fit()
    # each of these updates overflows and halves the scale
    updates = data.updates_per_epoch
    assert trainer.state.scaler is scaler
    assert scaler.get_scale() == start / 2**updates
    assert torch.equal(model.head.weight.cpu(), before)
    state = trainer.record.files.state
    restored = torch.amp.GradScaler(DEVICE)
    other = ResumeState(model, None, gpu.device, trainer.state.identity, restored)
    trainer.state.progress.finished = False
    optimizer = build_optimizer(model, PHASE, fused=False)
    trainer.state.save(state, "all", optimizer)
    other.load(state, first=True)
    assert restored.get_scale() == start / 2**updates
    # the counters of an optimizer that is not fused stay on the host
    model(torch.ones(2, 1, 32, 32, device=DEVICE)).sum().backward()
    optimizer.step()
    trainer.state.save(state, "all", optimizer)
    assert load_tensors(state)[0]["optimizer.0.step"] == 1
    other.load(state, first=True)
    again = build_optimizer(model, PHASE, fused=False)
    other.load_optimizer("all", again)
    assert {one["step"].device.type for one in again.state.values()} == {"cpu"}
    with refusing_waits():
        again.step()


def weights_of(module: nn.Module) -> list[Tensor]:
    """Weights of the convolutions that have more than one channel and more than one place."""
    found = [one.weight for one in module.modules() if isinstance(one, nn.Conv2d)]
    return [one for one in found if one.shape[1] > 1 and one.shape[-1] > 1]


def test_weights_and_features_are_channels_last(tmp_path: Path) -> None:
    task = in_memory(plan(), "csra_db_cas")
    average = fit(task, AlternatingTask(task), tmp_path)
    assert weights_of(average)
    for weight in weights_of(average):
        assert weight.is_contiguous(memory_format=torch.channels_last)
    backbone = average.get_submodule("backbone")
    with torch.no_grad(), task.fabric.autocast():
        features = backbone(task.batches[0].images.repeat(1, 1, 2, 2).to(DEVICE))
    assert features.is_contiguous(memory_format=torch.channels_last)


class AlternatingTask(AlternatingBatches):
    """Batches of a task for FoldTrainer alone."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, None)

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of the only epoch."""
        yield from self._task.batches


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_cached_features_are_copied_in_the_order_of_the_device(
    kind: torch.dtype, tmp_path: Path
) -> None:
    count, width = 12, 4096
    rows = torch.empty(64, width, dtype=kind, device=DEVICE)
    cache = FeatureCache(fabric(), tmp_path, count * len(rows), rows)
    busy = torch.rand(2048, 2048, device=DEVICE)
    for number in range(count):
        # the copy must wait for this, and this for the copy of the rows before
        for _ in range(20):
            busy = (busy @ busy).clamp(max=1)
        rows.copy_((busy[:64, :1] * 0 + number).expand(64, width))
        cache.write(number * len(rows), rows)
        assert len(cache._under_way) <= COPIES
        assert all(host.is_pinned() for _, host, _ in cache._under_way)
    found = cache.read(np.arange(count * len(rows)))
    assert (found.device.type, found.dtype) == (DEVICE, kind)
    expected = torch.arange(count).repeat_interleave(64)[:, None].expand(-1, width)
    assert torch.equal(found.float().cpu(), expected.float())
