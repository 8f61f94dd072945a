"""Public names and their parameters, as used by scripts outside the project."""

import inspect
from importlib import import_module

import pytest
import torch

SIGNATURES = {
    "core.losses.build_loss": "name positives images",
    "core.data.splits.assign_folds": "targets patients=None folds=5 seed=0",
    "core.data.tables.read_table": "csv image_dir labels=None reading=None fields",
    "core.data.images.decode.read_image": "path",
    "core.metrics.evaluate": (
        "targets probabilities class_names prevalence=None patients=None resamples=1000 seed=0"
    ),
    "methods.load_model": "path",
    "methods.csra_db_cas.model.CSRAHead": "features classes heads=1 lam=0.1 scale=True",
    "methods.label_coupling.model.LabelCoupling": "classes alpha=0.3",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_keep_their_names_order_and_defaults(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = []
    for one in inspect.signature(getattr(import_module(module), attribute)).parameters.values():
        default = "" if one.default is one.empty else f"={one.default}"
        found.append(f"{one.name}{default}")
    promised = SIGNATURES[name].split()
    assert found[: len(promised)] == promised


def test_error_of_the_user() -> None:
    assert issubclass(import_module("core.errors").UserError, Exception)


def test_scores_have_their_columns() -> None:
    evaluate = import_module("core.metrics").evaluate
    found = evaluate([[0], [1], [1], [0]], [[0.1], [0.9], [0.4], [0.5]], ["Mass"], resamples=20)
    columns = {"ap", "ap_low", "ap_high", "auroc", "auroc_low", "auroc_high"}
    assert columns <= set(found.per_class.columns)
    assert found.summary["mAUROC"] == 0.75
    assert found.per_class.loc[:, "auroc"].tolist() == [0.75]


def test_couplings_are_the_parameter_a() -> None:
    coupling = import_module("methods.label_coupling.model").LabelCoupling(3)
    assert torch.equal(coupling.A, torch.zeros(3, 3))
