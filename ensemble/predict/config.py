"""Settings of `python -m ensemble.infer`, and groups of settings shared with other commands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.config.values import NotNegative, PositiveInt, Switch, Workers
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class ModelsConfig:
    """Models of the ensemble and their weights."""

    checkpoints: tuple[Path, ...] = ()
    """Checkpoints of any methods, backbones and image sizes; classes are matched by name."""
    weights: tuple[float, ...] = ()
    """Weight of each checkpoint; equal unless given, scaled to a sum of 1."""
    ensemble: Path | None = None
    """Checkpoints and weights from a file that `python -m ensemble.choose` wrote."""

    def check(self) -> None:
        """Raise UserError if no model is given, or by two flags."""
        if self.ensemble is not None and (self.checkpoints or self.weights):
            raise UserError(
                "--ensemble has the checkpoints and weights: leave out --checkpoints and --weights"
            )
        if self.ensemble is None and not self.checkpoints:
            raise UserError(
                "no checkpoint is given: give one or several with --checkpoints, or an --ensemble"
            )


@dataclass(kw_only=True, slots=True)
class MergeConfig:
    """Merging of the probabilities of augmented copies and models."""

    classes: Literal["same", "union", "intersection"] = "same"
    """Classes, if the checkpoints differ: same refuses that, union takes all (each by the models
    that have it), intersection those that all models have."""
    use_tta: bool = True
    """Merge several augmented copies of each image; --no-use_tta takes the image alone."""
    tta_config: Literal["none", "flip", "light", "medium", "heavy", "flip_scale"] = "flip"
    """flip: image and mirror image; light: also rotated by 5 degrees to both sides; medium: also
    scaled by 1.1 and 0.9; heavy: also 10 % brighter and darker; flip_scale: image and mirror image
    at scales 1, 1.05 and 0.95. A mirror image swaps the patient's left and right."""
    tta_merge_mode: Literal["mean", "max", "gmean", "median", "logit_mean"] = "mean"
    """Merging of a model's probabilities over the augmented copies."""
    ensemble_mode: Literal["weighted_mean", "logit_mean", "gmean", "rank_mean", "median", "max"] = (
        "weighted_mean"
    )
    """Merging over models. median and max ignore weights; rank_mean, for many images at once, gives
    ranks from 0 to 1, not probabilities."""

    @property
    def tta(self) -> str:
        """Name of the augmented copies, none without --use_tta."""
        return self.tta_config if self.use_tta else "none"

    def check(self, models: ModelsConfig, *, many_images: bool) -> None:
        """Raise UserError if these contradict `models`, or need `many_images`."""
        models.check()
        if models.ensemble is not None and self.classes != "same":
            raise UserError("--ensemble has the classes: leave out --classes")
        if self.ensemble_mode in ("median", "max") and (models.weights or models.ensemble):
            raise UserError(
                f"--ensemble_mode {self.ensemble_mode} takes no weights: leave out --weights, and "
                "give --checkpoints in place of an --ensemble, which has weights"
            )
        if self.ensemble_mode == "rank_mean" and not many_images:
            raise UserError(
                "--ensemble_mode rank_mean ranks an image among many others: choose another mode"
            )


@dataclass(kw_only=True, slots=True)
class PostprocessConfig:
    """Postprocessing of the merged probabilities."""

    calibration: Path | None = None
    """Calibration file written by `python -m ensemble.calibrate`."""
    postprocess: Literal["none", "normal_gating"] = "none"
    """normal_gating: each finding's probability times (1 - that of the normal class) to the power
    of --normal_alpha. It can lower scores: fit alpha by `python -m ensemble.calibrate`."""
    normal_alpha: NotNegative | None = None
    """Exponent of normal_gating; by default that of --calibration, 0.5 without one."""
    normal_class: str = ""
    """Normal class; by default Normal, No Finding or No_Finding."""

    @property
    def gated(self) -> bool:
        """True if normal gating is on."""
        return self.postprocess == "normal_gating"

    def check(self) -> None:
        """Raise UserError if settings contradict each other."""
        if not self.gated and (self.normal_alpha is not None or self.normal_class):
            raise UserError(
                "--normal_alpha and --normal_class need --postprocess normal_gating: add it"
            )


