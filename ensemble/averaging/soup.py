"""Model soup (Wortsman 2022): uniform or greedy average of checkpoints, and its scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ensemble.averaging.images import ImageReader
from ensemble.averaging.weights import average_tensors, update_batch_norm
from ensemble.fitting.weights import Scorer
from ensemble.predict.predictor import Predictor


class Step(NamedTuple):
    """Trial of one checkpoint in the greedy average."""

    member: int
    score: float
    is_kept: bool


def greedy(
    alone: Sequence[float],
    score: Callable[[list[int]], float],
    show: Callable[[Step], None] = lambda step: None,
) -> tuple[list[int], float]:
    """Members of the greedy average and its score (Wortsman 2022, recipe 1).

    alone: score of each of the M members; score: that of the average of several. In the order of
    falling scores, each is added if the score does not fall. `show` gets each trial.
    """
    first, *others = np.argsort(-np.asarray(alone), kind="stable").tolist()
    kept, best = [first], alone[first]
    for member in others:
        found = score([*kept, member])
        is_kept = found >= best
        if is_kept:
            kept, best = [*kept, member], found
        show(Step(member, found, is_kept))
    return kept, best


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out images, and the score for them."""

    reader: ImageReader
    rows: np.ndarray  # (H,) int
    score: Scorer


class Soup:
    """Averages of the members' weights `states` in the single model of `predictor`.

    images: uint8 (N, 1, S, S) for batch-norm statistics; None for a network without batch norm.
    """

    def __init__(
        self,
        predictor: Predictor,
        states: Sequence[dict[str, Tensor]],
        images: Tensor | None,
        batch_size: int,
    ) -> None:
        self.predictor, self.states = predictor, states
        self.images, self.batch_size = images, batch_size
        (self.model,) = (member.model for member in predictor.ensemble.members)

    def load(self, chosen: Sequence[int]) -> None:
        """Give the model the average of the `chosen` members; of a single one its own weights."""
        self.model.load_state_dict(average_tensors([self.states[place] for place in chosen]))
        if self.images is not None and len(chosen) > 1:
            update_batch_norm(self.model, self.images, self.batch_size)

    def score(self, chosen: Sequence[int], held_out: HeldOut, title: str) -> float:
        """Score of the average of `chosen` on the held-out images."""
        self.load(chosen)
        batches = held_out.reader.read(held_out.rows, title)
        found = np.concatenate([self.predictor(batch.images)[0] for batch in batches])
        return held_out.score(found.T.astype(np.float64))
