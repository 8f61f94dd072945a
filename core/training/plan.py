"""Epochs of a real run by phase, for the estimates of a dry run."""

from dataclasses import dataclass

from core.config.training import OptimConfig


@dataclass(frozen=True)
class Plan:
    """Folds, epochs of each phase, and passes over a frozen backbone that are computed."""

    folds: int
    epochs: dict[str, int]
    passes: int = 0

    @classmethod
    def of(cls, optim: OptimConfig, folds: int) -> "Plan":
        """The plan of the phases that the methods make."""
        head, epochs = getattr(optim, "warmup_head_epochs", 0), optim.epochs
        if optim.freeze_backbone:
            head, epochs = head + epochs, 0
        by_phase = {"head": head, "all": epochs, "retrain": optim.retrain_epochs}
        return cls(folds, by_phase, optim.cached_passes)

    @property
    def all_epochs(self) -> int:
        """Epochs of a fold."""
        return sum(self.epochs.values())

    def cached(self, phase: str) -> int:
        """Epochs of a phase that read the features of earlier ones."""
        return max(0, self.epochs[phase] - self.passes) if self.passes and phase != "all" else 0

    def kept_passes(self, phase: str) -> int:
        """Passes of a phase whose features are kept on the disk."""
        return min(self.passes, self.cached(phase))

    def reduced(self, optim: OptimConfig) -> dict[str, int]:
        """Settings of a dry run: an epoch of each phase, and another that reads its features."""
        few = {name: min(1, n) + min(1, self.cached(name)) for name, n in self.epochs.items()}
        found = {"epochs": few["all"], "warmup_head_epochs": few["head"]}
        if optim.freeze_backbone:
            found = {"epochs": few["head"], "warmup_head_epochs": 0}
        if any(number > 1 for number in few.values()):
            found["head_views"] = 1
        found["retrain_epochs"] = few["retrain"]
        return {name: number for name, number in found.items() if hasattr(optim, name)}
