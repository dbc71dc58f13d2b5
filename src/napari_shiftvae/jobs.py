"""What the dock has done in a thread: the core's calls, with the dock's settings. No Qt, no layers.

Torch is imported here inside the functions, that is in the thread: it takes seconds to load.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.core.errors import Cancelled, InputError
from napari_shiftvae.core.images import Calibration, MicroscopeImage, checksum, read_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.picks import Picks
    from napari_shiftvae.settings import FindSettings, TrainSettings

SCALE_OF_ONE_PICK_PX = 16.0
NOWHERE = "nowhere"  # why a pick has no patch: its position is not finite


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A finished analysis.

    Attributes
    ----------
    run : Run
    saved : Path or None
        File that the run was saved to without being asked; None where that was not possible.
    """

    run: Run
    saved: Path | None


@dataclass(frozen=True, kw_only=True)
class Started:
    """First sign of an analysis: torch is loaded, and this is the device it computes on."""

    device: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """How picks and patch size go together.

    Attributes
    ----------
    patch_size_px : int
        As asked for, or by default for these picks.
    set_aside : (N,) object array
        Why a pick has no patch, "" where it has one.
    """

    patch_size_px: int
    set_aside: NDArray[np.object_]


def survey(
    image: MicroscopeImage,
    picks: Picks,
    frame: int,
    separation_px: float | None,
    train: TrainSettings,
) -> Survey:
    """Find out the default patch size and which picks of a frame have no patch of their own."""
    from napari_shiftvae.atom_jobs import frame_of
    from napari_shiftvae.core.lattice import neighbour_distance
    from napari_shiftvae.core.patches import (
        default_patch_size,
        extract_patches,
        one_atom_patch_size,
    )

    pixels, finite = frame_of(image, frame), np.isfinite(picks.positions_yx).all(axis=1)
    here = finite & (picks.t == frame)
    positions = picks.positions_yx[here]
    separation = separation_px or neighbour_distance(positions)
    if not np.isfinite(separation):  # one pick has no neighbour to tell the scale
        separation = SCALE_OF_ONE_PICK_PX
    sorts = train.classes > 0 or train.sublattices == "examples"
    by_default = one_atom_patch_size if sorts else default_patch_size
    size = train.patch_size_px or min(by_default(separation), *pixels.shape)
    set_aside = np.where(finite, "", NOWHERE).astype(object)
    try:
        set_aside[here] = extract_patches(pixels, positions, size, normalisation="global").set_aside
    except InputError:  # no patch at all; said when one tries to train
        set_aside[here] = "border"
    return Survey(patch_size_px=size, set_aside=set_aside)


def calibration_in(path: Path) -> tuple[Path, Calibration | None]:
    """Read what a file says about the size of its pixels; None where it cannot be read."""
    try:
        return path, read_image(path, stacks=True).calibration
    except InputError:
        return path, None


