"""Settings of `python -m ensemble.infer`, and the groups that other commands share with it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.config.values import NotNegative, PositiveInt, Workers
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class ModelsConfig:
    """Which models predict together."""

    checkpoints: tuple[Path, ...] = ()
    """Checkpoints of any methods, backbones and image sizes; classes are matched by name."""
    weights: tuple[float, ...] = ()
    """Weight of each checkpoint; equal unless given, scaled to a sum of 1."""
    ensemble: Path | None = None
    """Checkpoints and weights from a file that `python -m ensemble.choose` wrote."""

    def check(self) -> None:
        """Raise UserError where no model is named, or by two flags."""
        if self.ensemble is not None and (self.checkpoints or self.weights):
            raise UserError("--ensemble names checkpoints and weights: leave those flags out")
        if self.ensemble is None and not self.checkpoints:
            raise UserError(
                "no checkpoint is given: name one or several with --checkpoints, or an --ensemble"
            )


@dataclass(kw_only=True, slots=True)
class MergeConfig:
    """How probabilities of views and models are merged."""

    classes: Literal["same", "union", "intersection"] = "same"
    """What to do where the checkpoints have other classes: refuse, take all (each by the models
    that have it), or those that all have."""
    use_tta: bool = True
    """Merge several views of each image; --no-use_tta takes the image alone."""
    tta_config: Literal["none", "flip", "light", "medium", "heavy", "flip_scale"] = "flip"
    """flip: image and mirror; light: and turned by 5 degrees either way; medium: and scaled by 1.1
    and 0.9; heavy: and brighter and darker by a tenth; flip_scale: both, each at 1, 1.05 and 0.95.
    A mirror swaps the patient's left and right."""
    tta_merge_mode: Literal["mean", "max", "gmean", "median", "logit_mean"] = "mean"
    """How a model's probabilities for the views are merged."""
    ensemble_mode: Literal["weighted_mean", "logit_mean", "gmean", "rank_mean", "median", "max"] = (
        "weighted_mean"
    )
    """How the models' probabilities are merged. median and max take no weights; rank_mean, for many
    images at once, gives ranks from 0 to 1, which are no probabilities."""

    @property
    def views(self) -> str:
        """The set of views that is taken."""
        return self.tta_config if self.use_tta else "none"

    def check(self, models: ModelsConfig, *, many_images: bool) -> None:
        """Raise UserError where these cannot be meant together with `models`, or by an image."""
        models.check()
        if models.ensemble is not None and self.classes != "same":
            raise UserError("--ensemble names the classes: leave --classes out")
        if self.ensemble_mode in ("median", "max") and (models.weights or models.ensemble):
            raise UserError(
                f"--ensemble_mode {self.ensemble_mode} takes no weights: leave out --weights, and "
                "name --checkpoints in place of an --ensemble, which has some"
            )
        if self.ensemble_mode == "rank_mean" and not many_images:
            raise UserError(
                "--ensemble_mode rank_mean is for many images: it ranks each image among all "
                "others; take another mode"
            )


@dataclass(kw_only=True, slots=True)
class PostprocessConfig:
    """What becomes of the merged probabilities."""

    calibration: Path | None = None
    """Calibrate by a file that `python -m ensemble.calibrate` wrote."""
    postprocess: Literal["none", "normal_gating"] = "none"
    """normal_gating: each finding's probability times (1 - that of the normal class) to the power
    of --normal_alpha. It can cost: fit alpha by `python -m ensemble.calibrate`."""
    normal_alpha: NotNegative | None = None
    """The power of normal_gating; --calibration's unless given, 0.5 without one."""
    normal_class: str = ""
    """The normal class; found as Normal, No Finding or No_Finding when not given."""

    @property
    def gated(self) -> bool:
        """Whether the normal class lowers the others."""
        return self.postprocess == "normal_gating"

    def check(self) -> None:
        """Raise UserError where two of these contradict each other."""
        if not self.gated and (self.normal_alpha is not None or self.normal_class):
            raise UserError(
                "--normal_alpha and --normal_class belong to --postprocess normal_gating: add that"
            )


@dataclass(kw_only=True, slots=True)
class Config:
    """Predict images with one model or several."""

    image: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE]")] = None
    """A single image: its table is printed, and written only where --output is given."""
    models: ModelsConfig = field(default_factory=ModelsConfig)
    test_csv: Path | None = None
    """Predict the images that this CSV names; else every image of --image_dir."""
    image_dir: Path = Path("data/images")
    """Folder of the images, searched with its sub-folders; or one image."""
    image_column: str = ""
    """Column of --test_csv that names the image; found by its usual names when not given."""
    group_by: str = ""
    """Column of --test_csv with the study: one row a study, the mean within its frontal and its
    lateral images, then the mean of those two. Without a --test_csv, study: by DICOM headers."""
    view_column: str = ""
    """Column of --test_csv with the view, for --group_by; found by its usual names unless given."""
    sample_submission: Path | None = None
    """Write this file's rows and columns, in its order; without --test_csv it names the images."""
    follow_links: bool = False
    """Read images that are links to files outside of --image_dir."""
    anonymous: bool = False
    """Write numbers in place of the names of images and studies; ensemble.evaluate finds the names
    again by labels in the same order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about images that cannot be read: say how many and which, and write nothing, or
    leave them out and list them in OUTPUT_skipped.csv."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    postprocessing: PostprocessConfig = field(default_factory=PostprocessConfig)
    batch_size: PositiveInt = 64
    """Images in a batch, per process."""
    num_workers: Workers = "auto"
    """Processes that decode images, per process; auto: one a core, at most 8."""
    amp: bool = True
    """bf16 (or fp16) autocast on a GPU; a CPU computes in fp32 whatever is given."""
    output: Path | None = None
    """Where the probabilities go (outputs/predictions.csv): names of images, then a column a
    class."""
    overwrite: bool = False
    """Replace --output where it is there already."""

    @property
    def by_headers(self) -> bool:
        """Whether studies and views come from the headers of DICOM files."""
        alone = self.test_csv is None and self.sample_submission is None
        return self.group_by == "study" and alone

    @property
    def single(self) -> Path | None:
        """The image, where only one is meant."""
        return self.image or (self.image_dir if self.image_dir.is_file() else None)

    def check(self) -> None:
        """Raise UserError where two settings contradict each other."""
        self.merge.check(self.models, many_images=self.single is None)
        self.postprocessing.check()
        ranked = self.merge.ensemble_mode == "rank_mean"
        if ranked and (self.postprocessing.gated or self.postprocessing.calibration is not None):
            raise UserError(
                "--ensemble_mode rank_mean gives ranks, and calibration and gating need "
                "probabilities: take another mode, or leave them out"
            )
        for name in ("test_csv", "sample_submission", "group_by", "anonymous"):
            if self.single is not None and getattr(self, name):
                raise UserError(f"--{name} is for many images, and {self.single} is a single one")
        if self.group_by and self.test_csv is None and not self.by_headers:
            raise UserError(
                "--group_by names a column of --test_csv: give that too, or, where --image_dir "
                "holds DICOM files, --group_by study alone"
            )
        if self.view_column and not self.group_by:
            raise UserError("--view_column belongs to --group_by: give that too")
        for name in ("image_column", "view_column"):
            if getattr(self, name) and self.test_csv is None:
                raise UserError(f"--{name} names a column of --test_csv: give that too")
        if self.anonymous and self.sample_submission is not None:
            raise UserError(
                "--sample_submission names the rows and --anonymous leaves names out: give one"
            )
