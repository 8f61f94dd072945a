"""Figure of label co-occurrence, in the labels and the predictions."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import by_prevalence, new_figure, shorten

# more would be illegible
MOST_CLASSES = 40
_LIMIT = 3


def cooccurrence(targets: FloatArray, probabilities: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Co-occurrence relative to chance: observed and predicted, (C, C) each.

    Each is log2((O + 1/2) / (E + 1/2)), the information component with shrinkage towards 0 (Noren,
    Hopstadius & Bate 2013, eq. 1), over the images where both labels are known: O images have both,
    E = n_i n_j / n are expected by chance. For the predictions O is E times the lift
    n sum(p_i p_j) / (sum p_i sum p_j), in which the scale of a class's probabilities cancels: if
    labels are independent given the image, it is the lift of labels drawn from the probabilities.
    A class with only zero probabilities has the value of chance. NaN if no image has both labels
    known, and on the diagonal.
    """
    known = (~np.isnan(targets)).astype(float)
    labels = np.nan_to_num(targets)
    scores = probabilities * known
    both_known = known.T @ known
    alone = labels.T @ known
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = alone * alone.T / both_known
        mass = scores.T @ known
        lift = (scores.T @ scores) * both_known / (mass * mass.T)
        lift[mass * mass.T == 0] = 1
        observed = np.log2((labels.T @ labels + 0.5) / (expected + 0.5))
        predicted = np.log2((lift * expected + 0.5) / (expected + 0.5))
    for values in (observed, predicted):
        np.fill_diagonal(values, np.nan)
    return observed, np.where(np.isnan(observed), np.nan, predicted)


def cooccurrence_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure | None:
    """Both maps side by side, most prevalent class first; None if no pair is known."""
    table = by_prevalence(evaluation.per_class)
    names = table.index[:MOST_CLASSES]
    columns = evaluation.per_class.index.get_indexer(names)
    maps = cooccurrence(targets[:, columns], probabilities[:, columns])
    if all(np.isnan(values).all() for values in maps):
        return None
    side = 0.2 * len(names) + 1.2
    figure = new_figure(2 * side + 2.6, side + 1.9)
    axes = figure.subplots(1, 2, sharey=True)
    places = range(len(names))
    labels = [shorten(name, 22) for name in names]
    shown = ""
    if len(names) < len(table):
        shown = f", the {len(names)} most prevalent of {len(table)} classes"
    titles = f"Labels{shown}", f"Predictions{_agreement(*maps)}"
    for axis, values, title in zip(axes, maps, titles, strict=True):
        image = axis.imshow(values, cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT)
        # unknown pairs are grey; white means chance
        axis.set_facecolor("#d9dce1")
        axis.set_xticks(places, labels, rotation=90, parse_math=False)
        axis.set_title(title, loc="left")
        axis.tick_params(labelsize=8, length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_yticks(places, labels, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, extend="both")
    powers = range(-_LIMIT, _LIMIT + 1)
    bar.set_ticks(list(powers), labels=[f"{2.0**power:g}" for power in powers])
    bar.set_label("times as often as by chance", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _agreement(observed: FloatArray, predicted: FloatArray) -> str:
    """Text with the rank correlation of the two maps; "" if it is undefined."""
    pairs = np.triu_indices(len(observed), k=1)
    table = pd.DataFrame({"observed": observed[pairs], "predicted": predicted[pairs]}).dropna()
    if len(table) < 3 or (table.nunique() < 2).any():
        return ""
    return f" (rank correlation {table['observed'].corr(table['predicted'], 'spearman'):.2f})"
