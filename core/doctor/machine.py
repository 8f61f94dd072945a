"""The computer: accelerator, threads, shared memory, memory, disk."""

import os
import shutil
import sys
from pathlib import Path
from typing import Literal

import torch

from core.config.training import LoaderConfig, SplitConfig
from core.data.loading.dataset import PREFETCHED
from core.doctor.findings import Findings
from core.errors import counted, size_of
from core.io.atomic import check_writable
from core.runtime.fabric import preset_for_this_machine, usable_cores, worker_count
from core.runtime.worker_failures import SHARED

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/proc/driver/nvidia/version")
# less is hardly a checkpoint; less than the second is soon full
LEAST_DISK, LITTLE_DISK = 2e8, 1e10
LITTLE_MEMORY = 2e9


def check_accelerator(find: Findings) -> None:
    """Which accelerator training would take, and in which precision."""
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        assert device is not None
        # a build without kernels for this device is only seen by using it
        torch.zeros(2, device=device).sum().item()
        count = torch.accelerator.device_count()
        told = f"{count} x {device.type}"
        if device.type == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            about = torch.cuda.get_device_properties(0)
            told += f" ({about.name}, {size_of(about.total_memory)}), autocast in "
            told += "bf16" if bf16 else "fp16 with scaled gradients, for want of bf16"
        find.good(f"accelerator: {told}")
    elif _NVIDIA.exists():
        find.bad(
            f"a driver of NVIDIA is here, and PyTorch {torch.__version__} finds no GPU",
            "install the PyTorch that fits the driver (nvidia-smi tells its CUDA; "
            "https://pytorch.org/get-started), or let the container see the GPU (--gpus all)",
        )
    else:
        find.doubt(
            "no accelerator is found: training computes in fp32 on the CPU, with --preset small "
            "unless told otherwise"
        )


def check_threads(find: Findings) -> None:
    """Whether a CPU computes with the cores that it has."""
    cores, threads = usable_cores(), torch.get_num_threads()
    quota, asked = cpu_quota(), os.environ.get("OMP_NUM_THREADS")
    told = f"{counted(threads, 'thread')} on {counted(cores, 'core')}"
    told += f" (OMP_NUM_THREADS={asked})" if asked else ""
    if quota is not None and quota < cores - 0.01:
        find.doubt(
            f"{told}, of which this container may use {quota:g} at a time",
            f"give --num_workers {max(1, int(quota))}, and OMP_NUM_THREADS={max(1, int(quota))}",
        )
    elif threads > cores:
        find.doubt(f"{told}: they wait for each other", f"set OMP_NUM_THREADS={cores}")
    elif asked and threads < cores and not torch.accelerator.is_available():
        find.doubt(f"{told}: the others are idle in training", f"set OMP_NUM_THREADS={cores}")
    else:
        find.good(told)


def usual_settings() -> tuple[LoaderConfig, int]:
    """Sizes of images and batches, and the number of folds, of a training here unless given."""
    # those of the presets paper and small of standard_head
    if preset_for_this_machine() == "paper":
        return LoaderConfig(), SplitConfig().folds
    return LoaderConfig(img_size=96, batch_size=32), 3


def check_shared_memory(
    find: Findings, loader: LoaderConfig, workers: Literal["auto"] | int
) -> None:
    """Whether the batches that loader workers hold ready have room."""
    count = worker_count(workers)
    batches = f"{loader.batch_size} images of {loader.img_size} px"
    if count == 0 or sys.platform != "linux":
        find.good(
            "shared memory: none is needed (--num_workers 0)"
            if count == 0
            else "shared memory: not limited by a file system here"
        )
        return
    per_worker = shared_bytes(loader, 1)
    try:
        need, free = per_worker * count, free_bytes(SHARED)
    except OSError:
        find.bad(f"{SHARED} is not there", "give --num_workers 0, or mount it")
        return
    told = (
        f"{SHARED}: {size_of(free)} free, and {count} workers hold up to {size_of(need)} there "
        f"({PREFETCHED} batches of {batches} each, in training and in validation), for each "
        "process of a launch"
    )
    if free >= need:
        find.good(told)
        return
    fits = int(free // per_worker)
    find.bad(
        told,
        f"give --num_workers {fits} or a smaller --batch_size, or enlarge it (docker run "
        f"--shm-size={max(1, -int(-need // 2**30))}g)",
    )


def shared_bytes(loader: LoaderConfig, workers: int) -> int:
    """Bytes of shared memory that so many workers of one process fill at the most.

    While a fold is validated the training's workers keep what they have ready.
    """
    return 2 * workers * PREFETCHED * loader.batch_size * loader.img_size**2


def check_memory(find: Findings) -> None:
    """How much memory is there."""
    free = free_memory()
    if free is None:
        find.unseen("memory: this system does not tell how much is free")
    elif free < LITTLE_MEMORY:
        find.doubt(
            f"memory: {size_of(free)} are free, and a small training takes about 1.5 GB",
            "end other programs, or give --num_workers 0 and a smaller --batch_size",
        )
    else:
        find.good(f"memory: {size_of(free)} are free")


def check_disk(find: Findings, out_dir: Path) -> None:
    """Whether a run can be kept in `out_dir`. Raises UserError where it cannot be written."""
    check_writable(out_dir / "config.json", (), "--out_dir")
    free = free_bytes(existing(out_dir))
    told = f"disk: {size_of(free)} are free at --out_dir {out_dir}"
    if free < LEAST_DISK:
        find.bad(told, "make room there, or name another --out_dir")
    elif free < LITTLE_DISK:
        find.doubt(told, "a run of a large network takes several GB")
    else:
        find.good(told)


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.is_dir())


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of `folder`. Raises OSError where it is not there."""
    return shutil.disk_usage(folder).free


def free_memory() -> int | None:
    """Bytes that a new process can have, a container's limit minded; None where it is not told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        free = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        # files that were read: they give way
        return min(free, int(limit) - max(0, int(used) - _cached()))
    except (OSError, ValueError):  # no such container, or one without a limit ("max")
        return free


def _cached() -> int:
    """Bytes of files that a container holds in memory and has not used for a while."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    told = dict(line.split() for line in lines if len(line.split()) == 2)
    return int(told.get("inactive_file", 0))


def cpu_quota() -> float | None:
    """Cores that a container may use at a time; None without a limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None
