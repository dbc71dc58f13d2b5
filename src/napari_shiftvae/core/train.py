"""Training as a generator: a script prints, a panel plots, and to cancel is to stop iterating."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_shiftvae.core.adam import Adam
from napari_shiftvae.core.band import in_band
from napari_shiftvae.core.bound import Batch, evidence, gathered, judged, terms
from napari_shiftvae.core.classes import UNKNOWN, Labels
from napari_shiftvae.core.decoders import lean_to_prior
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.model import Encoded, ShiftVAE
from napari_shiftvae.core.recovery import LostLossError, recovering
from napari_shiftvae.core.smoothness import Neighbourhood, settle
from napari_shiftvae.core.stopping import MEMORY, Pace, hold_out
from napari_shiftvae.core.train_config import FEWEST_PATCHES, TrainConfig
from napari_shiftvae.core.windows import Windows, prior_centre

__all__ = [
    "FEWEST_PATCHES",
    "TrainConfig",
    "TrainReport",
    "TrainState",
    "start",
    "train",
]

REPORT_EVERY_S = 0.1
LONGEST_RISE = 300  # steps over which latents come to their whole price
WHILE_WAITING = 0.3  # of that price: cheap latents leave poor arrangements


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainReport:
    """State of the training at one moment.

    Attributes
    ----------
    epoch, epochs, step : int
        Finished epochs, epochs to do, finished steps.
    pace : Pace
        Whether `epochs` may become more.
    loss : float
        Negative evidence lower bound per patch [nat].
    reconstruction : float
        Root mean square residual over the standard deviation of the patches' intensity.
    kl_shift : float
        Kullback-Leibler divergence of the pose (shift, and rotation and scale where the model has
        them) from its prior, per patch [nat].
    kl_latents : (K,) float array
        The same for each content latent [nat].
    seconds, seconds_left : float
        Time spent training, without what is done with the reports, and expected until the end;
        more where `epochs` become more.
    latents : (N, K) float32 array
        Newest posterior mean of each patch, NaN where it was not seen yet.
    shift_yx_px : (N, 2) float32 array
        Newest shift of each patch from its pick, (y, x) pixels.
    validation : float
        The loss on the patches held out, after the last whole epoch [nat]; NaN without any.
    config : TrainConfig or None
        Settings that training goes on with, where they had to be changed: smaller batches after
        memory ran out, a smaller rate after the loss was lost.
    mishaps : tuple of str
        What happened, one sentence each.
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    reconstruction: float
    kl_shift: float
    kl_latents: NDArray[np.float64]
    seconds: float
    seconds_left: float
    latents: NDArray[np.float32]
    shift_yx_px: NDArray[np.float32]
    pace: Pace = field(default_factory=lambda: Pace(over=True))
    validation: float = math.nan
    config: TrainConfig | None = None
    mishaps: tuple[str, ...] = ()

    @property
    def of_epochs(self) -> str:
        """How far it is, in words."""
        return f"{self.epoch} of {self.epochs}{'' if self.pace.over else ' or more'}"


@dataclass(kw_only=True, eq=False)
class TrainState:
    """What training needs to go on where it stopped; changed in place by `train`."""

    optimiser: Adam
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0
    learned_from: int = 0  # patches
    order: list[torch.Tensor] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    averages: list[torch.Tensor] = field(default_factory=list)  # of the decoder's weights
    validation: float = math.nan
    mishaps: list[str] = field(default_factory=list)


def start(model: ShiftVAE, config: TrainConfig) -> TrainState:
    """Prepare the training of a model.

    Parameters
    ----------
    model : ShiftVAE
    config : TrainConfig

    Returns
    -------
    TrainState
    """
    device = model.variance.device
    return TrainState(
        optimiser=Adam.of(model.parameters()),
        generator=torch.Generator(device).manual_seed(config.seed),
    )


