"""Detection of an accelerator without torch, for a fast `--help`."""

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

# NVIDIA, NVIDIA under WSL, AMD
_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def has_accelerator(devices: Path = Path("/dev")) -> bool:
    """True if device files, platform and PyTorch's build suggest an accelerator."""
    with suppress(metadata.PackageNotFoundError):
        if metadata.version("torch").endswith("+cpu"):
            return False
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    if any(os.environ.get(name) in ("", "-1") for name in _HIDING):
        return False
    if platform.system() == "Windows":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32/nvcuda.dll").is_file()
    return any(True for pattern in _DEVICES for _ in devices.glob(pattern))
