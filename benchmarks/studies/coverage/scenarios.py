"""Scenarios of the study `coverage`, and the coverage of their intervals."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from tqdm import tqdm

from benchmarks.runner import required_data
from benchmarks.studies.coverage.simulation import (
    RHOS,
    Interval,
    Population,
    RealLabels,
    beats_low_negative,
    grid,
    percentile_intervals,
    table_of,
)
from core.data.images.collection import Images
from core.data.sources.source_table import SourceTable
from core.data.tables.label_table import LabelTable
from core.metrics import Evaluation, PairedDifference, evaluate, paired_difference
from core.metrics.calibration_error import calibration_errors
from core.metrics.intervals import LEAST_IN_MEANS, mean_losses
from core.runtime.fabric import usable_cores
from ensemble.fitting.weights import SINGLE_BEST, Pool, select
from ensemble.scoring.operating_points import OTHER, TargetPoint, operating_points
from ensemble.scoring.score import Scored
from ensemble.scoring.subgroups import Grouping, score_subgroups

DATA_SETS = 1000
OUT = Path("outputs/coverage")


Draw = Callable[[np.random.Generator], Iterator[Interval]]


def classes(population: Population, random: np.random.Generator) -> Iterator[Interval]:
    """AP and AUROC of each class, and their means."""
    sample = population.draw(random)
    names = [str(number) for number in range(len(population.aurocs))]
    result = evaluate(*sample[:2], names, population.prevalences, sample.patients)
    yield from intervals(population, result, {"ap": population.aps, "auroc": population.areas})


def intervals(
    population: Population,
    result: Evaluation | PairedDifference,
    truths: dict[str, np.ndarray],
    label: str = "",
) -> Iterator[Interval]:
    """Intervals of classes and means, with the true values (C,) of AP and AUROC."""
    rows = result.per_class
    counts = np.round(population.expected).astype(int)
    for metric, truth in truths.items():
        columns = [rows[f"{metric}{end}"] for end in ("_low", "_high", "")]
        what = [f"{label}{metric.upper()}"] * len(rows)
        cells = zip(what, counts, population.aurocs, *columns, truth, strict=True)
        yield from (Interval(*cell) for cell in cells)
    frequent = (rows["positive_patients"] >= LEAST_IN_MEANS).to_numpy()
    for mean, (low, high) in result.summary["intervals"].items():
        group = mean.partition("_")[2]
        if group == "extreme" or mean.startswith("RMSCE"):
            continue
        inside = frequent & (rows["group"] == group).to_numpy() if group else frequent
        truth = truths[mean.removeprefix("m").partition("_")[0].lower()][inside].mean()
        point = result.summary["interval_points"][mean]
        yield Interval(f"{label}{mean}", 0, 0.0, low, high, point, float(truth))


def differences(
    population: Population, kept: float, random: np.random.Generator
) -> Iterator[Interval]:
    """Two models on the same images; the second has the share `kept` of the first one's signal."""
    first = population.draw(random)
    second = population.second(random, first, kept, own=0.3)
    names = [str(number) for number in range(len(population.aurocs))]
    result = paired_difference(
        first.targets, first.probabilities, second.probabilities, names, first.patients
    )
    other = population.weaker(kept)
    truths = {"ap": population.aps - other.aps, "auroc": population.aurocs - other.aurocs}
    yield from intervals(population, result, truths, "difference of ")


def subgroups(population: Population, random: np.random.Generator) -> Iterator[Interval]:
    """mAUROC of three tenths of the patients and of the others, with equal true scores.

    Also the mAP of the smaller subgroup minus that of the larger, at equal and at actual numbers.
    """
    targets, probabilities, patients = population.draw(random)
    names = tuple(str(number) for number in range(len(population.aurocs)))
    ids, file = list(map(str, range(len(targets)))), Path("p.csv")
    table = LabelTable(
        ids=ids,
        images=Images.of_files([]),
        targets=targets,
        class_names=names,
        patients=patients,
    )
    scored = Scored(
        table, {file: probabilities}, None, [], 100, 0, SourceTable(path=file, columns={})
    )
    smaller = (random.random(population.patients) < 0.3)[patients]
    rows = {"larger": np.flatnonzero(~smaller), "smaller": np.flatnonzero(smaller)}
    found = score_subgroups(Grouping("group", "", rows), scored, file).subgroups
    for name, one in found.items():
        if one.compared is not None and not one.compared.summary["too_rare_for_intervals"]:
            summary = one.compared.summary
            low, high = summary["intervals"]["mAUROC"]
            what = f"mAUROC of the {name} subgroup"
            yield Interval(what, 0, 0.0, low, high, summary["mAUROC"], population.areas.mean())
    gap = found["smaller"].equal_map - found["larger"].equal_map
    yield Interval("mAP* of the smaller less the larger", 0, 0.0, np.nan, np.nan, gap, 0.0)
    gap = found["smaller"].own.summary["mAP"] - found["larger"].own.summary["mAP"]
    yield Interval("mAP of the smaller less the larger", 0, 0.0, np.nan, np.nan, gap, 0.0)


