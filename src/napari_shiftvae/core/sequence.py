"""One model for all frames of a stack, or for many images: trained on some, applied to each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.analyse import Progress, analyse
from napari_shiftvae.core.apply import encode_image
from napari_shiftvae.core.atoms import automatic_threshold, candidates, find_atoms
from napari_shiftvae.core.checkpoint import checkpoint_beside, with_checkpoints
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration, MicroscopeImage, as_float_image, checksum
from napari_shiftvae.core.runfile import atoms_csv, load_run, save_run, written_aside
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.separation import estimate_separation
from napari_shiftvae.core.settings import AnalysisConfig

__all__ = ["FramesDone", "SequenceRun", "analyse_sequence"]

SHARE = 0.25
MOST_FRAMES = 32  # to learn from, whatever the share
MODEL, SETTINGS, TABLE = "model.shiftvae", "sequence.json", "atoms.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class FramesDone:
    """How far the frames are.

    Attributes
    ----------
    frame : int
        The one that was finished last.
    done, total : int
        Frames.
    """

    frame: int
    done: int
    total: int

    @property
    def message(self) -> str:
        """The same in words."""
        return f"Frame {self.done} of {self.total}"


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceRun:
    """What was made of a sequence.

    Attributes
    ----------
    atoms : pandas.DataFrame
        One row per pick of each frame: ``t``, then the columns of ``atoms.csv``.
    run : Run
        Whose model all frames were read with; its image is that of the frames it learned from,
        one beneath the other.
    learned_from : tuple of int
        These frames.
    sentences : tuple of str
        What is to be said of single frames.
    """

    atoms: pd.DataFrame
    run: Run
    learned_from: tuple[int, ...]
    sentences: tuple[str, ...]


def analyse_sequence(
    images: Sequence[ArrayLike] | NDArray[np.generic],
    config: AnalysisConfig,
    folder: str | Path,
    *,
    share: float = SHARE,
    calibration: Calibration | None = None,
) -> Generator[Progress | FramesDone, str | None, SequenceRun]:
    """Train on some frames and read all of them, each into a file as soon as it is done.

    Interrupted and begun again with the same folder, it goes on where it was: trained models and
    finished frames are not made anew.

    Parameters
    ----------
    images : (T, H, W) array or sequence of (H, W) arrays
        Also a dask or zarr array: frames are read one at a time.
    config : AnalysisConfig
        Atoms of all frames are found with one separation and one threshold.
    folder : str or Path
        For ``model.shiftvae``, a table of each frame, and ``atoms.csv`` of all; made where it is
        missing.
    share : float
        Share of the frames to learn from, above 0 to 1; spread evenly, and 32 at most.
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
        If a frame cannot be analysed, or the folder holds another sequence.

    Examples
    --------
    >>> from napari_shiftvae.core.analyse import finish
    >>> made = finish(analyse_sequence(stack, AnalysisConfig(), "movie"))  # doctest: +SKIP
    >>> made.atoms.groupby("t")["z1"].mean()  # doctest: +SKIP
    """
    folder = Path(folder)
    if not len(images):
        raise InputError("The sequence has no frame: choose one that has.")
    if not 0 < share <= 1:
        raise InputError(f"share is {share:g}: choose a value above 0, to 1 for all frames.")
    if config.sampling != "atoms":
        raise InputError("A sequence is analysed around its atoms: choose atoms as the sampling.")
    count = min(MOST_FRAMES, max(1, round(share * len(images))))
    learned_from = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)).tolist()
    some = [_frame(images, index) for index in learned_from]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} could not be made ({error.strerror or error}): choose another."
        ) from error
    _claim(folder, config, some, len(images))
    yield Progress(stage="find", fraction=0.0, message="Finding atoms")
    config = _same_for_all(config, some)
    run = yield from _trained(some, config, folder / MODEL)
    run = replace(run, image=replace(run.image, pixel_size_nm=_size(calibration)))
    tables, sentences = [], []
    for index in range(len(images)):
        path = folder / f"frame-{index:05d}.csv"
        if not path.exists():
            image = MicroscopeImage(
                data=_frame(images, index), name=f"frame {index}", calibration=calibration
            )
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made = yield from encode_image(run, image)
            sentences += [str(warning.message) for warning in caught]
            _write(path, atoms_csv(made.atoms))
        table = pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"set_aside": ""})
        table.insert(0, "t", index)
        tables.append(table)
        yield FramesDone(frame=index, done=index + 1, total=len(images))
    atoms = pd.concat(tables, ignore_index=True)
    _write(folder / TABLE, atoms_csv(atoms))
    return SequenceRun(
        atoms=atoms, run=run, learned_from=tuple(learned_from), sentences=tuple(sentences)
    )


def _frame(images: Sequence[ArrayLike] | NDArray[np.generic], index: int) -> NDArray[np.float32]:
    try:
        return as_float_image(np.asarray(images[index]))
    except InputError as error:
        raise InputError(f"Frame {index}: {error}") from None


def _write(path: Path, content: bytes) -> None:
    written_aside(path, lambda file: file.write(content))


def _size(calibration: Calibration | None) -> tuple[float, float] | None:
    return None if calibration is None else calibration.pixel_size_nm


def _claim(
    folder: Path, config: AnalysisConfig, some: list[NDArray[np.float32]], frames: int
) -> None:
    """Note what the folder is for, or see that it is for the same."""
    record = {
        "settings": asdict(config),
        "frames": frames,
        "sha256": [checksum(frame) for frame in some],
    }
    content = json.dumps(record, indent=1)
    path = folder / SETTINGS
    if path.exists():
        if path.read_text(encoding="utf-8") != content:
            raise InputError(
                f"{folder} holds another sequence, or one made with other settings: choose a new "
                "folder."
            )
        return
    _write(path, content.encode())


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
    some: list[NDArray[np.float32]], config: AnalysisConfig, path: Path
) -> Generator[Progress, str | None, Run]:
    """Train on frames laid one beneath the other, or take the model that is there."""
    if path.exists():
        return load_run(path)
    gap = 1  # masked, so that no window reaches into the next frame
    width = max(frame.shape[1] for frame in some)
    rows, picks, top = [], [], 0
    for frame in some:
        found = find_atoms(
            frame,
            separation_px=config.separation_px,
            threshold=config.threshold,
            dark=config.dark,
        )
        picks.append(np.add(found.positions_yx, (top, 0)))
        whole = np.full((len(frame) + gap, width), np.nan, dtype=np.float32)
        whole[: len(frame), : frame.shape[1]] = frame
        rows.append(whole)
        top += len(whole)
    image = MicroscopeImage(data=np.concatenate(rows), name=path.parent.name)
    checkpoint = checkpoint_beside(path)
    resume = load_run(checkpoint) if checkpoint.exists() else None
    steps = analyse(image, config, positions_yx=np.concatenate(picks), resume=resume)
    run = yield from with_checkpoints(steps, checkpoint)
    save_run(run, path)
    checkpoint.unlink(missing_ok=True)
    return run
