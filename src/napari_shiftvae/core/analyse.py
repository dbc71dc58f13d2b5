"""The one path from an image to results; command line and dock both take it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_shiftvae.core.classes import Labels, class_of, with_classes
from napari_shiftvae.core.computer import choose_device, peak_memory_mb, spare_one_core
from napari_shiftvae.core.conclude import conclude
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.finding import find_picks, patch_size_for
from napari_shiftvae.core.gauge import fix_gauge
from napari_shiftvae.core.given import Told, given_names, some_patches, with_given
from napari_shiftvae.core.images import (
    MicroscopeImage,
    as_float_image,
    checksum,
    masked_sentence,
)
from napari_shiftvae.core.infer import Fit, encode, refining
from napari_shiftvae.core.manifold import patches_of
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import Patches, extract_patches
from napari_shiftvae.core.paused import pause, resumed
from napari_shiftvae.core.polish import polish
from napari_shiftvae.core.progress import Clock, Progress, finish
from napari_shiftvae.core.runs import Run, Training
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.smooth_refine import refine_together
from napari_shiftvae.core.smoothness import Neighbourhood, neighbourhood
from napari_shiftvae.core.spectrum import power_spectrum
from napari_shiftvae.core.stopping import Ending, hold_out
from napari_shiftvae.core.train import TrainConfig, TrainReport, start, train

__all__ = ["Progress", "analyse", "finish"]

MOST_SHOWN = 200  # atoms that a snapshot has results of: it is made while one waits for training
# Of the distance between neighbours. Picks are good to a pixel or so; a wide prior would let the
# shift stand for the place of one sublattice within the other.
SHIFT_PRIOR = 0.05


def analyse(
    image: MicroscopeImage,
    config: AnalysisConfig,
    *,
    positions_yx: ArrayLike | None = None,
    given: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    resume: Run | None = None,
    tell_masked: bool = True,
) -> Generator[Progress, str | None, Run]:
    """Find atoms, train, refine and read the results.

    Send ``"stop"`` into the generator to end training at once, or at its first report where it has
    not begun, and go on with what was learned; stop iterating to cancel.

    Parameters
    ----------
    image : MicroscopeImage
    config : AnalysisConfig
    positions_yx : (M, 2) array-like, optional
        Picks (y, x) [px] to use instead of finding atoms.
    given : (M,) array-like of str or int, optional
        Class of each of these picks, such as its sublattice; "" for those to set aside. The model
        is conditional on it: every class has patterns and a cage of its own.
    labels : (M,) array-like of int or str, optional
        Of the classes that are learned with the model, that of each pick, from 0; -1 where it is
        not known. Names are numbered in order, "" where it is not known. Needs `config.classes`.
    resume : Run, optional
        A stopped run of the same image to train on, with its own picks and model; of `config`
        only how to train and refine is used.
    tell_masked : bool
        Whether it is said how many pixels are masked; not where the caller has masked them.

    Yields
    ------
    Progress

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If the image or the settings do not allow the analysis.

    Examples
    --------
    >>> from napari_shiftvae.core.simulate import perovskite
    >>> from napari_shiftvae.core.train import TrainConfig
    >>> made = perovskite(rng=np.random.default_rng(0), shape=(128, 128))
    >>> config = AnalysisConfig(train=TrainConfig(epochs=2))
    >>> run = finish(analyse(MicroscopeImage(data=made.image, name="made"), config))
    >>> "z1" in run.atoms
    True
    """
    _ = image.sha256  # of the pixels that are analysed, had they been changed before the end
    said = (given, labels)
    with spare_one_core():
        return (
            yield from _analyse(
                image, config, positions_yx, said, resume=resume, tell_masked=tell_masked
            )
        )


def _analyse(
    image: MicroscopeImage,
    config: AnalysisConfig,
    positions_yx: ArrayLike | None,
    said: tuple[ArrayLike | None, ArrayLike | None],
    *,
    resume: Run | None,
    tell_masked: bool,
) -> Generator[Progress, str | None, Run]:
    device = choose_device(config.device)
    pixels = as_float_image(image.data)
    clock, epochs = Clock(), 0
    stopped, notes = yield from _told_of_masked(pixels, tell=tell_masked)
    if resume is not None:
        training, picks = _resumed(image, resume, device), resume.picks_yx
        told = Told.of_table(resume.atoms)
        config = _taken_up(config, resume.config, len(training.patches))
        epochs = resume.epochs
        clock.seconds |= resume.seconds
    else:
        finding = find_picks(pixels, config, positions_yx, clock)
        while True:
            try:
                progress = next(finding)
            except StopIteration as found:
                picks, separation_px = found.value
                break
            stopped |= (yield progress) == "stop"
        told = Told.of_picks(len(picks), *said)
        training = _prepare(pixels, picks, separation_px, config, device=device, told=told)
    model, patches, state = training.model, training.patches, training.state
    if model.config.classes and config.train.validation is None:
        # Of the few that are rare or labelled, none can be spared.
        config = replace(config, train=replace(config.train, validation=0.0))

    neighbours = neighbourhood(patches) if config.train.smoothness else None
    known = Labels.of_picks(told.labels, model.config.classes, patches.index)
    ending = None if resume is None else resume.ending
    for report in train(model, patches, config.train, state, neighbours=neighbours, labels=known):
        epochs = report.epoch
        config = replace(config, train=report.config or config.train)
        ending = _ending(report, config.train, len(patches))
        sent = yield Progress(
            stage="train",
            fraction=report.epoch / report.epochs,
            message=". ".join((f"Training: epoch {report.of_epochs}", *report.mishaps[-1:])),
            positions_yx=picks,
            index=patches.index,
            report=report,
            hold=partial(
                _hold,
                training,
                report,
                picks=picks,
                told=told,
                image=image,
                config=config,
                ending=ending,
                seconds=dict(clock.seconds),
            ),
        )
        stopped |= sent == "stop"
        if stopped:
            break
    clock.seconds["train"] = state.seconds
    training = training.held()
    with clock.time("refine"):
        yield Progress(stage="refine", fraction=0.0, message="Encoding all patches")
        fit = yield from _fitted(model.eval(), patches, config, neighbours)
        classes = class_of(model, fit, known) if model.config.classes else None
        fit = fix_gauge(model, patches, fit, dark=config.dark)
    with clock.time("fields"):
        yield Progress(stage="fields", fraction=0.0, message="Drawing maps")
        run = conclude(
            model,
            patches,
            fit,
            picks_yx=picks,
            told=told,
            image=image,
            config=config,
            noise_sigma=training.noise_sigma,
            epochs=epochs,
            seconds=clock.seconds,
        )
        ended = ending is not None and ending.decided and epochs >= ending.epochs
        run = replace(
            run,
            atoms=with_classes(run.atoms, *classes) if classes else run.atoms,
            training=training,
            ending=ending,
            diagnostics=run.diagnostics.and_told(
                [*notes, *state.mishaps, *([ending.sentence] if ending and ended else [])]
            ),
            peak_memory_mb=peak_memory_mb(),
        )
        _ = run.maps
    clock.total()
    return run


def _told_of_masked(
    pixels: NDArray[np.float32], *, tell: bool
) -> Generator[Progress, str | None, tuple[bool, tuple[str, ...]]]:
    """Say how many pixels are masked; return whether to stop, and what was said."""
    masked = masked_sentence(pixels) if tell else ""
    if not masked:
        return False, ()
    progress = Progress(stage="find", fraction=0.0, message="Looking at the image", notes=(masked,))
    return (yield progress) == "stop", (masked,)


def _fitted(
    model: ShiftVAE, patches: Patches, config: AnalysisConfig, neighbours: Neighbourhood | None
) -> Generator[Progress, str | None, Fit]:
    """Return the posterior of all patches; the decoder is polished on the way."""
    fit = encode(model, patches)
    if not config.refine:
        return fit
    # Neighbours would move the latents away from where the decoder was polished; where classes are
    # learned, what tells them apart is left as it was learned.
    if neighbours is None and not model.config.classes:
        train, count = config.train, len(patches)
        learn, _ = hold_out(count, train.share_for(count), train.seed)
        for result in polish(model, patches, fit, learn):
            fit = result or fit
            yield Progress(stage="refine", fraction=0.0, message="Polishing the patterns")
    fit = yield from refining(model, patches, fit)
    if neighbours is not None:
        for result in refine_together(
            model,
            patches,
            fit,
            neighbours,
            smoothness=config.train.smoothness,
            edge_preserving=config.train.edge_preserving,
        ):
            fit = result or fit
            yield Progress(stage="refine", fraction=1.0, message="Refining with neighbours")
    return fit


def _ending(report: TrainReport, config: TrainConfig, count: int) -> Ending | None:
    """How long the training is to be, where held-out patches decide on it."""
    if not config.is_open(count):
        return None
    gain = report.pace.gain
    return Ending(
        epochs=report.epochs,
        added=report.epochs - config.epochs_for(count),
        held_out=len(hold_out(count, config.share_for(count), config.seed)[1]),
        gain_nat=gain if math.isfinite(gain) else None,
        decided=report.pace.over,
    )


def _taken_up(config: AnalysisConfig, earlier: AnalysisConfig, count: int) -> AnalysisConfig:
    """What made the model and its picks stays; how to go on may change."""
    train_config = replace(
        config.train,
        seed=earlier.train.seed,
        batch_size=earlier.train.batch_size,  # steps are counted in batches
        learning_rate=earlier.train.learning_rate,  # which may have been lowered
    )
    share = earlier.train.share_for(count)
    if train_config.share_for(count) != share:  # what was held out must never be learned from
        train_config = replace(train_config, validation=share)
    return replace(earlier, train=train_config, refine=config.refine)


def _hold(training: Training, report: TrainReport, **known: Any) -> Callable[[], Run]:
    """Copy what the next step of the training changes, for `_snapshot`."""
    held = training.held()
    model = copy.deepcopy(held.model).eval()
    return partial(_snapshot, held, report, model=model, paused=pause(held), **known)


def _snapshot(
    training: Training,
    report: TrainReport,
    *,
    model: ShiftVAE,
    paused: dict[str, Tensor],
    picks: NDArray[np.float64],
    told: Told,
    image: MicroscopeImage,
    config: AnalysisConfig,
    ending: Ending | None,
    seconds: dict[str, float],
) -> Run:
    """Make a run of what was learned, read off the encoder, that can be trained on."""
    shown = _some(training.patches, MOST_SHOWN)
    fit = fix_gauge(model, shown, encode(model, shown), dark=config.dark)
    seconds = seconds | {"train": report.seconds}
    seconds["total"] = sum(spent for stage, spent in seconds.items() if stage != "total")
    run = conclude(
        model,
        shown,
        fit,
        picks_yx=picks,
        told=told,
        image=image,
        config=config,
        noise_sigma=training.noise_sigma,
        epochs=report.epoch,
        seconds=seconds,
    )
    return replace(run, paused=paused, ending=ending)


def _some(patches: Patches, most: int) -> Patches:
    """Patches spread evenly over all, so that a snapshot takes seconds however many there are."""
    if len(patches) <= most:
        return patches
    rows = np.linspace(0, len(patches) - 1, most).round().astype(np.int64)
    return some_patches(patches, rows)


def _resumed(image: MicroscopeImage, run: Run, device: torch.device) -> Training:
    """Copy the training of a run to go on with, leaving the run as it is."""
    if not run.resumable:
        raise InputError(
            "This run does not hold the state of a training, as one whose model comes from another "
            "image: run the analysis anew."
        )
    if checksum(image.data) != run.image.sha256:
        raise InputError(
            f"The run to go on with is of another image ({run.image.name}): choose that one, or "
            "start a new run."
        )
    if run.training is not None:
        training = run.training.copied()
    else:
        training = resumed(run, patches_of(run, image), device)
    if not run.finished:
        return training
    return replace(training, goals=(*run.goals, run.config.train.epochs or 0))


def _prepare(
    pixels: NDArray[np.float32],
    picks: NDArray[np.float64],
    separation_px: float,
    config: AnalysisConfig,
    *,
    device: torch.device,
    told: Told,
) -> Training:
    size = patch_size_for(config, separation_px, pixels.shape)
    patches = extract_patches(pixels, picks, size, normalisation=config.normalisation)
    names = () if told.given is None else given_names(told.given)
    if told.given is not None:
        patches = with_given(patches, told.given, names)
    spectrum = power_spectrum(patches)
    model = ShiftVAE(
        ModelConfig(
            patch_size_px=size,
            separation_px=separation_px,
            latent_dim=config.latent_dim,
            shift_prior_px=config.shift_prior_px or SHIFT_PRIOR * separation_px,
            decoder=config.decoder,
            band_limit=config.band_limit or spectrum.band_limit,
            invariances=config.invariances,
            rotation_prior_rad=config.rotation_prior_rad,
            scale_prior=config.scale_prior,
            classes=config.classes,
            given=names,
        ),
        torch.Generator().manual_seed(config.train.seed),
    ).to(device)
    return Training(
        model=model,
        patches=patches,
        state=start(model, config.train),
        noise_sigma=spectrum.noise_sigma,
    )
