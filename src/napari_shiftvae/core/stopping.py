"""How long to train: the rate stands still halfway while patches that are held out still gain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CHECK_EVERY", "MEMORY", "MOST", "WORTH_NAT", "Ending", "Pace", "hold_out"]

CHECK_EVERY = 60  # steps
WORTH_NAT = 0.2  # per patch and check: what less is gained is not worth waiting for
PATIENCE = 3  # checks without such a gain; of noisy patches, latents are at times slow to unfold
MOST = 3  # times the least number of steps
MEMORY = 0.98  # of the mean of the decoder's weights, for each step: its noise is averaged out


def hold_out(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows to judge by, each in order.

    Examples
    --------
    >>> learn, judge = hold_out(10, 0.2, seed=0)
    >>> len(learn), len(judge)
    (8, 2)
    """
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    judge = math.ceil(share * count - 1e-6)
    return shuffled[judge:].sort().values, shuffled[:judge].sort().values


@dataclass(kw_only=True)
class Pace:
    """Where the schedule of the rate stands still; changed in place.

    Half of the least number of steps is made as if that were all. Then the schedule waits until
    the decoder, judged by patches that are held out, gains no more than `WORTH_NAT` in
    `CHECK_EVERY` steps, `PATIENCE` times running, and goes on to its end. So data that are learned
    slowly, such as noisy ones, get more steps, and others none.

    Attributes
    ----------
    waited : int
        Steps for which it stood still.
    waiting, over : bool
        Whether it does, and whether it will no more.
    stale : int
        Checks since the last gain that was worth it.
    loss, gain : float
        Negative evidence of the held-out patches at the last check, and by how much it had become
        less since the one before [nat per patch]; NaN before.
    """

    waited: int = 0
    waiting: bool = False
    over: bool = False
    stale: int = 0
    loss: float = math.nan
    gain: float = math.nan

    def is_due(self, step: int, least: int) -> bool:
        """Whether held-out patches are to be judged after a step, of `least` steps or more."""
        begun = step - self.waited >= least / 2 - PATIENCE * CHECK_EVERY
        return begun and not self.over and step % CHECK_EVERY == 0

    def judge(self, loss: float, step: int, least: int) -> None:
        """Note how the held-out patches do [nat], and wait or not."""
        self.gain, self.loss = self.loss - loss, loss
        self.stale = self.stale + 1 if self.gain <= WORTH_NAT else 0
        if step - self.waited < least / 2:
            return
        self.waiting = self.stale < PATIENCE and self.waited < (MOST - 1) * least
        self.over = not self.waiting


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How long a training is to be by what held-out patches say.

    Attributes
    ----------
    epochs, added : int
        To make, as far as it is known, and by how many that is more than the least.
    held_out : int
        Patches.
    gain_nat : float or None
        What they gained before the last check [nat per patch]; None before.
    decided : bool
        Whether there will be no more of them.
    """

    epochs: int
    added: int
    held_out: int
    gain_nat: float | None
    decided: bool

    @property
    def sentence(self) -> str:
        """The same in words.

        Examples
        --------
        >>> Ending(epochs=24, added=4, held_out=100, gain_nat=0.1, decided=True).sentence
        'Training ended after 24 epochs, 4 more than the least: until 100 held-out patches were \
described no better after 60 steps, three times running.'
        """
        more = f", {self.added} more than the least" if self.added else ", the least"
        ended = f"Training ended after {self.epochs} epochs{more}"
        gain = self.gain_nat or 0.0
        if gain > WORTH_NAT:
            return (
                f"{ended}, though {self.held_out} held-out patches were still described better "
                f"after {CHECK_EVERY} steps: more epochs may help."
            )
        return (
            f"{ended}: {'until' if self.added else 'halfway,'} {self.held_out} held-out patches "
            f"were described no better after {CHECK_EVERY} steps, three times running."
        )