@dataclass(kw_only=True, slots=True)
class Config:
    """Predict images with one or several models."""

    image: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE]")] = None
    """Single image: its table is printed, and written only if --output is given."""
    models: ModelsConfig = field(default_factory=ModelsConfig)
    test_csv: Path | None = None
    """CSV with the names of the images to predict; by default every image of --image_dir."""
    image_dir: Path = Path("data/images")
    """Folder of the images, including subfolders; or one image."""
    image_column: str = ""
    """Column of --test_csv with the image names; by default found by its usual names."""
    group_by: str = ""
    """Column of --test_csv with the study: one row a study, the mean within its frontal and its
    lateral images, then the mean of those two. Without a --test_csv, study: by DICOM headers."""
    view_column: str = ""
    """Column of --test_csv with the view, for --group_by; by default found by its usual names."""
    sample_submission: Path | None = None
    """CSV with the rows and columns to write, in order; without --test_csv also the images."""
    follow_links: bool = False
    """Allow images that are links to files outside of --image_dir."""
    anonymous: bool = False
    """Write numbers in place of the names of images and studies; ensemble.evaluate restores the
    names from labels in the same order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Unreadable images: error lists them and writes nothing; skip leaves them out and writes
    OUTPUT_skipped.csv."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    postprocessing: PostprocessConfig = field(default_factory=PostprocessConfig)
    batch_size: PositiveInt = 64
    """Images in a batch, per process."""
    num_workers: Workers = "auto"
    """Processes that decode images, per process; auto: one a core, at most 8."""
    amp: Switch = "auto"
    """Autocast: on, the same as --amp; off, --no-amp; auto, on for a GPU alone. On a GPU bf16, or
    fp16 without it. On a CPU with bf16, on times both precisions first and takes the faster."""
    output: Path | None = None
    """Output CSV (outputs/predictions.csv): names of images, then a column a class."""
    overwrite: bool = False
    """Replace an existing --output."""

    @property
    def by_headers(self) -> bool:
        """True if studies and views come from DICOM headers."""
        alone = self.test_csv is None and self.sample_submission is None
        return self.group_by == "study" and alone

    @property
    def single(self) -> Path | None:
        """The single image to predict, if only one is given."""
        return self.image or (self.image_dir if self.image_dir.is_file() else None)

    def check(self) -> None:
        """Raise UserError if settings contradict each other."""
        self.merge.check(self.models, many_images=self.single is None)
        self.postprocessing.check()
        ranked = self.merge.ensemble_mode == "rank_mean"
        if ranked and (self.postprocessing.gated or self.postprocessing.calibration is not None):
            raise UserError(
                "--ensemble_mode rank_mean gives ranks, but calibration and gating need "
                "probabilities: choose another mode, or leave them out"
            )
        for name in ("test_csv", "sample_submission", "group_by", "anonymous"):
            if self.single is not None and getattr(self, name):
                raise UserError(f"--{name} is for many images, but {self.single} is a single one")
        if self.group_by and self.test_csv is None and not self.by_headers:
            raise UserError(
                "--group_by is a column of --test_csv: add --test_csv, or give --group_by study if "
                "--image_dir holds DICOM files"
            )
        if self.view_column and not self.group_by:
            raise UserError("--view_column needs --group_by: add it")
        for name in ("image_column", "view_column"):
            if getattr(self, name) and self.test_csv is None:
                raise UserError(f"--{name} is a column of --test_csv: add --test_csv")
        if self.anonymous and self.sample_submission is not None:
            raise UserError(
                "--sample_submission and --anonymous contradict each other: leave one out"
            )
