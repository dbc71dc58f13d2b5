"""How to train a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_shiftvae.core.errors import InputError

STEPS_BY_DEFAULT = 600
FEW_PATCHES, STEPS_OF_FEW = 1000, 1000
MOST_STEPS = 4000  # by default; of a hundred thousand patches, each need not be seen 20 times
FEWEST_PATCHES = 16
FEWEST_TO_JUDGE = 500  # of fewer, none can be spared, and judged by a dozen nothing got better
HELD_OUT, MOST_HELD_OUT = 20, 64  # one of 20 patches, but no more than 64


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    epochs : int, optional
        Passes over all patches. By default at least as many as make about 600 steps, or 1,000 of
        fewer than 1,000 patches, from 20 to 400 (fewer than 20 where 4,000 steps are over before);
        and up to three times as many, as patches that are held out ask for (`stopping.Pace`).
    batch_size : int
        Patches in one step; fewer are taken where there are less than eight times as many.
    learning_rate : float
        Peak rate of Adam; it rises over the first tenth of the steps and falls as a cosine.
    kl_shift, kl_content : float
        Weights of the Kullback-Leibler terms of pose and content latents; 1 is the evidence
        lower bound.
    kl_begin : float
        Part of `kl_content` that counts at first, so that faint latents are learned before they
        are paid for; it rises to the whole over the first half of the steps, or 300. 1 for none.
    smoothness : float
        Weight of the condition that the latents of neighbours are alike, as `smoothness` defines
        it; 0 leaves it out, and 1 is a start on any data.
    edge_preserving : bool
        Whether that condition lets sharp walls stand; else it blurs them.
    validation : float, optional
        Share of the patches that are held out: the weights never learn from them, and the bound on
        them is reported after each epoch. By default a twentieth, 64 at most, of 500 patches and
        more where `epochs` is not given, and else none. Without any, the least number of epochs
        is made.
    seed : int
        Seed of the initial weights, the batches and the noise.
    """

    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float = 4e-3
    kl_shift: float = 1.0
    kl_content: float = 1.0
    kl_begin: float = 0.1
    smoothness: float = 0.0
    edge_preserving: bool = True
    validation: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 2, 65_536),
            ("learning_rate", 1e-6, 0.1),
            ("kl_shift", 0.0, 1e3),
            ("kl_content", 0.0, 1e3),
            ("kl_begin", 0.0, 1.0),
            ("smoothness", 0.0, 1e3),
            ("validation", 0.0, 0.5),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value}: choose one from {low} to {high}.")

    def batch_for(self, count: int) -> int:
        """Patches per step for a number of patches."""
        return min(self.batch_size, max(16, count // 8))

    def epochs_for(self, count: int) -> int:
        """Epochs for a number of patches, or the least where held-out patches decide."""
        if self.epochs is not None:
            return self.epochs
        steps = math.ceil(count / self.batch_for(count))
        fewest = min(20, math.ceil(MOST_STEPS / steps))
        wanted = STEPS_OF_FEW if count < FEW_PATCHES else STEPS_BY_DEFAULT
        return min(400, max(fewest, math.ceil(wanted / steps)))

    def share_for(self, count: int) -> float:
        """Share of a number of patches that is held out."""
        if self.validation is not None:
            return self.validation
        if self.epochs is not None or count < FEWEST_TO_JUDGE:
            return 0.0
        return min(MOST_HELD_OUT, count // HELD_OUT) / count

    def is_open(self, count: int) -> bool:
        """Whether held-out patches decide how long a number of patches is trained on."""
        return self.epochs is None and self.share_for(count) > 0
