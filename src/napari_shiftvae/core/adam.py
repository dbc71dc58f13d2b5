"""Adam, without what `torch.optim` loads for its optimisers: a compiler, for a second or two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS = (0.9, 0.99)
EPSILON = 1e-8

__all__ = ["Adam"]


@dataclass(kw_only=True, eq=False)
class Adam:
    """Moments of the gradients, and steps by them (D. P. Kingma, J. Ba, arXiv:1412.6980).

    Attributes
    ----------
    parameters : list of tensor
        What is trained; changed in place.
    mean, square : list of tensor
        First and second moment for each.
    steps : list of tensor
        How many steps each has made.

    Examples
    --------
    >>> parameter = torch.ones(1, requires_grad=True)
    >>> optimiser = Adam.of([parameter])
    >>> parameter.square().sum().backward()
    >>> optimiser.step(0.5)
    >>> parameter.data
    tensor([0.5000])
    """

    parameters: list[Tensor]
    mean: list[Tensor] = field(default_factory=list)
    square: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, parameters: Iterable[Tensor]) -> Adam:
        """Begin with parameters that have not been stepped yet."""
        every = list(parameters)
        return cls(
            parameters=every,
            mean=[torch.zeros_like(one, requires_grad=False) for one in every],
            square=[torch.zeros_like(one, requires_grad=False) for one in every],
            steps=[torch.zeros((), device=one.device) for one in every],
        )

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move each parameter that has a gradient.

        Parameters
        ----------
        rate : float
            Learning rate.
        """
        used = [at for at, one in enumerate(self.parameters) if one.grad is not None]
        adam(
            [self.parameters[at] for at in used],
            [gradient for at in used if (gradient := self.parameters[at].grad) is not None],
            [self.mean[at] for at in used],
            [self.square[at] for at in used],
            [],
            [self.steps[at] for at in used],
            fused=True,
            foreach=False,
            has_complex=False,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
