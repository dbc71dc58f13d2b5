"""Training on spectra, in two parts, which can be interrupted and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.paused import paused, taken_up
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.runs import kept_buffers
from napari_shiftvae.core.spectra import Spectra
from napari_shiftvae.core.train import TrainConfig, TrainState, start, train

if TYPE_CHECKING:
    from napari_shiftvae.core.spectra_run import SpectraRun

# A first part of the training in which information is dear puts what spectra have in common into
# as few latents as will do; all at once, two of them share one factor and stay so.
DEAR, DEAR_PART, CHEAPER = 20.0, 0.3, 3.0
# Times those of images by default: the cleanest spectra ask most of the decoder.
EPOCHS = 2
MOST_IN_BATCH = 65_536


@dataclass(kw_only=True, eq=False)
class SpectraTraining:
    """How far a training is; changed in place by `train_spectra`.

    Attributes
    ----------
    model : ShiftVAE
    state : TrainState
        Of the part that is at work.
    config : TrainConfig
        As it was asked for; with smaller batches or rate where that had to be.
    noise_sigma : float
        Of a typical spectrum, in normalised intensity.
    epochs : int
        Of both parts, that are done.
    """

    model: ShiftVAE
    state: TrainState
    config: TrainConfig
    noise_sigma: float
    epochs: int = 0

    @classmethod
    def of(
        cls, model: ShiftVAE, config: TrainConfig, noise_sigma: float, count: int
    ) -> SpectraTraining:
        """Begin, with the number of spectra."""
        if config.epochs is None:
            config = replace(config, epochs=EPOCHS * config.epochs_for(count))
        state = start(model, config)
        return cls(model=model, state=state, config=config, noise_sigma=noise_sigma)

    @classmethod
    def taken_up(
        cls,
        model: ShiftVAE,
        tensors: Mapping[str, Tensor],
        config: TrainConfig,
        *,
        epochs: int,
        device: torch.device,
    ) -> SpectraTraining:
        """Go on where a file left it; the model stays as it is."""
        model, state = taken_up(model, tensors, config, device)
        noise = float(tensors["noise_sigma"])
        return cls(model=model, state=state, config=config, noise_sigma=noise, epochs=epochs)

    def paused(self) -> dict[str, Tensor]:
        """Copy what is needed to take it up again, as a file holds it."""
        buffers = kept_buffers(self.model)
        return paused(self.model, self.state, buffers, self.noise_sigma)


def _hold(snapshot: Callable[[], SpectraRun]) -> Callable[[], SpectraRun]:
    """Make the run at once, which takes little."""
    run = snapshot()
    return lambda: run


def train_spectra(
    training: SpectraTraining,
    spectra: Spectra,
    snapshot: Callable[[], SpectraRun],
) -> Generator[Progress, str | None, None]:
    """Train in two parts, or what is left of them.

    Parameters
    ----------
    training : SpectraTraining
    spectra : Spectra
    snapshot : callable
        Makes a run of what has been learned, in the middle of the training.
    """
    asked = training.config
    # Spectra are small: twice the batch takes hardly longer.
    common = replace(asked, batch_size=min(MOST_IN_BATCH, 2 * asked.batch_size), kl_begin=1.0)
    total = common.epochs_for(len(spectra))
    first = max(1, round(DEAR_PART * total))
    # The second part counts as begun with its first whole epoch.
    begun = training.epochs > first
    for before, epochs, price in ((0, first, DEAR), (first, total - first, CHEAPER)):
        if not epochs or (begun and not before):
            continue
        if before and not begun:
            training.state = start(training.model, common)
        part = replace(common, epochs=epochs, kl_content=min(1e3, price * asked.kl_content))
        for report in train(training.model, spectra, part, training.state):
            if report.config is not None:  # the second part goes on with it
                common = replace(
                    common,
                    batch_size=report.config.batch_size,
                    learning_rate=report.config.learning_rate,
                )
                training.config = replace(
                    asked,
                    batch_size=max(1, common.batch_size // 2),
                    learning_rate=common.learning_rate,
                )
            training.epochs = before + report.epoch
            whole = not before or report.epoch > 0
            sent = yield Progress(
                stage="train",
                fraction=training.epochs / total,
                message=f"Training: epoch {training.epochs} of {total}",
                index=spectra.index,
                report=replace(report, epoch=training.epochs, epochs=total),
                hold=partial(_hold, snapshot) if whole else None,
            )
            if sent == "stop":
                return
        training.epochs = before + epochs