def percentiles(population: Population, random: np.random.Generator) -> Iterator[Interval]:
    """Percentile intervals of earlier versions, to compare their coverage and width."""
    sample = population.draw(random)
    counts = np.round(population.expected).astype(int)
    bounds, means = percentile_intervals(sample, random)
    for row, (what, truth) in enumerate((("AP", population.aps), ("AUROC", population.areas))):
        label = f"{what}, percentile"
        cells = zip(counts, population.aurocs, *bounds[:, row], truth, strict=True)
        for count, auroc, low, high, true in cells:
            yield Interval(label, count, auroc, low, high, np.nan, true)
        low, high = means[:, row]
        yield Interval(f"m{label}", 0, 0.0, low, high, np.nan, truth.mean())


def points(
    population: Population, at: float | TargetPoint, random: np.random.Generator
) -> Iterator[Interval]:
    """Operating points at a threshold of normal scores, or at a target point."""
    sample = population.draw(random)
    shifts, shares = population.shifts, population.prevalences
    names = [str(number) for number in range(len(shifts))]
    where = at if isinstance(at, TargetPoint) else np.full(len(shifts), 1 / (1 + np.exp(-at)))
    table = operating_points(*sample[:2], names, where, sample.patients)
    thresholds = np.log(table["threshold"]) - np.log1p(-table["threshold"])
    sensitivity, false = norm.sf(thresholds - shifts), norm.sf(thresholds)
    truths = {
        "sensitivity": sensitivity,
        "specificity": 1 - false,
        "ppv": shares * sensitivity / (shares * sensitivity + (1 - shares) * false),
        "npv": (1 - shares)
        * (1 - false)
        / ((1 - shares) * (1 - false) + shares * (1 - sensitivity)),
    }
    if isinstance(at, TargetPoint):
        reached = shifts + norm.isf(at.least), norm.ppf(at.least) + 0 * shifts
        true = dict(zip(OTHER, reached, strict=True))[at.point]
        truths["threshold"] = 1 / (1 + np.exp(-true))
        both = {"specificity": norm.cdf(true), "sensitivity": norm.sf(true - shifts)}
        other = OTHER[at.point]
        truths[f"{other}_at_{at.point}"] = both[other]
        table[f"{other}_at_{at.point}"] = table[other]
    counts = np.round(population.expected).astype(int)
    for what, truth in truths.items():
        columns = [table[f"{what}{end}"] for end in ("_low", "_high", "")]
        cells = zip([what] * len(table), counts, population.aurocs, *columns, truth, strict=True)
        yield from (Interval(*cell) for cell in cells)


def reliability(
    population: Population, sharpened: float, random: np.random.Generator
) -> Iterator[Interval]:
    """Calibration errors of calibrated probabilities, with logits multiplied by `sharpened`."""
    sample = population.draw(random)
    probabilities = population.calibrated(sample.probabilities, sharpened)
    found = calibration_errors(sample.targets, probabilities, sample.patients)
    truths = population.reliability(sharpened)
    for (what, (value, low, high)), truth in zip(found.items(), truths, strict=True):
        yield Interval(what, 0, 0.0, low, high, value, truth)


def losses(population: Population, random: np.random.Generator) -> Iterator[Interval]:
    """Log loss and Brier score of overconfident probabilities less those of calibrated ones.

    Its truth is what `table_of` puts there: the mean over all data sets.
    """
    sample = population.draw(random)
    targets, known = sample.targets, population.calibrated(sample.probabilities)
    sharper = population.calibrated(sample.probabilities, 1.15)
    kinds = {
        "log loss": lambda p: -np.where(targets == 1, np.log(p), np.log1p(-p)),
        "Brier score": lambda p: (p - targets) ** 2,
    }
    for name, loss in kinds.items():
        estimate = mean_losses(loss(sharper) - loss(known), sample.patients)
        low, high = estimate.unbounded_interval()
        value = float(estimate.values)
        yield Interval(f"difference of {name}", 0, 0.0, float(low), float(high), value, np.nan)


def gains(population: Population, random: np.random.Generator) -> Iterator[Interval]:
    """Gain of the procedure of `ensemble.choose` over the single best of three models.

    `table_of` sets the truth to the mean over all data sets.
    """
    first = population.draw(random)
    models = [first, *(population.second(random, first, kept, own=0.5) for kept in (1.0, 0.9))]
    names = [str(number) for number in range(len(population.aurocs))]
    pool = Pool(np.stack([one.probabilities.T for one in models]), first.targets.T.copy())
    patients = first.patients.astype(object)
    selection = select(pool, patients, "mAUROC", folds=5, seed=0)
    procedure, single = selection.procedure.T, selection.held_out[SINGLE_BEST].T
    result = paired_difference(first.targets, procedure, single, names, patients)
    for mean in ("mAP", "mAUROC"):
        if mean in result.summary["intervals"]:
            low, high = result.summary["intervals"][mean]
            yield Interval(f"gain in {mean}", 0, 0.0, low, high, result.summary[mean], np.nan)


