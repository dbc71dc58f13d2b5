"""Training that goes on where memory runs out or the loss is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_shiftvae.core.errors import OUT_OF_MEMORY, InputError, is_out_of_memory, tell
from napari_shiftvae.core.stopping import Pace, hold_out

if TYPE_CHECKING:
    from napari_shiftvae.core.model import ShiftVAE
    from napari_shiftvae.core.train import TrainReport, TrainState
    from napari_shiftvae.core.train_config import TrainConfig

__all__ = ["LostLossError", "recovering"]

COPY_EVERY_S = 2.0  # of training; a copy takes about a millisecond
SMALLER_STEP = 0.25
MOST_RESTARTS = 6
SMALLEST_BATCH = 2
MOMENTS = ("mean", "square", "steps")  # of `Adam`


class LostLossError(ArithmeticError):
    """The loss of a step is not a finite number."""


def recovering(
    attempt: Callable[[TrainConfig], Iterator[TrainReport]],
    model: ShiftVAE,
    state: TrainState,
    config: TrainConfig,
    count: int,
) -> Iterator[TrainReport]:
    """Train, and take training up again from its last good state where it fails.

    Where memory runs out, batches are halved; where the loss is lost, which steps that are too
    large bring about, the learning rate becomes a quarter, and if the last good state leads there
    again, training starts from where it began. Each is said in a warning and in the reports.

    Parameters
    ----------
    attempt : callable
        Trains `model` on from `state` with the settings that it is given.
    model : ShiftVAE
    state : TrainState
    config : TrainConfig
    count : int
        Number of patches.

    Yields
    ------
    TrainReport
        With the settings as they are by then, once they have changed.

    Raises
    ------
    InputError
        If it fails with the smallest batches or the smallest steps, too.
    """
    first = good = _Copy.of(model, state)
    restarts = 0
    while True:
        try:
            for report in attempt(config):
                changed = replace(report, config=config, mishaps=tuple(state.mishaps))
                yield changed if state.mishaps else report
                if state.seconds - good.seconds >= COPY_EVERY_S:
                    newer = _Copy.of(model, state)
                    good = newer if newer.finite else good
        except LostLossError:
            problem = "lost"
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = "memory"
        else:
            return
        # Outside of the handler: what it caught holds on to the memory of the failed step.
        if problem == "lost":
            restarts += 1
            config, sentence = _smaller_step(config, restarts)
            good.restore(model, state)
            good = first
        else:
            good.restore(model, state)
            config, sentence = _smaller_batches(config, count, state)
            if model.variance.device.type == "cuda":
                torch.cuda.empty_cache()
        state.mishaps.append(sentence)
        tell(sentence, stacklevel=2)


def _smaller_step(config: TrainConfig, restarts: int) -> tuple[TrainConfig, str]:
    rate = SMALLER_STEP * config.learning_rate
    if restarts > MOST_RESTARTS or rate < 1e-6:
        raise InputError(
            f"The loss is no finite number, even with a learning rate of {config.learning_rate:.2g}"
            ": look for extreme values in the image, or choose another patch size or seed."
        )
    sentence = (
        "The loss was no finite number: training went back to its last good state and goes on "
        f"with a learning rate of {rate:.2g} instead of {config.learning_rate:.2g}."
    )
    return replace(config, learning_rate=rate), sentence


def _smaller_batches(config: TrainConfig, count: int, state: TrainState) -> tuple[TrainConfig, str]:
    """Halve the batches; the state goes on at the beginning of its epoch."""
    old = config.batch_for(count)
    new = old // 2
    if new < SMALLEST_BATCH:
        raise InputError(OUT_OF_MEMORY)
    learned = len(hold_out(count, config.share_for(count), config.seed)[0])
    before, after = math.ceil(learned / old), math.ceil(learned / new)
    state.order = []
    state.step = state.step // before * after
    # As many epochs as before, which by default depend on the batches, and as it stands by now.
    epochs = config.epochs_for(count) + state.pace.waited // before
    validation = config.share_for(count)
    smaller = replace(config, batch_size=new, epochs=epochs, validation=validation)
    return smaller, f"Memory ran out: training goes on with batches of {new} instead of {old}."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Copy:
    """Model and state of its training between two steps."""

    weights: dict[str, torch.Tensor]
    moments: dict[str, list[torch.Tensor]]
    generator: torch.Tensor
    step: int
    seconds: float
    order: list[torch.Tensor]
    pace: Pace
    averages: list[torch.Tensor]
    validation: float

    @classmethod
    def of(cls, model: ShiftVAE, state: TrainState) -> _Copy:
        return cls(
            weights={name: value.clone() for name, value in model.state_dict().items()},
            moments={name: _clones(getattr(state.optimiser, name)) for name in MOMENTS},
            generator=state.generator.get_state(),
            step=state.step,
            seconds=state.seconds,
            order=list(state.order),
            pace=replace(state.pace),
            averages=_clones(state.averages),
            validation=state.validation,
        )

    @property
    def finite(self) -> bool:
        return all(bool(value.isfinite().all()) for value in self.weights.values())

    def restore(self, model: ShiftVAE, state: TrainState) -> None:
        """Put both back, but for the time that was spent."""
        model.load_state_dict(self.weights)
        for name, tensors in self.moments.items():
            # clones: the optimiser changes in place what it is given
            setattr(state.optimiser, name, _clones(tensors))
        state.generator.set_state(self.generator)
        state.step, state.order = self.step, list(self.order)
        state.pace, state.averages = replace(self.pace), _clones(self.averages)
        state.validation = self.validation


def _clones(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [one.clone() for one in tensors]
