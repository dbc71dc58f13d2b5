"""One model for all frames of a stack, or for many images: trained on some, applied to each."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.atoms import automatic_threshold, candidates, find_atoms
from napari_shiftvae.core.checkpoint import checkpoint_beside, with_checkpoints
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.frame_picks import FramePicks
from napari_shiftvae.core.frames import (
    MODEL,
    Frames,
    FramesDone,
    Reading,
    SequenceRun,
    claim,
    count_frames,
    read_frames,
)
from napari_shiftvae.core.given import Told
from napari_shiftvae.core.images import Calibration, MicroscopeImage, as_float_image, read_pixels
from napari_shiftvae.core.lattice import neighbour_distance
from napari_shiftvae.core.patches import default_patch_size
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.seeds import with_seed_check
from napari_shiftvae.core.separation import estimate_separation
from napari_shiftvae.core.settings import AnalysisConfig

__all__ = ["analyse_sequence"]

Floats = NDArray[np.float64]

SHARE = 0.25
MOST_FRAMES = 32  # to learn from, whatever the share


def analyse_sequence(
    images: Frames,
    config: AnalysisConfig,
    folder: str | Path,
    *,
    positions_tyx: ArrayLike | None = None,
    given: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    share: float = SHARE,
    check_seed: bool = False,
    calibration: Calibration | None = None,
) -> Generator[Progress | FramesDone, str | None, SequenceRun]:
    """Train on some frames and read all of them, each into a file as soon as it is done.

    Interrupted and begun again with the same folder, it goes on where it was: trained models and
    finished frames are not made anew. Send ``"stop"`` into the generator to end the training, or
    later the reading of frames, with what there is.

    Parameters
    ----------
    images : (T, H, W) array or sequence of (H, W) arrays
        Also a dask or zarr array: frames are read one at a time.
    config : AnalysisConfig
        Atoms of all frames are found with one separation and one threshold.
    folder : str or Path
        For ``model.shiftvae``, a table of each frame, and ``atoms.csv`` of all; made where it is
        missing.
    positions_tyx : (M, 3) array-like, optional
        Picks (frame, y, x), the latter [px], to use instead of finding atoms. A frame without any
        is left out.
    given, labels : (M,) array-like, optional
        Of these picks, as `analyse.analyse` takes them. Frames that hold labelled atoms are
        learned from too, 32 of them at most.
    share : float
        Share of the frames to learn from, above 0 to 1; spread evenly, and 32 at most.
    check_seed : bool
        Whether to train once more with the next seed and say how far the latents agree.
    calibration : Calibration, optional

    Yields
    ------
    Progress or FramesDone

    Returns
    -------
    SequenceRun

    Raises
    ------
    InputError
        If a frame to learn from cannot be analysed, or the folder holds another sequence.

    Examples
    --------
    >>> from napari_shiftvae.core.progress import finish
    >>> made = finish(analyse_sequence(stack, AnalysisConfig(), "movie"))  # doctest: +SKIP
    >>> made.atoms.groupby("t")["z1"].mean()  # doctest: +SKIP
    """
    folder = Path(folder)
    picks = FramePicks.of(positions_tyx, count_frames(images), given=given, labels=labels)
    if not 0 < share <= 1:
        raise InputError(f"share is {share:g}: choose a value above 0, to 1 for all frames.")
    if config.sampling != "atoms":
        raise InputError("A sequence is analysed around its atoms: choose atoms as the sampling.")
    count = min(MOST_FRAMES, max(1, round(share * len(images))))
    learned_from = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)).tolist()
    if picks is not None:
        learned_from = picks.with_labels(learned_from, MOST_FRAMES)
    some = [_frame(images, index) for index in learned_from]
    record = {"settings": asdict(config)} | ({"check_seed": True} if check_seed else {})
    claim(folder, record, some, len(images), picks)
    yield Progress(stage="find", fraction=0.0, message="Finding atoms")
    if picks is None:
        config = _same_for_all(config, some)
        found, told = [_found(frame, config) for frame in some], Told()
    else:
        found = [picks.of_frame(index)[0] for index in learned_from]
        told = picks.told.of_rows(picks.of_frames(learned_from))
    run = yield from _trained(some, found, told, config, folder / MODEL, check_seed=check_seed)
    size = None if calibration is None else calibration.pixel_size_nm
    run = replace(run, image=replace(run.image, pixel_size_nm=size))
    return (
        yield from read_frames(
            run,
            images,
            folder,
            picks,
            reading=Reading(device=config.device),
            calibration=calibration,
            learned_from=learned_from,
        )
    )


def _frame(images: Frames, index: int) -> NDArray[np.float32]:
    try:
        return as_float_image(read_pixels(images, index))
    except InputError as error:
        raise InputError(f"Frame {index}: {error}") from None


def _same_for_all(config: AnalysisConfig, some: list[NDArray[np.float32]]) -> AnalysisConfig:
    """Fix separation and threshold, so that an atom comes or goes by its own strength."""
    separation = config.separation_px or float(
        np.median([estimate_separation(frame, dark=config.dark) for frame in some])
    )
    threshold = config.threshold
    if threshold is None:
        each = (
            automatic_threshold(candidates(frame, separation_px=separation, dark=config.dark))
            for frame in some
        )
        threshold = float(np.median(list(each)))
    return replace(config, separation_px=separation, threshold=threshold)


def _trained(
    some: list[NDArray[np.float32]],
    found: list[Floats],
    told: Told,
    config: AnalysisConfig,
    path: Path,
    *,
    check_seed: bool,
) -> Generator[Progress, str | None, Run]:
    """Train on frames laid one beneath the other, or take the model that is there."""
    if path.exists():
        return load_run(path)
    width = max(frame.shape[1] for frame in some)
    separation = config.separation_px or neighbour_distance(found[0])
    # Masked, about as wide as a window: one that reaches into the next frame is set aside.
    gap = config.patch_size_px or default_patch_size(separation)
    rows, picks, top = [], [], 0
    for frame, positions in zip(some, found, strict=True):
        picks.append(np.add(positions, (top, 0)))
        whole = np.full((len(frame) + gap, width), np.nan, dtype=np.float32)
        whole[: len(frame), : frame.shape[1]] = frame
        rows.append(whole)
        top += len(whole)
    image = MicroscopeImage(data=np.concatenate(rows), name=path.parent.name)
    checkpoint = checkpoint_beside(path)
    resume = load_run(checkpoint) if checkpoint.exists() else None
    steps = analyse(
        image,
        config,
        positions_yx=np.concatenate(picks),
        given=told.given,
        labels=told.words,
        resume=resume,
        tell_masked=False,  # the gaps are
    )
    steps = with_checkpoints(steps, checkpoint)
    run = yield from with_seed_check(steps, image) if check_seed else steps
    save_run(run, path)
    checkpoint.unlink(missing_ok=True)
    return run


def _found(frame: NDArray[np.float32], config: AnalysisConfig) -> Floats:
    return find_atoms(
        frame,
        separation_px=config.separation_px,
        threshold=config.threshold,
        dark=config.dark,
    ).positions_yx
