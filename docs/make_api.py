"""docs/api.md from the docstrings of public names: `make docs`."""

from pathlib import Path

import griffe
import griffe2md

PAGE = Path(__file__).with_name("api.md")
INTRODUCTION = """# Python API
From the docstrings, by `make docs`. Names that are not here may change without notice.
"""
# by subject, in the order in which a script needs them
NAMES = {
    "Models": ["methods.load_model", "core.models.loaded_model.LoadedModel"],
    "Tables and folds": [
        "core.data.tables.read_table",
        "core.data.tables.LabelReading",
        "core.data.tables.LabelTable",
        "core.data.splits.assign_folds",
        "core.data.splits.holdout.assign_holdout",
        "core.data.images.decode.read_image",
    ],
    "Losses": ["core.losses.build_loss", "core.losses.prevalence_log_odds"],
    "Metrics": [
        "core.metrics.evaluate",
        "core.metrics.Evaluation",
        "core.metrics.paired_difference",
        "core.metrics.PairedDifference",
        "core.metrics.group_of",
        "core.metrics.ap_auroc.Curve",
        "core.metrics.calibration_error.expected_calibration_error",
        "ensemble.scoring.operating_points.operating_points",
        "ensemble.scoring.operating_points.TargetPoint",
    ],
    "Training": [
        "core.models.backbone.Backbone",
        "core.models.backbone.Classifier",
        "core.training.run.start_run",
        "core.training.run.Run",
        "core.training.optimizer.Phase",
        "core.training.optimizer.two_phases",
        "core.training.loop.FoldTrainer",
        "core.training.finish.finish_run",
    ],
    "Ensemble": [
        "ensemble.predict.ensemble.Ensemble",
        "ensemble.predict.config.ModelsConfig",
        "ensemble.predict.predictor.Predictor",
        "ensemble.predict.config.MergeConfig",
        "ensemble.predict.merge.merge_models",
        "ensemble.predict.merge.merge_studies",
        "ensemble.fitting.weights.Pool",
        "ensemble.fitting.weights.select",
        "ensemble.fitting.weights.Selection",
    ],
    "Calibration": [
        "ensemble.fitting.calibrators.Problem",
        "ensemble.fitting.calibrators.fit_calibration",
        "ensemble.predict.calibration.Calibration",
        "ensemble.predict.calibration.read_calibration",
        "ensemble.predict.calibration.write_calibration",
        "ensemble.predict.calibration.normal_gating",
    ],
    "Errors": ["core.errors.UserError"],
}
OPTIONS = griffe2md.ConfigDict(
    # docstrings of the project are plain text, which this style leaves alone
    docstring_style="sphinx",
    show_signature_annotations=True,
    show_if_no_docstring=False,
    show_docstring_attributes=False,
    inherited_members=False,
    summary=False,
    line_length=100,
    heading_level=3,
)


def render() -> str:
    """The page as Markdown."""
    modules = griffe.GriffeLoader(docstring_parser="sphinx", search_paths=[PAGE.parent.parent])
    for package in ("core", "ensemble", "methods"):
        modules.load(package)
    parts = [INTRODUCTION]
    for subject, names in NAMES.items():
        parts.append(f"## {subject}\n")
        for name in names:
            found = modules.modules_collection[name]
            parts.append(griffe2md.render_object_docs(found, OPTIONS).strip() + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
