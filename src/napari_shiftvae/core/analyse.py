"""The one path from an image to results; command line and dock both take it."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.align import align, sample_positions
from napari_shiftvae.core.atoms import estimate_separation, find_atoms
from napari_shiftvae.core.classes import Labels, class_of, with_classes
from napari_shiftvae.core.conclude import conclude
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gauge import fix_gauge
from napari_shiftvae.core.given import Told, given_names, some_patches, with_given
from napari_shiftvae.core.images import MicroscopeImage, as_float_image, checksum
from napari_shiftvae.core.infer import encode, refine
from napari_shiftvae.core.lattice import neighbour_distance
from napari_shiftvae.core.manifold import patches_of
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import (
    Patches,
    default_patch_size,
    extract_patches,
    one_atom_patch_size,
)
from napari_shiftvae.core.paused import pause, resumed
from napari_shiftvae.core.runs import Run, Training
from napari_shiftvae.core.settings import WINDOWS_BY_DEFAULT, AnalysisConfig
from napari_shiftvae.core.smooth_refine import refine_together
from napari_shiftvae.core.smoothness import neighbourhood
from napari_shiftvae.core.spectrum import power_spectrum
from napari_shiftvae.core.train import FEWEST_PATCHES, TrainReport, start, train

Stage = Literal["find", "align", "train", "refine", "fields"]
MOST_THREADS = 4
MOST_SHOWN = 200  # atoms that a snapshot has results of: it is made while one waits for training
# Of the distance between neighbours. Picks are good to a pixel or so; a wide prior would let the
# shift stand for the place of one sublattice within the other.
SHIFT_PRIOR = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """Where an analysis stands.

    Attributes
    ----------
    stage : {"find", "align", "train", "refine", "fields"}
    fraction : float
        Done part of the stage, 0 to 1.
    message : str
        The same in words.
    positions_yx : (M, 2) array or None
        Picks [px], once there are any.
    index : (N,) int array or None
        Rows of the picks that have a patch; the rows of `report.latents`.
    report : TrainReport or None
        While training.
    snapshot : callable or None
        While training: makes a run of what was learned so far, to be called before the next step.
    notes : tuple of str
        What the user should know before there is a result, in sentences.
    """

    stage: Stage
    fraction: float
    message: str
    positions_yx: NDArray[np.float64] | None = None
    index: NDArray[np.int64] | None = None
    report: TrainReport | None = None
    snapshot: Callable[[], Run] | None = None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: Stage) -> Generator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def total(self) -> None:
        spent = [seconds for stage, seconds in self.seconds.items() if stage != "total"]
        self.seconds["total"] = sum(spent)


@contextmanager
def spare_one_core() -> Generator[None]:
    """Let torch leave a core to the window and to other programs while an analysis runs.

    The regions of work are small: with all cores in use, each would wait for its slowest thread
    whenever anything else runs.
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 2
    torch.set_num_threads(max(1, min(MOST_THREADS, cores - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"`` into a device that is there.

    Parameters
    ----------
    name : str

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, found in there.items() if found), "cpu"))
    if not there.get(name, True):
        raise InputError(f"This machine has no {name} device: choose auto or cpu.")
    return torch.device(name)


