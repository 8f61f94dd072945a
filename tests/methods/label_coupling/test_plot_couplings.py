"""Heat map of couplings: blocks, signs, zeros and legibility."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from methods.label_coupling.coupling_matrices import Couplings
from methods.label_coupling.plot_couplings import block_order, heat_map

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_put_together(seed: int) -> None:
    random = np.random.default_rng(seed)
    block = random.permutation(np.repeat(np.arange(5), [2, 5, 3, 7, 4]))
    same = block[:, None] == block
    matrix = np.triu(random.normal(size=(21, 21)), 1)  # each pair acts one way
    matrix *= np.array([50, 1e-3, 1, 1, 1])[block]  # one block far stronger, one far weaker
    # or both ways with opposite signs; or with weak couplings between strong blocks
    noisy = 0.5 * same + random.normal(scale=0.02, size=(21, 21))
    for weights in (matrix * same, (matrix - matrix.T) * same, noisy):
        order = block_order(weights)
        assert sorted(order) == list(range(21))
        assert np.count_nonzero(np.diff(block[order])) == 4


def test_labels_without_couplings_come_last_and_a_chain_is_a_chain() -> None:
    matrix, chain = np.zeros((7, 7)), [5, 0, 4, 1, 3]
    for strength, (source, target) in enumerate(pairwise(chain), 5):
        matrix[source, target] = -strength
    assert block_order(matrix) in ([*chain, 2, 6], [*chain[::-1], 2, 6])
    assert block_order(np.zeros((4, 4))) == [0, 1, 2, 3]


class Picture:
    """A drawn heat map."""

    def __init__(self, matrices: Any, names: list[str]) -> None:
        numbers = list(range(1, len(matrices) + 1))
        self.figure = heat_map(Couplings(names, numbers, np.array(matrices), "2 of 7 folds"))
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        self.pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255
        self.axis, self.bar = self.figure.axes
        self.across, self.down = self.axis.get_xticklabels(), self.axis.get_yticklabels()

    def colour(self, source: str, target: str) -> tuple[float, ...]:
        """RGB where the names cross, to the left of the number."""
        x = next(label.get_position()[0] for label in self.across if label.get_text() == target)
        y = next(label.get_position()[1] for label in self.down if label.get_text() == source)
        across, up = self.axis.transData.transform((x - 0.45, y))
        return tuple(self.pixels[int(len(self.pixels) - up), int(across)])


def test_titles_and_colours() -> None:
    names = ["Mass", "Edema", "Hernia", "Nodule"]
    matrices = np.zeros((2, 4, 4))
    matrices[:, 0, 1], matrices[:, 1, 0] = (1, 0), -0.25
    matrices[:, 2, 3], matrices[:, 3, 2] = 1e-6, -1e-6
    matrices[:, 0, 3] = 1, -1
    picture = Picture(matrices, names)
    expected = (
        "mean over 2 of 7 folds\nwhite: exactly 0 in each of them, 7 of 12 ordered pairs (58 %)"
    )
    assert expected in picture.figure.get_suptitle()
    assert "source" in picture.axis.get_ylabel()
    assert "target" in picture.axis.get_xlabel()
    assert "weight" in picture.bar.get_ylabel()
    assert picture.bar.get_ylim() == (-0.5, 0.5)
    for source, target in (("Mass", "Edema"), ("Hernia", "Nodule")):
        red, _, blue = picture.colour(source, target)
        assert red > blue + 0.2
        red, _, blue = picture.colour(target, source)
        assert blue > red + 0.15
    assert picture.colour("Nodule", "Mass") == picture.colour("Edema", "Hernia") == (1, 1, 1)
    assert picture.colour("Mass", "Nodule") != (1, 1, 1)  # two folds that disagree are no zero
    empty = Picture(np.zeros((1, 2, 2)), names[:2])
    assert empty.colour("Mass", "Edema") == (1, 1, 1)
    for drawn in (picture, empty):
        assert drawn.colour("Mass", "Mass") == drawn.colour("Edema", "Edema") == to_rgb("#d9dbe0")


@pytest.mark.parametrize("count", [2, 8, 16, 40])
@pytest.mark.parametrize("letters", ["i", "W" * 60])
def test_legible(count: int, letters: str) -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(count, count)) * (random.random((count, count)) < 0.4)
    picture = Picture([matrix], [f"{place:02d}{letters}" for place in range(count)])
    down, across = ([t.get_window_extent() for t in ts] for ts in (picture.down, picture.across))
    axis, width, height = picture.axis, *picture.figure.canvas.get_width_height()
    others = [axis.xaxis.label, axis.yaxis.label, picture.bar.yaxis.label, *picture.figure.texts]
    for box in (*down, *across, *(text.get_window_extent() for text in others)):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    # the first name on top and on the left; none touches the next
    assert all(lower.y1 <= upper.y0 for upper, lower in pairwise(down))
    assert all(left.x1 <= right.x0 for left, right in pairwise(across))
    assert {text.get_fontsize() for text in (*picture.down, *picture.across)} == {9}
    assert [text.get_text() for text in picture.down] == [t.get_text() for t in picture.across]
    cell = axis.get_window_extent().width / count
    assert all(text.get_window_extent().width < cell for text in axis.texts)