def train(
    model: ShiftVAE,
    patches: Windows,
    config: TrainConfig,
    state: TrainState | None = None,
    *,
    neighbours: Neighbourhood | None = None,
    labels: Labels | None = None,
) -> Iterator[TrainReport]:
    """Maximise the evidence lower bound, reporting every tenth of a second and at the end.

    The noise variance follows the mean square residual, which maximises the bound for given
    weights (O. Rybkin, K. Daniilidis, S. Levine, arXiv:2006.13202). Where memory runs out or the
    loss is lost, training goes on from its last good state as `recovery` tells.

    Parameters
    ----------
    model : ShiftVAE
        Changed in place.
    patches : Patches or Spectra
        N windows.
    config : TrainConfig
    state : TrainState, optional
        From `start`, to go on later where the iteration stopped.
    neighbours : Neighbourhood, optional
        Which of the N are compared; needed where `config` has some smoothness.
    labels : Labels, optional
        Classes that are known, for a model that has classes.

    Yields
    ------
    TrainReport

    Raises
    ------
    InputError
        If there are too few patches, neighbours are needed and not given, or training fails with
        the smallest batches or steps, too.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_shiftvae.core.model import ModelConfig
    >>> from napari_shiftvae.core.patches import stack_patches
    >>> stack = np.random.default_rng(0).normal(size=(32, 16, 16)).astype(np.float32)
    >>> model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8))
    >>> for report in train(model, stack_patches(stack), TrainConfig(epochs=2)):
    ...     pass
    >>> report.epoch
    2
    """
    count = len(patches)
    _check(count, config, neighbours)
    begun = state or start(model, config)
    yield from recovering(
        lambda settings: _training(
            model, patches, settings, begun, neighbours=neighbours, labels=labels
        ),
        model,
        begun,
        config,
        count,
    )


def _training(
    model: ShiftVAE,
    patches: Windows,
    config: TrainConfig,
    state: TrainState,
    *,
    neighbours: Neighbourhood | None,
    labels: Labels | None,
) -> Iterator[TrainReport]:
    """Train on from a state to the end."""
    model, patches = in_band(model, patches)
    count = len(patches)
    learn, judge = hold_out(count, config.share_for(count), config.seed)
    state.learned_from = len(learn)
    steps_per_epoch = math.ceil(len(learn) / config.batch_for(count))
    least, pace = config.epochs_for(count) * steps_per_epoch, state.pace
    if not config.is_open(count):
        pace = state.pace = Pace(over=True)
    device = model.variance.device
    remainder = torch.from_numpy(patches.remainder_yx_px).float()
    centre = prior_centre(model, patches).to(device)
    label = (torch.full((count,), UNKNOWN) if labels is None else labels.number).to(device)
    latents = torch.full((count, model.config.latent_dim), torch.nan)
    variance = torch.full_like(latents, torch.nan)
    shift = torch.full(remainder.shape, torch.nan)
    began, first_step = time.perf_counter(), state.step
    spent, reported, away = state.seconds, began, 0.0
    model.train()
    while state.step < least + pace.waited:
        if not state.order:
            halfway = 2 * (state.step - pace.waited) >= least
            if model.classes is not None and halfway and variance[learn].isfinite().all():
                # Before, the latents are not yet those that tell classes apart.
                z, of_z, known = (one[learn].to(device) for one in (latents, variance, label))
                model.classes.follow(z, of_z, known)
            shuffled = _shuffled(learn, state.generator, neighbours if config.smoothness else None)
            state.order = list(shuffled.tensor_split(steps_per_epoch))
        rows = state.order.pop(0)
        found, encoded = _step(
            model,
            gathered(patches, rows, centre, label),
            config,
            state,
            least=least,
            pairs=_pairs(rows, neighbours if config.smoothness else None, device),
        )
        if not math.isfinite(found[0]):
            raise LostLossError
        if model.classes is not None:
            variance[rows] = (2 * encoded.log_sd_z.detach()).exp().cpu()
        latents[rows] = encoded.z.detach().cpu()
        shift[rows] = model.placed(encoded.pose)[0].detach().cpu() - remainder[rows]
        state.step += 1
        _keep_pace(model, patches, judge, state, least)
        total = least + pace.waited
        if len(judge) and not state.order:
            state.validation, latents[judge], pose = judged(model, patches, judge)
            shift[judge] = model.placed(pose)[0] - remainder[judge]
        now = time.perf_counter()
        state.seconds = spent + now - began - away
        if now - reported < REPORT_EVERY_S and state.step < total:
            continue
        reported = now
        per_step = (now - began) / (state.step - first_step)
        loss, mean_square, kl_shift, *kl_latents = found.tolist()
        yield TrainReport(
            epoch=state.step // steps_per_epoch,
            epochs=total // steps_per_epoch,
            pace=replace(pace),
            step=state.step,
            loss=loss,
            reconstruction=math.sqrt(mean_square),
            kl_shift=kl_shift,
            kl_latents=np.array(kl_latents),
            seconds=state.seconds,
            seconds_left=per_step * (total - state.step),
            latents=latents.numpy().copy(),
            shift_yx_px=shift.numpy().copy(),
            validation=state.validation,
        )
        away += time.perf_counter() - now