def analyse(
    image: MicroscopeImage,
    config: AnalysisConfig,
    *,
    positions_yx: ArrayLike | None = None,
    given: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    resume: Run | None = None,
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
    with spare_one_core():
        return (yield from _analyse(image, config, positions_yx, (given, labels), resume))


def _analyse(
    image: MicroscopeImage,
    config: AnalysisConfig,
    positions_yx: ArrayLike | None,
    said: tuple[ArrayLike | None, ArrayLike | None],
    resume: Run | None,
) -> Generator[Progress, str | None, Run]:
    device = choose_device(config.device)
    pixels = as_float_image(image.data)
    clock, stopped, epochs = _Clock(), False, 0
    if resume is not None:
        training, picks = _resumed(image, resume, device), resume.picks_yx
        told = Told.of_table(resume.atoms)
        config = _taken_up(config, resume.config)
        epochs = resume.epochs
        clock.seconds |= resume.seconds
    else:
        finding = _picks(pixels, config, positions_yx, clock)
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

    neighbours = neighbourhood(patches) if config.train.smoothness else None
    known = Labels.of_picks(told.labels, model.config.classes, patches.index)
    for report in train(model, patches, config.train, state, neighbours=neighbours, labels=known):
        epochs = report.epoch
        config = replace(config, train=report.config or config.train)
        sent = yield Progress(
            stage="train",
            fraction=report.epoch / report.epochs,
            message=". ".join(
                (f"Training: epoch {report.epoch} of {report.epochs}", *report.mishaps[-1:])
            ),
            positions_yx=picks,
            index=patches.index,
            report=report,
            snapshot=partial(
                _snapshot,
                training,
                report,
                picks=picks,
                told=told,
                image=image,
                config=config,
                seconds=dict(clock.seconds),
            ),
        )
        stopped |= sent == "stop"
        if stopped:
            break
    if config.train.patience and not stopped:
        config = replace(config, train=replace(config.train, epochs=epochs))
    clock.seconds["train"] = state.seconds
    training = training.held()
    with clock.time("refine"):
        yield Progress(stage="refine", fraction=0.0, message="Encoding all patches")
        fit = encode(model.eval(), patches)
        if config.refine:
            for done, result in enumerate(refine(model, patches, fit)):
                fit = result or fit
                yield Progress(
                    stage="refine",
                    fraction=min(1.0, done * 512 / len(patches)),
                    message="Refining shifts and latents",
                )
        if config.refine and neighbours is not None:
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
        run = replace(
            run,
            atoms=with_classes(run.atoms, *classes) if classes else run.atoms,
            training=training,
            diagnostics=run.diagnostics.and_told(state.mishaps),
            peak_memory_mb=peak_memory_mb(),
        )
        _ = run.maps
    clock.total()
    return run


def _taken_up(config: AnalysisConfig, earlier: AnalysisConfig) -> AnalysisConfig:
    """What made the model and its picks stays; how to go on may change."""
    train_config = replace(
        config.train,
        seed=earlier.train.seed,
        batch_size=earlier.train.batch_size,  # steps are counted in batches
        learning_rate=earlier.train.learning_rate,  # which may have been lowered
    )
    return replace(earlier, train=train_config, refine=config.refine)


def _snapshot(
    training: Training,
    report: TrainReport,
    *,
    picks: NDArray[np.float64],
    told: Told,
    image: MicroscopeImage,
    config: AnalysisConfig,
    seconds: dict[str, float],
) -> Run:
    """Make a run of what has been learned so far, read off the encoder, that can be trained on."""
    training = training.held()
    model = copy.deepcopy(training.model).eval()
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
    return replace(run, paused=pause(training))


def _some(patches: Patches, most: int) -> Patches:
    """Patches spread evenly over all, so that a snapshot takes seconds however many there are."""
    if len(patches) <= most:
        return patches
    rows = np.linspace(0, len(patches) - 1, most).round().astype(np.int64)
    return some_patches(patches, rows)


def finish(steps: Generator[Progress, str | None, Run]) -> Run:
    """Run an analysis to its end.

    Parameters
    ----------
    steps : generator
        From `analyse`.

    Returns
    -------
    Run
    """
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            run: Run = stop.value
            return run


def _picks(
    pixels: NDArray[np.float32],
    config: AnalysisConfig,
    positions_yx: ArrayLike | None,
    clock: _Clock,
) -> Generator[Progress, str | None, tuple[NDArray[np.float64], float]]:
    """Positions (M, 2) to cut windows around, and the distance between neighbours [px]."""
    yield Progress(stage="find", fraction=0.0, message="Finding atoms")
    with clock.time("find"):
        if positions_yx is not None:
            picks = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
            different = len(np.unique(picks, axis=0))
            if different < FEWEST_PATCHES:
                raise InputError(
                    f"There are {different} different positions and the model needs at least "
                    f"{FEWEST_PATCHES}: find or click more atoms."
                )
            separation_px = config.separation_px or neighbour_distance(picks)
        elif config.sampling == "atoms":
            found = find_atoms(
                pixels,
                separation_px=config.separation_px,
                threshold=config.threshold,
                dark=config.dark,
            )
            picks, separation_px = found.positions_yx, found.separation_px
            if not len(picks):
                raise InputError(
                    "No atoms were found: lower the threshold, choose dark atoms, or give the "
                    "distance between atoms."
                )
        else:
            separation_px = config.separation_px or estimate_separation(pixels, dark=config.dark)
            size = _patch_size(config, separation_px, pixels.shape)
            picks = sample_positions(
                (pixels.shape[0], pixels.shape[1]),
                size,
                config.sampling,
                config.count or WINDOWS_BY_DEFAULT,
                np.random.default_rng(config.train.seed),
            )
    yield Progress(
        stage="find", fraction=1.0, message=f"{len(picks)} positions", positions_yx=picks
    )
    if positions_yx is None and config.sampling != "atoms":
        with clock.time("align"):
            size = _patch_size(config, separation_px, pixels.shape)
            aligning = align(pixels, picks, size, separation_px, dark=config.dark)
            for step, moved in enumerate(aligning, start=1):
                picks = moved
                yield Progress(
                    stage="align",
                    fraction=min(1.0, step / 11),
                    message=f"Aligning {len(picks)} windows",
                    positions_yx=picks,
                )
    return picks, separation_px


def _patch_size(config: AnalysisConfig, separation_px: float, shape: tuple[int, ...]) -> int:
    by_default = one_atom_patch_size if config.classes else default_patch_size
    return config.patch_size_px or min(by_default(separation_px), *shape)


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
        return run.training.copied()
    return resumed(run, patches_of(run, image), device)


def _prepare(
    pixels: NDArray[np.float32],
    picks: NDArray[np.float64],
    separation_px: float,
    config: AnalysisConfig,
    *,
    device: torch.device,
    told: Told,
) -> Training:
    size = _patch_size(config, separation_px, pixels.shape)
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


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far [MB], None where it cannot be known."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
