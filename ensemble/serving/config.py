"""The settings of `python -m ensemble.serve`."""

import ipaddress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from core.config.training import check_positive
from core.errors import UserError
from ensemble.predict import config as infer_config


@dataclass(kw_only=True, slots=True)
class Config:
    """A web page, for this machine alone unless --host says otherwise, on which to try models."""

    checkpoints: tuple[Path, ...] = ()
    """Checkpoints of any methods, backbones and image sizes; classes are matched by name."""
    weights: tuple[float, ...] = ()
    """Weight of each checkpoint; equal unless given, scaled to a sum of 1."""
    ensemble: Path | None = None
    """Checkpoints and weights from a file that `python -m ensemble.choose` wrote."""
    classes: Literal["same", "union", "intersection"] = "same"
    """What to do where the checkpoints have other classes: refuse, take all (each by the models
    that have it), or those that all have."""
    calibration: Path | None = None
    """Calibrated probabilities, and thresholds, by a file that `python -m ensemble.calibrate`
    wrote; the page says where there is none."""
    postprocess: Literal["none", "normal_gating"] = "none"
    """normal_gating: each finding's probability times (1 - that of the normal class) to the power
    of --normal_alpha."""
    normal_alpha: float | None = None
    """The power of normal_gating; --calibration's unless given, 0.5 without one."""
    normal_class: str = ""
    """The normal class; found as Normal, No Finding or No_Finding when not given."""
    use_tta: bool = True
    """Merge several views of each image; --no-use_tta takes the image alone."""
    tta_config: Literal["none", "flip", "light", "medium", "heavy", "flip_scale"] = "flip"
    """Which views, as in `python -m ensemble.infer`. A mirror swaps the patient's left and
    right."""
    tta_merge_mode: Literal["mean", "max", "gmean", "median", "logit_mean"] = "mean"
    """How a model's probabilities for the views are merged."""
    ensemble_mode: Literal["weighted_mean", "logit_mean", "gmean", "median", "max"] = (
        "weighted_mean"
    )
    """How the models' probabilities are merged. median and max take no weights."""
    amp: bool = True
    """bf16 (or fp16) autocast on a GPU; a CPU computes in fp32 whatever is given."""
    host: str = "127.0.0.1"
    """Address to listen at. With any other than this machine's own, everybody who reaches it may
    send images: there is no password and no encryption."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    max_megabytes: int = 64
    """Largest file that is taken, in megabytes; up to eight such are held in memory."""

    def check(self) -> None:
        """Raise UserError where a setting is out of bounds or two contradict each other."""
        check_positive(self, "max_megabytes")
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port must be from 0 to 65535, not {self.port}")
        self.as_infer().check()

    def as_infer(self) -> infer_config.Config:
        """The settings of `python -m ensemble.infer` that predict the same."""
        shared = {field.name for field in fields(infer_config.Config)}
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return infer_config.Config(**{name: given[name] for name in given if name in shared})

    @property
    def for_this_machine(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
