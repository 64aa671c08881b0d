"""How far a step goes: the optimizer, its learning rate, and the clip of the gradient."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from prffn.config import TrainingConfig


def adam(model: nn.Module, config: TrainingConfig) -> torch.optim.Adam:
    """Adam for a network that is on its device; on a GPU one kernel takes the step, where launches are what costs."""
    fused = next(model.parameters()).device.type == "cuda"
    return torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas, fused=fused or None)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of step 0, 1, ...: halved every `halve_every` steps (our choice: RCAN's), or, for short runs
    (our choice), one cycle: a linear warm-up over a tenth of the steps, then half a cosine down to zero."""
    if config.schedule == "halving":
        return config.learning_rate * 0.5 ** (step // config.halve_every)
    warm_up = max(1, config.steps // 10)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    done = (step - warm_up) / max(1, config.steps - warm_up)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Clipping:
    """Clips the gradient to a quantile of the norms of all steps so far, this one's among them.

    The rule of AutoClip (Seetharaman et al., MLSP 2020): it needs no threshold in the units of a loss, so that all
    losses are treated alike.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.quantile = config.clip_quantile
        self.norms = torch.empty(config.steps if self.quantile < 1 else 0, device=device)

    def load(self, norms: Tensor | None) -> None:
        """Takes over the norms of the steps before, from a checkpoint."""
        if norms is not None:
            self.norms[: len(norms)] = norms

    def so_far(self, step: int) -> Tensor | None:
        """The norms of the first `step` steps; None if nothing is clipped."""
        return self.norms[:step].clone() if self.quantile < 1 else None

    def clip(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        """Clips the gradients of step 0, 1, ... in place, without a look at the norm: a GPU would wait."""
        if self.quantile == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        self.norms[step] = norm
        limit = torch.quantile(self.norms[: step + 1], self.quantile)
        torch._foreach_mul_(gradients, (limit / norm.clamp(min=1e-30)).clamp(max=1.0))