def _step(
    model: ShiftVAE,
    batch: Batch,
    config: TrainConfig,
    state: TrainState,
    *,
    least: int,
    pairs: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, Encoded]:
    """One step of Adam; returns loss, mean square residual, KL of pose and of each latent."""
    encoded = model.encode(batch.x, batch.given)
    extra: torch.Tensor | float = 0.0
    if pairs is not None:
        z, log_sd, extra = settle(
            encoded.z,
            encoded.log_sd_z,
            pairs,
            weight=config.smoothness,
            edge_preserving=config.edge_preserving,
        )
        encoded = encoded._replace(z=z, log_sd_z=log_sd)
    price = _price(state, least, config)
    found = terms(
        model,
        batch,
        encoded,
        state.generator,
        kl_weights=(config.kl_shift, price * config.kl_content),
        step=state.step,
    )
    state.optimiser.clear()
    (found.loss + found.wrong + extra).backward()
    # The coordinate decoder's features have to be sharp in the image; spectra and classes change
    # more with the latents: peaks ten times as wide as others missed the bound.
    smooth = model.config.decoder == "fourier" and model.config.dimensions == 2
    if smooth and not model.config.classes:
        lean_to_prior(model.decoder.net, state.learned_from)
    state.optimiser.step(_rate(state, least) * config.learning_rate)
    bound = found.loss + (1 - price) * config.kl_content * found.kl_content
    numbers = [bound, found.mean_square, found.kl_pose, *found.kl_latents]
    return torch.stack(numbers).detach(), encoded


def _check(count: int, config: TrainConfig, neighbours: Neighbourhood | None) -> None:
    if count < FEWEST_PATCHES:
        raise InputError(
            f"There are {count} patches and the model needs at least {FEWEST_PATCHES}: "
            "find or click more atoms."
        )
    if config.smoothness and neighbours is None:
        raise InputError(
            f"smoothness is {config.smoothness:g} and no neighbours are known: give them, or set "
            "it to 0."
        )


def _shuffled(
    learn: torch.Tensor, generator: torch.Generator, neighbours: Neighbourhood | None
) -> torch.Tensor:
    """Put the rows to learn from in the order of one epoch; neighbours close together."""
    if neighbours is not None:
        every = neighbours.shuffled(generator)
        return every[torch.isin(every, learn)]
    return learn[torch.randperm(len(learn), generator=generator, device=generator.device).cpu()]


def _pairs(
    rows: torch.Tensor, neighbours: Neighbourhood | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Neighbours within a batch, of those that are compared."""
    if neighbours is None:
        return None
    first, second = neighbours.pairs_among(rows)
    return first.to(device), second.to(device)


def _keep_pace(
    model: ShiftVAE, patches: Windows, judge: torch.Tensor, state: TrainState, least: int
) -> None:
    """Average the decoder's weights after a step, and decide by them whether to wait."""
    pace = state.pace
    if pace.over:
        return
    pace.waited += pace.waiting
    weights = [parameter.detach() for parameter in model.decoder.parameters()]
    state.averages = state.averages or [weight.clone() for weight in weights]
    for average, weight in zip(state.averages, weights, strict=True):
        average.lerp_(weight, 1 - MEMORY)
    if pace.is_due(state.step, least):
        pace.judge(evidence(model, patches, judge, state.averages), state.step, least)
    if pace.over:
        state.averages = []


def _rate(state: TrainState, least: int) -> float:
    """Fraction of the peak rate: linear rise over a tenth, then a cosine to one per cent.

    While the schedule waits the rate is at its peak.
    """
    if state.pace.waiting:
        return 1.0
    progress = (state.step - state.pace.waited) / least
    if progress < 0.1:
        return 0.1 + 9 * progress
    return 0.01 + 0.495 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def _price(state: TrainState, least: int, config: TrainConfig) -> float:
    """Fraction of the weight of the latents' divergence that counts in this step."""
    if state.pace.waiting:
        return max(config.kl_begin, WHILE_WAITING)
    rise = min(LONGEST_RISE, least // 2)
    return min(1.0, config.kl_begin + (1 - config.kl_begin) * state.step / max(1, rise))
