"""When to end training: a bound on patches that are held out, and a rate that falls in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Plateau", "hold_out", "rate_until_plateau"]

WORTH_NAT = 0.1  # per patch: what less is gained is not worth an epoch
WARM_UP = 60  # steps
SURE = 400  # steps before which no rate falls: of few patches, an epoch is a step or two
FALL = 0.5  # of the steps up to there: how long the rate falls once nothing is gained any more


def hold_out(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows to judge by, each in order.

    Examples
    --------
    >>> learn, judge = hold_out(10, 0.2, seed=0)
    >>> len(learn), len(judge)
    (8, 2)
    """
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    judge = math.ceil(share * count)
    return shuffled[judge:].sort().values, shuffled[:judge].sort().values


@dataclass(kw_only=True)
class Plateau:
    """Waits until the bound on held-out patches gets no better; changed in place.

    Attributes
    ----------
    best : float
        Lowest negative bound so far [nat].
    stale : int
        Epochs since.
    falling_from : int or None
        Step at which the rate began to fall.
    """

    best: float = math.inf
    stale: int = 0
    falling_from: int | None = None

    def after_epoch(
        self, bound: float, *, step: int, per_epoch: int, total: int, patience: int
    ) -> int:
        """Note a negative bound [nat]; return the number of steps to make in all.

        With `patience` epochs of no gain after the first 400 steps, or two thirds of all steps
        made, the rate begins to fall.
        """
        if self.falling_from is not None:
            return total
        self.stale = 0 if bound < self.best - WORTH_NAT or step < SURE else self.stale + 1
        self.best = min(self.best, bound)
        ending = step + per_epoch * math.ceil(FALL * step / per_epoch)
        if self.stale < patience and ending < total:
            return total
        self.falling_from = step
        return min(total, ending)


def rate_until_plateau(step: int, total: int, falling_from: int | None) -> float:
    """Fraction of the peak rate, where the number of steps is not known from the start."""
    if falling_from is None:
        return min(1.0, 0.1 + 0.9 * step / WARM_UP)
    progress = (step - falling_from) / max(1, total - falling_from)
    return 0.01 + 0.495 * (1 + math.cos(math.pi * progress))
