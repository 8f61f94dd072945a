"""Check of packages, accelerator, threads, shared memory, memory and disk of this computer."""

import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

import core
from core.config.training import LoaderConfig, SplitConfig
from core.data.loading.dataset import PREFETCHED
from core.doctor.findings import Findings
from core.errors import format_size, list_first, pluralize
from core.io.atomic import check_writable
from core.runtime.environment import PROJECT, installed
from core.runtime.fabric import preset_for_this_machine, usable_cores, worker_count
from core.runtime.worker_failures import SHARED

CONSTRAINTS = Path(core.__file__).resolve().parents[1] / "constraints.txt"
_MEMORY, _LIMIT = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
_NVIDIA = Path("/proc/driver/nvidia/version")


def default_settings() -> tuple[LoaderConfig, int]:
    """Default sizes and number of folds on this machine: presets of standard_head."""
    if preset_for_this_machine() == "paper":
        return LoaderConfig(), SplitConfig().folds
    return LoaderConfig(img_size=96, batch_size=32), 3


def check_packages(find: Findings, constraints: Path = CONSTRAINTS) -> None:
    """Check installed versions against the project's requirements and constraints.txt."""
    text = _text(constraints)
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text.replace("_", "-").lower(), re.MULTILINE))
    install = "pip install -c constraints.txt -e ." if text else f"pip install -U {PROJECT}"
    versions = {name.replace("_", "-"): version for name, version in installed().items()}
    if not versions:
        find.bad(f"{PROJECT} is not installed, so that its packages are unknown", install)
        return
    lacking, other, extras = [], [], set()
    for one in map(Requirement, metadata.requires(PROJECT) or []):
        name, extra = one.name.lower(), re.search(r"extra == .(\w+)", str(one.marker))
        version = versions.get(name)
        if version is None and extra:
            extras.add(extra[1])
        elif version is None:
            lacking.append(f"{name} is missing")
        elif not one.specifier.contains(version, prereleases=True):
            lacking.append(f"{name} {version} is not {one.specifier}")
        elif name in pinned and version.partition("+")[0] != pinned[name]:
            other.append(f"{name} {version} ({pinned[name]})")
    if lacking:
        find.bad(f"packages do not meet the requirements: {list_first(lacking, 12)}", install)
    if other:
        find.doubt(f"packages differ from constraints.txt: {list_first(other, 12)}", install)
    missing = ", ".join(sorted(extras - {"dev"}))
    without = f", without the extras {missing}" if missing else ""
    packages = pluralize(len(versions), "package")
    find.good(
        f"{packages}, Python {platform.python_version()}, PyTorch {torch.__version__}{without}"
    )


def check_accelerator(find: Findings) -> None:
    """Check the accelerator and precision of a training."""
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        assert device is not None
        # only a computation reveals a build without kernels for this device
        torch.zeros(2, device=device).sum().item()
        found = f"{torch.accelerator.device_count()} x {device.type}"
        if device.type == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            about = torch.cuda.get_device_properties(0)
            found += f" ({about.name}, {format_size(about.total_memory)}), autocast in "
            found += "bf16" if bf16 else "fp16 with scaled gradients"
        find.good(f"accelerator: {found}")
    elif _NVIDIA.exists():
        find.bad(
            f"an NVIDIA driver is installed, but PyTorch {torch.__version__} finds no GPU",
            "install the PyTorch for this driver (nvidia-smi prints its CUDA version; "
            "https://pytorch.org/get-started), or give the container the GPU (--gpus all)",
        )
    else:
        find.doubt("no accelerator: training runs in fp32 on the CPU, with --preset small")


def check_threads(find: Findings) -> None:
    """Compare the threads of PyTorch with the usable cores."""
    threads, cores = torch.get_num_threads(), usable_cores()
    found = f"{pluralize(threads, 'thread')} on {pluralize(cores, 'usable core')}"
    is_set = "OMP_NUM_THREADS" in os.environ and not torch.accelerator.is_available()
    if threads > cores or (threads < cores and is_set):
        find.doubt(found, f"set OMP_NUM_THREADS={cores}, and --num_workers to at most {cores}")
    else:
        find.good(found)


def check_shared_memory(
    find: Findings, loader: LoaderConfig, workers: Literal["auto"] | int
) -> None:
    """Check shared memory for the prefetched batches of loader workers."""
    count = worker_count(workers)
    if count == 0 or sys.platform != "linux":
        find.good("shared memory: none is needed (--num_workers 0, or not Linux)")
        return
    # twice: training workers keep their batches during validation
    per_worker = 2 * PREFETCHED * loader.batch_size * loader.img_size**2
    free, need = shutil.disk_usage(SHARED).free, per_worker * count
    what = (
        f"{SHARED} for {format_size(need)} of {pluralize(count, 'worker')} of each process, with "
        f"batches of {loader.batch_size} images of {loader.img_size} px"
    )
    remedy = (
        f"give --num_workers {free // per_worker} or a smaller --batch_size, or enlarge it "
        f"(docker run --shm-size={-(-need // 2**30)}g)"
    )
    _compare(find, what, free, (need, need), remedy)


def check_memory(find: Findings) -> None:
    """Check free memory, or the container's limit if that is less."""
    available = re.search(r"MemAvailable: +(\d+)", _text(_MEMORY))
    if not available:
        find.skip("memory: this system does not report how much is free")
        return
    free, limit = int(available[1]) * 1024, _text(_LIMIT).strip()
    if limit.isdecimal():  # "max" without a limit
        free = min(free, int(limit))
    remedy = "a small training takes about 1.5 GB; close other programs, or give --num_workers 0"
    _compare(find, "memory", free, (0, 2e9), remedy)


def check_disk(find: Findings, out_dir: Path) -> None:
    """Check free space for a run in `out_dir`. Raises UserError if it cannot be written."""
    check_writable(out_dir / "config.json", (), "--out_dir")
    path = out_dir.absolute()
    free = shutil.disk_usage(next(one for one in (path, *path.parents) if one.is_dir())).free
    remedy = "a run of a large network takes several GB; free some space, or name another --out_dir"
    _compare(find, f"disk at --out_dir {out_dir}", free, (2e8, 1e10), remedy)


def _compare(
    find: Findings, what: str, free: int, enough: tuple[float, float], remedy: str
) -> None:
    """Report an error below the first number of bytes in `enough`, a doubt below the second."""
    found = f"{what}: {format_size(free)} free"
    if free >= enough[1]:
        find.good(found)
    else:
        (find.doubt if free >= enough[0] else find.bad)(found, remedy)


def _text(path: Path) -> str:
    """Content of a file, or "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