def missing_labels(population: Population, random: np.random.Generator) -> Iterator[Interval]:
    """AUROC with labels of all positives, and of half the negatives with low scores.

    For the images with a known label, and for all images, which cannot be estimated.
    """
    targets, probabilities, patients = population.draw(random)
    easy = np.log(probabilities) - np.log1p(-probabilities) < 0
    unknown = (targets == 0) & easy & (random.random(targets.shape) < 0.5)
    names = [str(number) for number in range(len(population.aurocs))]
    known = np.where(unknown, np.nan, targets)
    rows = evaluate(known, probabilities, names, patients=patients).per_class
    # half of the negatives lie below 0, and half of those are left: a third of the known ones
    low = np.array([beats_low_negative(float(shift)) for shift in population.shifts])
    high = 2 * population.aurocs - low
    truths = {"known labels": low / 3 + high * 2 / 3, "all images": population.aurocs}
    for label, true in truths.items():
        cells = zip(rows["auroc_low"], rows["auroc_high"], rows["auroc"], true, strict=True)
        for auroc, cell in zip(population.aurocs, cells, strict=True):
            yield Interval(f"AUROC, {label}", 0, float(auroc), *map(float, cell))


def scenarios() -> dict[str, Draw]:
    """All scenarios by name."""
    found: dict[str, Draw] = {}
    for rho in RHOS:
        name = f"rho {rho:g}"
        found[f"classes, {name}"] = partial(classes, grid(rho))
        for count in (10, 20, 50):
            rare = grid(rho, [count] * 4)
            found[f"16 classes of {count} positives, {name}"] = partial(classes, rare)
        pairs = grid(rho, [10, 20, 50, 200])
        found[f"equal models, {name}"] = partial(differences, pairs, 1.0)
        found[f"a worse model, {name}"] = partial(differences, pairs, 0.8)
        found[f"percentile intervals, {name}"] = partial(percentiles, grid(rho, [5, 20, 50]))
        found[f"threshold, {name}"] = partial(points, grid(rho, [10, 20, 50, 200]), 1.0)
        common = grid(rho, [50, 200, 600])
        found[f"calibrated, {name}"] = partial(reliability, common, 1.0)
        found[f"calibrated, rare, {name}"] = partial(reliability, grid(rho, [10]), 1.0)
        found[f"overconfident, {name}"] = partial(reliability, common, 1.5)
        found[f"slightly overconfident, {name}"] = partial(reliability, common, 1.15)
        found[f"losses, {name}"] = partial(losses, common)
        for point, least in product(OTHER, (0.8, 0.95)):
            reaching = TargetPoint(point, least)
            found[f"{point} {least}, {name}"] = partial(
                points, grid(rho, [10, 20, 50, 200]), reaching
            )
    for rho in RHOS[1:]:
        many = replace(grid(rho, [600]), patients=6000)
        found[f"threshold, 6,000 patients, rho {rho:g}"] = partial(points, many, 1.0)
    found["subgroups, rho 0.6"] = partial(subgroups, grid(0.6, [100]))
    found["missing labels"] = partial(missing_labels, grid(0.0, [200]))
    found["gain of choose, rho 0.6"] = partial(gains, grid(0.6, [100]))
    found["tied scores, rho 0.6"] = partial(classes, grid(0.6, levels=20))
    found["NIH"] = partial(classes, RealLabels.of_nih(required_data(), patients=3000))
    return found


def run(name: str, data_sets: int) -> pd.DataFrame:
    """Cells of a scenario: one row for each quantity, number of positives and AUROC."""
    draw = scenarios()[name]
    rows = [one for seed in range(data_sets) for one in draw(np.random.default_rng(seed))]
    return table_of(pd.DataFrame(rows).assign(scenario=name), data_sets)


def _run(name: str) -> pd.DataFrame:
    """Cells of a scenario, from the cached file if there is one."""
    path = OUT / f"{name}.csv"
    if not path.exists():
        run(name, DATA_SETS).to_csv(path.with_suffix(".part"), index=False)
        path.with_suffix(".part").replace(path)
    return pd.read_csv(path)


def run_all(names: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Cells of each scenario, after running the missing ones."""
    OUT.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (OUT / f"{name}.csv").exists()]
    if len(missing) > 1:
        with ProcessPoolExecutor(usable_cores()) as pool:
            list(tqdm(pool.map(_run, missing), total=len(missing), disable=None))
    yield from map(_run, names)
