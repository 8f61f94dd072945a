"""Figures of heat maps over X-rays: a row a class (or an image), a column a model."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ensemble.heatmaps.pointing_game import Box

COLOURS = "turbo"
OPACITY = 0.4
TILE_INCHES = 1.9
DOTS_PER_INCH, DOTS_OF_SHEET = 100, 75
SCALE_LABEL = "1: strongest evidence for the class in this image   0: weakest, or none"


@dataclass(frozen=True, eq=False)
class Row:
    """One image and class."""

    label: str
    pixels: NDArray[np.uint8]  # (H, W)
    boxes: Sequence[Box]
    # of each model; NaN if it lacks the class
    heats: Sequence[NDArray[np.float32]]  # (H, W)
    probabilities: Sequence[float]
    states: Sequence[str]  # calibrated or uncalibrated


def draw(rows: Sequence[Row], models: Sequence[str]) -> Figure:
    """Draw each X-ray and the map of each model with its probability, and a colour scale."""
    across = 1 + len(models)
    # inches: row labels on the left, column labels on top, the scale below
    left, top, below, gap = 1.25, 0.3, 0.62, 0.22
    width = left + across * TILE_INCHES
    height = top + len(rows) * (TILE_INCHES + gap) + below
    figure = Figure(figsize=(width, height), facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, y / height, text, parse_math=False, **style)

    for number, row in enumerate(rows):
        bottom = below + (len(rows) - 1 - number) * (TILE_INCHES + gap)
        # a name may be a long word
        label = "\n".join(textwrap.fill(line, 17)[:80] for line in row.label.split("\n"))
        write(0.08, bottom + TILE_INCHES / 2, label, va="center", fontsize=8)
        for column in range(across):
            place = ((left + column * TILE_INCHES) / width, bottom / height)
            size = ((TILE_INCHES - 0.06) / width, TILE_INCHES / height)
            _draw_tile(figure.add_axes((*place, *size)), row, column - 1)
    for column, name in enumerate(("X-ray", *models)):
        x = left + (column + 0.5) * TILE_INCHES - 0.03
        write(x, height - 0.2, name, ha="center", fontsize=9, weight="bold")
    long = min(3.6, width - left - 0.2)
    axes = figure.add_axes((left / width, 0.36 / height, long / width, 0.1 / height))
    scale = ScalarMappable(Normalize(0, 1), cmap=COLOURS)
    figure.colorbar(scale, cax=axes, orientation="horizontal", alpha=OPACITY)
    axes.tick_params(labelsize=7)
    write(left + long + 0.12, 0.34, textwrap.fill(SCALE_LABEL, 44), fontsize=7, va="bottom")
    return figure


def _draw_tile(axes: Axes, row: Row, model: int) -> None:
    """Draw the X-ray with its boxes, and the map of a `model` over it (-1: none)."""
    axes.set_axis_off()
    axes.imshow(row.pixels, cmap="gray", vmin=0, vmax=255)
    for x0, y0, x1, y1 in row.boxes:
        corner, size = (x0 - 0.5, y0 - 0.5), (x1 - x0, y1 - y0)
        axes.add_patch(Rectangle(corner, *size, fill=False, color="white", linewidth=1))
    if model < 0:
        return
    probability = row.probabilities[model]
    if np.isnan(probability):
        axes.set_title("not a class of it", fontsize=8, pad=2)
        return
    axes.imshow(row.heats[model], cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY)
    axes.set_title(f"{row.states[model]} {probability:.3f}", fontsize=8, pad=2)
