"""L1 penalty: sparse parameters and their proximal step."""

from typing import Any

import torch
from torch import Tensor, nn


def sparse_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that modules name in their attribute `sparse`, by name in `model`."""
    return {
        f"{path}.{name}".removeprefix("."): module.get_parameter(name)
        for path, module in model.named_modules()
        for name in getattr(module, "sparse", ())
    }


@torch.no_grad()
def shrink(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """The proximal step of the L1 penalty, after a step of `optimizer` (proximal AdamW, Yun 2021).

    A <- sign(A) max(|A| - lr l1 / (sqrt(v) + eps), 0) with v the bias-corrected second moment: the
    soft threshold in the optimiser's own metric, so that an entry rests at exactly 0 while its mean
    gradient (as AdamW sees it, after clipping) is below l1. As a hook of each step that is made it
    changes nothing where the optimiser's `found_inf` skipped the step.
    """
    skip: Tensor | None = getattr(optimizer, "found_inf", None)
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["l1"] else ():
            state = optimizer.state[parameter]
            if not state:
                continue
            corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
            threshold = group["lr"] * group["l1"] / (corrected.sqrt() + group["eps"])
            shrunk = parameter.sign() * (parameter.abs() - threshold).clamp(min=0)
            # no product: before the first step that counts the threshold is not a number
            parameter.copy_(shrunk if skip is None else torch.where(skip > 0, parameter, shrunk))
