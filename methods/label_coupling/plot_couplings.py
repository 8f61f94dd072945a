"""Heat map of couplings, with labels ordered in blocks."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from core.report.plots.style import shorten
from methods.label_coupling.coupling_matrices import Couplings

GREY, LINES = "#d9dbe0", "#e4e6ea"
# from strongly against to strongly for; a gap in the middle, so that small weights show their sign
AGAINST = [(0, "#00344f"), (0.25, "#0072B2"), (0.5, "#c3ddf0")]
FOR = [(0.5, "#fbd5bd"), (0.75, "#D55E00"), (1, "#662d00")]
# with more labels there is no room for a number in each cell
MAX_NUMBERED = 15


def block_order(weights: NDArray[np.float64]) -> list[int]:
    """Order of the labels of `weights` (C, C) that puts coupled labels next to each other.

    Average linkage of |A| + |A|^T with optimal leaf ordering (Bar-Joseph 2001). Labels without a
    coupling come last, in their own order.
    """
    strength = np.abs(weights) + np.abs(weights).T
    coupled = np.flatnonzero(strength.any(axis=0))
    alone = np.flatnonzero(~strength.any(axis=0))
    if len(coupled):
        distance = 1 - strength[np.ix_(coupled, coupled)] / strength.max()
        condensed = squareform(distance, checks=False)
        tree = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
        coupled = coupled[leaves_list(tree)]
    return [*coupled.tolist(), *alone.tolist()]


def heat_map(couplings: Couplings) -> Figure:
    """Plot the mean over the folds, sources as rows, targets as columns, in `block_order`.

    Colours are symmetric about 0; white is exactly 0 in every fold, grey the diagonal.
    """
    order = block_order(couplings.mean)
    names, place = [shorten(couplings.class_names[i]) for i in order], np.ix_(order, order)
    mean, zero = couplings.mean[place], couplings.zero[place]
    limit = float(np.abs(mean).max()) or 1.0
    # the diagonal is below the scale, which is grey
    cells = np.where(np.eye(len(names)), -2 * limit, np.where(zero, np.nan, mean))
    scale = LinearSegmentedColormap.from_list("couplings", AGAINST + FOR)
    colours = scale.with_extremes(bad="white", under=GREY)
    numbered, further = min(len(names), MAX_NUMBERED), max(len(names) - MAX_NUMBERED, 0)
    grid = min(max(1.6, 0.38 * numbered + 0.26 * further), 30)  # inches
    font = min(9, 60 * grid / len(names))
    figure = Figure(layout="constrained", facecolor="white")
    axis = figure.subplots()
    mesh = axis.pcolormesh(cells, cmap=colours, vmin=-limit, vmax=limit, edgecolors=LINES, lw=0.4)
    for row, column in np.argwhere(np.abs(mean) >= 0.005) if not further else ():
        ink = "white" if abs(mean[row, column]) > 0.4 * limit else "black"
        middle, text = (column + 0.5, row + 0.5), f"{mean[row, column]:+.2f}"
        axis.text(*middle, text, ha="center", va="center", fontsize=7, color=ink)
    middles = np.arange(len(names)) + 0.5
    axis.set_xticks(middles, names, rotation=90, fontsize=font, parse_math=False)
    axis.set_yticks(middles, names, fontsize=font, parse_math=False)
    longest = max(text.get_window_extent().width for text in axis.get_yticklabels()) / figure.dpi
    figure.set_size_inches(max(grid + longest + 1.8, 6.4), grid + longest + 1.2)
    axis.invert_yaxis()
    axis.set(xlabel="acts on this label (target)", ylabel="this label's presence (source)")
    axis.tick_params(length=0)
    axis.spines[:].set_color(LINES)
    bar = figure.colorbar(mesh, ax=axis, aspect=max(15, 5 * grid), pad=0.02)
    bar.set_label("mean weight\n(+ for, - against)")
    title = f"Label couplings, mean over {couplings.folds_text}"
    title += f"\nwhite: exactly 0 in each of them, {couplings.sparsity}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure
