"""Training as a generator: a script prints, a panel plots, and to cancel is to stop iterating."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from napari_shiftvae.core.classes import UNKNOWN, Labels
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.model import Encoded, ShiftVAE
from napari_shiftvae.core.smoothness import Neighbourhood, settle
from napari_shiftvae.core.windows import Windows, prior_centre

REPORT_EVERY_S = 0.1
STEPS_BY_DEFAULT = 600
FEWEST_PATCHES = 16


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    epochs : int, optional
        Passes over all patches; by default as many as make about 600 steps, from 20 to 400.
    batch_size : int
        Patches in one step; fewer are taken where there are less than eight times as many.
    learning_rate : float
        Peak rate of Adam; it rises over the first tenth of the steps and falls as a cosine.
    kl_shift, kl_content : float
        Weights of the Kullback-Leibler terms of pose and content latents; 1 is the evidence
        lower bound.
    smoothness : float
        Weight of the condition that the latents of neighbours are alike, as `smoothness` defines
        it; 0 leaves it out, and 1 is a start on any data.
    edge_preserving : bool
        Whether that condition lets sharp walls stand; else it blurs them.
    seed : int
        Seed of the initial weights, the batches and the noise.
    """

    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float = 2e-3
    kl_shift: float = 1.0
    kl_content: float = 1.0
    smoothness: float = 0.0
    edge_preserving: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 2, 65_536),
            ("learning_rate", 1e-6, 0.1),
            ("kl_shift", 0.0, 1e3),
            ("kl_content", 0.0, 1e3),
            ("smoothness", 0.0, 1e3),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value}: choose one from {low} to {high}.")

    def batch_for(self, count: int) -> int:
        """Patches per step for a number of patches."""
        return min(self.batch_size, max(16, count // 8))

    def epochs_for(self, count: int) -> int:
        """Epochs for a number of patches."""
        if self.epochs is not None:
            return self.epochs
        steps = math.ceil(count / self.batch_for(count))
        return min(400, max(20, math.ceil(STEPS_BY_DEFAULT / steps)))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainReport:
    """State of the training at one moment.

    Attributes
    ----------
    epoch, epochs, step : int
        Finished epochs, epochs to do, finished steps.
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
        Time spent training, and expected until the end.
    latents : (N, K) float32 array
        Newest posterior mean of each patch, NaN where it was not seen yet.
    shift_yx_px : (N, 2) float32 array
        Newest shift of each patch from its pick, (y, x) pixels.
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


@dataclass(kw_only=True, eq=False)
class TrainState:
    """What training needs to go on where it stopped; changed in place by `train`."""

    optimiser: torch.optim.Adam
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0
    order: list[torch.Tensor] = field(default_factory=list)


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
    optimiser = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True
    )
    return TrainState(
        optimiser=optimiser, generator=torch.Generator(device).manual_seed(config.seed)
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
    weights (O. Rybkin, K. Daniilidis, S. Levine, arXiv:2006.13202).

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
        If there are too few patches, or neighbours are needed and not given.

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
    state = state or start(model, config)
    batch, epochs = config.batch_for(count), config.epochs_for(count)
    steps_per_epoch = math.ceil(count / batch)
    total = epochs * steps_per_epoch
    device = model.variance.device
    remainder = torch.from_numpy(patches.remainder_yx_px).float()
    centre, weight = prior_centre(model, patches), patches.weight
    label = torch.full((count,), UNKNOWN) if labels is None else labels.number
    latents = torch.full((count, model.config.latent_dim), torch.nan)
    variance = torch.full_like(latents, torch.nan)
    shift = torch.full(remainder.shape, torch.nan)
    began, first_step = time.perf_counter(), state.step
    spent, reported = state.seconds, began
    model.train()
    while state.step < total:
        if not state.order:
            if config.smoothness and neighbours is not None:
                shuffled = neighbours.shuffled(state.generator)
            else:
                shuffled = torch.randperm(count, generator=state.generator, device=device).cpu()
            if model.classes is not None and 2 * state.step >= total and variance.isfinite().all():
                # Before, the latents are not yet those that tell classes apart.
                model.classes.follow(latents.to(device), variance.to(device), label.to(device))
            state.order = list(shuffled.tensor_split(steps_per_epoch))
        rows = state.order.pop(0)
        pairs = None
        if config.smoothness and neighbours is not None:
            pairs = neighbours.pairs_among(rows)
        for group in state.optimiser.param_groups:
            group["lr"] = _rate(state.step / total) * config.learning_rate
        terms, encoded = _step(
            model,
            patches.gather(rows.numpy()).to(device),
            config,
            state,
            centre=centre[rows].to(device),
            weight=None if weight is None else weight[rows].to(device),
            pairs=pairs,
            label=label[rows].to(device),
        )
        if model.classes is not None:
            variance[rows] = (2 * encoded.log_sd_z.detach()).exp().cpu()
        latents[rows] = encoded.z.detach().cpu()
        shift[rows] = model.placed(encoded.pose)[0].detach().cpu() - remainder[rows]
        state.step += 1
        now = time.perf_counter()
        state.seconds = spent + now - began
        if now - reported < REPORT_EVERY_S and state.step < total:
            continue
        reported = now
        per_step = (now - began) / (state.step - first_step)
        loss, mean_square, kl_shift, *kl_latents = terms.tolist()
        yield TrainReport(
            epoch=state.step // steps_per_epoch,
            epochs=epochs,
            step=state.step,
            loss=loss,
            reconstruction=math.sqrt(mean_square),
            kl_shift=kl_shift,
            kl_latents=np.array(kl_latents),
            seconds=state.seconds,
            seconds_left=per_step * (total - state.step),
            latents=latents.numpy().copy(),
            shift_yx_px=shift.numpy().copy(),
        )


def _step(
    model: ShiftVAE,
    x: torch.Tensor,
    config: TrainConfig,
    state: TrainState,
    *,
    centre: torch.Tensor,
    weight: torch.Tensor | None,
    pairs: tuple[torch.Tensor, torch.Tensor] | None,
    label: torch.Tensor,
) -> tuple[torch.Tensor, Encoded]:
    """One step of Adam; returns loss, mean square residual, KL of pose and of each latent."""
    encoded = model.encode(x)
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
    pose_dim = model.config.pose_dim
    noise = torch.randn(
        len(x), pose_dim + encoded.z.shape[1], generator=state.generator, device=x.device
    )
    pose = encoded.pose + encoded.log_sd_pose.exp() * noise[:, :pose_dim]
    z = encoded.z + encoded.log_sd_z.exp() * noise[:, pose_dim:]
    residual, looked_at = model.residual(z, pose, x, state.generator)
    square = residual.square()
    if weight is not None:
        square = square * weight.expand_as(x).flatten(1)[:, looked_at]
    mean_square = square.mean()
    # Slow enough to average over batches, fast enough to follow the fall of the residual.
    model.variance.lerp_(mean_square.detach(), max(0.1, 1 / (1 + state.step)))
    prior = model.pose_prior
    kl_shift = _kl((encoded.pose - centre) / prior, encoded.log_sd_pose - prior.log())
    kl_latents = _kl(encoded.z, encoded.log_sd_z)
    pixels = x[0].numel()
    # The constant part makes the reported loss the bound itself.
    likelihood = (
        0.5 * pixels * (mean_square / model.variance + torch.log(2 * math.pi * model.variance))
    )
    kl_content = kl_latents.sum()
    if model.classes is not None and model.classes.ready:
        kl_content, wrong = model.classes.divergence(encoded.z, encoded.log_sd_z, label)
        extra = extra + wrong
    loss = likelihood + config.kl_shift * kl_shift.sum() + config.kl_content * kl_content
    state.optimiser.zero_grad(set_to_none=True)
    (loss + extra).backward()
    state.optimiser.step()
    terms = torch.stack([loss, mean_square, kl_shift.sum(), *kl_latents]).detach()
    return terms, encoded


def _kl(mean: torch.Tensor, log_sd: torch.Tensor) -> torch.Tensor:
    """KL divergence from N(0, 1), averaged over the batch: (B, K) to (K,)."""
    return (0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd).mean(dim=0)


def _rate(progress: float) -> float:
    """Fraction of the peak rate: linear rise over a tenth, then a cosine to one per cent."""
    if progress < 0.1:
        return 0.1 + 9 * progress
    return 0.01 + 0.495 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
