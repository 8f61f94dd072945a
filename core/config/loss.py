"""Settings of the loss."""

from dataclasses import dataclass
from typing import Any, Literal

from core.config.values import FractionBelowOne
from core.errors import UserError, suggest_name

LOSS_CONSTANTS = (
    *("gamma_neg", "gamma_pos", "margin", "alpha", "gamma", "beta", "max_margin", "scale"),
    *("temperature", "mu", "neg_scale", "kappa"),
)


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Loss function and its options."""

    loss: Literal[
        "asl",
        "robust_asl",
        "bce",
        "weighted_bce",
        "focal",
        "cb_focal",
        "ldam",
        "ldam_drw",
        "distribution_balanced",
        "two_way",
    ] = "asl"
    """Loss function; core/losses/README.md recommends which to try first."""
    loss_options: tuple[str, ...] = ()
    """Constants of the loss, e.g. --loss_options gamma_neg=2 margin=0.1."""
    pos_weight: bool = False
    """With --loss bce: weight positives by clip(negatives / positives, 1, 10) in the training
    data."""
    logit_adjust: float = 1.0
    """TAU: add TAU times the log-odds of the prevalence to the logits in training (Menon 2021); 0:
    off. Adding it after training would not change a class's AP or AUROC."""
    label_smooth: FractionBelowOne = 0.0
    """EPS: train on 1 - EPS/2 and EPS/2 instead of 1 and 0."""
    drw_epoch: int | None = None
    """First epoch, from 1 over all phases, that weights positives by their class's effective number
    (deferred re-weighting, Cao 2019); ldam_drw: after 60 % of the epochs unless given."""

    def check(self) -> None:
        """Raise UserError for an unknown constant, or --pos_weight with another loss."""
        if self.pos_weight and self.loss != "bce":
            raise UserError(f"--pos_weight belongs to --loss bce, not to --loss {self.loss}")
        self.constants()

    def constants(self) -> dict[str, float]:
        """Parse --loss_options. Raises UserError for anything but NAME=NUMBER."""
        numbers: dict[str, float] = {}
        for option in self.loss_options:
            name, _, text = option.partition("=")
            try:
                number = float(text)
            except ValueError as error:
                raise UserError(f"--loss_options takes NAME=NUMBER, not {option}") from error
            if name not in LOSS_CONSTANTS:
                raise UserError(
                    "--loss_options: there is no constant "
                    f"'{name}'{suggest_name(name, LOSS_CONSTANTS)}"
                )
            if name in numbers:
                raise UserError(f"--loss_options names {name} twice")
            numbers[name] = number
        return numbers

    def build_options(self, epochs: int) -> dict[str, Any]:
        """Keyword arguments of `core.losses.build_loss` for a training of `epochs` in total."""
        options: dict[str, Any] = {
            "logit_adjust": self.logit_adjust,
            "label_smooth": self.label_smooth,
            "drw_epoch": self.drw_epoch,
            "epochs": epochs,
        }
        weighted = self.pos_weight and self.loss == "bce"
        return options | self.constants() | ({"pos_weight": True} if weighted else {})