def config_for(
    find_settings: FindSettings, train_settings: TrainSettings, *, device: str
) -> AnalysisConfig:
    """Put the settings of the tabs together."""
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.core.train import TrainConfig

    anywhere = find_settings.sampling != "atoms"
    return AnalysisConfig(
        sampling=find_settings.sampling,
        count=find_settings.count if anywhere else None,
        dark=find_settings.dark,
        separation_px=find_settings.separation_px,
        threshold=find_settings.threshold,
        patch_size_px=train_settings.patch_size_px,
        latent_dim=train_settings.latent_dim,
        invariances=train_settings.invariances,
        classes=train_settings.classes,
        decoder=train_settings.decoder,
        shift_prior_px=train_settings.shift_prior_px,
        device=device,
        train=TrainConfig(
            epochs=train_settings.epochs,
            batch_size=train_settings.batch_size,
            kl_shift=train_settings.kl_shift,
            kl_content=train_settings.kl_content,
            smoothness=train_settings.smoothness,
            edge_preserving=train_settings.edge_preserving,
            seed=train_settings.seed,
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A trained model to read an image with; the fields are those of `encode_image`.

    `path` is the file that the model was opened from, if any.
    """

    run: Run
    path: Path | None
    resample: bool
    own_intensity: bool


def opened_run(path: str) -> tuple[Path, Run]:
    """Open a run file."""
    from napari_shiftvae.core.runfile import load_run

    return Path(path).resolve(), load_run(path)


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What to analyse and how.

    Attributes
    ----------
    image : MicroscopeImage
    find : FindSettings
    train : TrainSettings
    device : str
    picks : Picks or None
        Atoms to analyse; they are found where None.
    resume : Run or None
        Run to train on.
    trained : Trained or None
        Model to read the image with; nothing is trained then.
    folder : Path or None
        Where it is saved without being asked; the default folder where None.
    continues : Path or None
        Checkpoint that `resume` is from.
    executor : Executor or None
        Writes checkpoints beside the training.
    """

    image: MicroscopeImage
    find: FindSettings
    train: TrainSettings
    device: str
    picks: Picks | None
    resume: Run | None
    trained: Trained | None = None
    folder: Path | None = None
    continues: Path | None = None
    executor: Executor | None = None


def analysis(order: Order) -> Generator[Progress | Started, Any, Finished]:
    """Analyse an image."""
    from napari_shiftvae.core.checkpoint import Autosave, autosaved
    from napari_shiftvae.core.computer import choose_device

    config = config_for(order.find, order.train, device=order.device)
    image = order.image
    if image.calibration is None and image.path is not None:
        # the same as the command line knows, even if Run was pressed before the file was read
        image = replace(image, calibration=calibration_in(image.path)[1])
    stop = yield Started(device=str(choose_device(order.device)))
    where = Autosave.of(image.name, order.folder)
    steps = autosaved(
        _steps(order, image, config), where, continues=order.continues, executor=order.executor
    )
    try:
        progress = next(steps)
        while True:
            # Stop may have been pressed before the analysis proper began
            stop = (yield progress) or stop
            progress = steps.send(stop)
    except StopIteration as end:
        run = end.value
    except (GeneratorExit, Cancelled) as end:
        steps.throw(end)  # now and for the same reason, not whenever it is collected
        raise
    _ = run.maps  # drawn here rather than when they are shown
    saved = where.finished if where.finished.exists() else None
    return Finished(run=run, saved=saved)


def _steps(
    order: Order, image: MicroscopeImage, config: AnalysisConfig
) -> Generator[Progress, str | None, Run]:
    """Analyse an image with what the sublattices of the Atoms tab are to the model."""
    from napari_shiftvae.core.analyse import analyse
    from napari_shiftvae.core.apply import encode_steps
    from napari_shiftvae.core.seeds import with_seed_check

    positions = None if order.picks is None else order.picks.positions_yx
    if order.trained is not None:
        return encode_steps(
            order.trained.run,
            image,
            positions,
            given=known_classes(order.picks, order.trained.run),
            resample=order.trained.resample,
            own_intensity=order.trained.own_intensity,
            device=order.device,
        )
    told: dict[str, Any] = {}
    if order.resume is None:  # a run that goes on keeps its own
        config, told = with_sublattices(config, order.train, order.picks)
    steps = analyse(image, config, positions_yx=positions, resume=order.resume, **told)
    return with_seed_check(steps, image) if order.train.check_seed else steps


def known_classes(picks: Picks | None, run: Run) -> NDArray[np.object_] | None:
    """Sublattices of picks, where a model knows them all; others say nothing to it."""
    if picks is None or not picks.sublattices:
        return None
    known = {*picks.sublattices} <= {*run.model.config.given}
    return picks.sublattice if known else None


def with_sublattices(
    config: AnalysisConfig, train: TrainSettings, picks: Picks | None
) -> tuple[AnalysisConfig, dict[str, NDArray[np.object_]]]:
    """Tell an analysis what the sublattices of the Atoms tab are to the model.

    Returns
    -------
    config : AnalysisConfig
    told : dict
        Further keyword arguments of `analyse` or `analyse_sequence`.
    """
    use = train.sublattices
    if use == "ignored":
        return config, {}
    if picks is None or not picks.sublattices:
        raise InputError(
            "The atoms are in no sublattices: group them in the Atoms tab, or name some there; "
            "or choose under Train that sublattices are ignored."
        )
    if use == "given":
        return config, {"given": picks.sublattice}
    classes = max(config.classes, len(picks.sublattices), 2)
    return replace(config, classes=classes), {"labels": picks.sublattice}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageOfRun:
    """A run and the image that it was made of."""

    run: Run
    image: MicroscopeImage


def image_of(run: Run, path: Path) -> ImageOfRun:
    """Read the image of a run.

    Raises
    ------
    InputError
        If the file cannot be read, or holds other pixels.
    """
    image = read_image(path)
    if checksum(image.data) != run.image.sha256:
        raise InputError(
            f"{path} is not the image that '{run.image.name}' was analysed from: its pixels are "
            "others (by their checksum)."
        )
    return ImageOfRun(run=run, image=image)


def settings_of(config: AnalysisConfig) -> tuple[FindSettings, TrainSettings]:
    """Settings of the tabs that give this configuration: the inverse of `config_for`."""
    from napari_shiftvae.settings import FindSettings, TrainSettings

    known = vars(config.train) | vars(config)
    find, train = (
        {one.name: known[one.name] for one in fields(kind) if known.get(one.name) is not None}
        for kind in (FindSettings, TrainSettings)
    )
    return FindSettings(**find), TrainSettings(**train)


def epochs_to_do(run: Run, find_settings: FindSettings, train_settings: TrainSettings) -> int:
    """Count the epochs that are left where a run is trained on with these settings."""
    config = config_for(find_settings, train_settings, device="auto").train
    config = replace(config, batch_size=run.config.train.batch_size)  # as `analyse` does
    same = config.epochs == run.config.train.epochs
    return max(0, (run.goal if same else config.epochs_for(int(run.used.sum()))) - run.epochs)
