"""L1 penalty: sparse parameters and their proximal step."""

from typing import Any

import torch
from torch import Tensor, nn


def sparse_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters listed in the attribute `sparse` of their module, by name in `model`."""
    return {
        f"{path}.{name}".removeprefix("."): module.get_parameter(name)
        for path, module in model.named_modules()
        for name in getattr(module, "sparse", ())
    }


@torch.no_grad()
def shrink(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Proximal step of the L1 penalty, after a step of `optimizer` (proximal AdamW, Yun 2021).

    A <- sign(A) max(|A| - lr l1 / (sqrt(v) + eps), 0) with v the bias-corrected second moment: a
    soft threshold in the metric of the optimizer. An entry stays at exactly 0 while its mean
    gradient, after clipping, is below l1. A hook of the optimizer's step; no change where
    `found_inf` skipped the step.
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
            # `where`, not a product: before the first step the threshold is NaN
            parameter.copy_(shrunk if skip is None else torch.where(skip > 0, parameter, shrunk))
