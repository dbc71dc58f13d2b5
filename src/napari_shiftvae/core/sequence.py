"""One model for all frames of a stack, or for many images: trained on some, applied to each."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.apply import encode_steps
from napari_shiftvae.core.atoms import automatic_threshold, candidates, find_atoms
from napari_shiftvae.core.checkpoint import checkpoint_beside, with_checkpoints
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration, MicroscopeImage, as_float_image, checksum
from napari_shiftvae.core.lattice import neighbour_distance
from napari_shiftvae.core.patches import default_patch_size
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.runfile import atoms_csv, load_run, save_run, written_aside
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.separation import estimate_separation
from napari_shiftvae.core.settings import AnalysisConfig

__all__ = ["FramesDone", "SequenceRun", "analyse_sequence"]

Floats = NDArray[np.float64]

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
    table : Path
        ``atoms.csv`` of all frames.
    count : int
        Picks in it.
    frames : int
        How many frames were read, from the first: all, unless it was stopped.
    run : Run
        Whose model all frames were read with; its image is that of the frames it learned from,
        one beneath the other.
    learned_from : tuple of int
        These frames.
    sentences : tuple of str
        What is to be said of single frames; those that cannot be read are left out.
    """

    table: Path
    count: int
    frames: int
    run: Run
    learned_from: tuple[int, ...]
    sentences: tuple[str, ...]

    @cached_property
    def atoms(self) -> pd.DataFrame:
        """One row per pick of each frame: ``t``, then the columns of ``atoms.csv``.

        Read from the file when it is first asked for: that of a long movie fills the memory.
        """
        table = pd.read_csv(self.table, keep_default_na=False, na_values=[""])
        return table.fillna({"set_aside": ""})


def analyse_sequence(
    images: Sequence[ArrayLike] | NDArray[np.generic],
    config: AnalysisConfig,
    folder: str | Path,
    *,
    positions_tyx: ArrayLike | None = None,
    share: float = SHARE,
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
        If a frame to learn from cannot be analysed, or the folder holds another sequence.

    Examples
    --------
    >>> from napari_shiftvae.core.progress import finish
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
    picks = _by_frame(positions_tyx, len(images))
    _claim(folder, config, some, len(images), picks)
    yield Progress(stage="find", fraction=0.0, message="Finding atoms")
    config = _same_for_all(config, some, picks)
    given = None if picks is None else [picks[index] for index in learned_from]
    run = yield from _trained(some, given, config, folder / MODEL)
    run = replace(run, image=replace(run.image, pixel_size_nm=_size(calibration)))
    sentences: list[str] = []
    done, stopped = 0, False
    for index in range(len(images)):
        path = _table_of(folder, index)
        if not path.exists():
            where = None if picks is None else picks[index]
            try:
                image = MicroscopeImage(
                    data=as_float_image(np.asarray(images[index])),
                    name=f"frame {index}",
                    calibration=calibration,
                )
                made, stopped = yield from _read(run, image, where, sentences)
            except InputError as error:  # one bad frame among a thousand is no reason to end
                sentences.append(f"Frame {index} was left out: {error}")
                made = run.atoms.iloc[:0]
            _write(path, atoms_csv(made))
        done = index + 1
        stopped |= (yield FramesDone(frame=index, done=done, total=len(images))) == "stop"
        if stopped:
            break
    rows = _joined(folder, done)
    count = 0

    def write(file: IO[bytes]) -> None:
        nonlocal count
        for row in rows:
            file.write(row)
            count += 1

    header = next(rows, None)
    if header is None:
        raise InputError(f"No frame could be read. {' '.join(sentences[:1])}")
    rows = chain([header], rows)
    written_aside(folder / TABLE, write)
    return SequenceRun(
        table=folder / TABLE,
        count=count - 1,
        frames=done,
        run=run,
        learned_from=tuple(learned_from),
        sentences=tuple(sentences),
    )


def _joined(folder: Path, frames: int) -> Iterator[bytes]:
    """Lines of the tables of all frames, one after the other, with the frame in front."""
    header = None
    for index in range(frames):
        with _table_of(folder, index).open("rb") as table:
            names = next(table)
            for row in table:
                if header is None:
                    header = names
                    yield b"t," + names
                yield b"%d," % index + row


def _table_of(folder: Path, frame: int) -> Path:
    return folder / f"frame-{frame:05d}.csv"


def _read(
    run: Run, image: MicroscopeImage, positions_yx: Floats | None, sentences: list[str]
) -> Generator[Progress, str | None, tuple[pd.DataFrame, bool]]:
    """Atoms of one frame, and whether this is to be the last; notes are added to the sentences."""
    if positions_yx is not None and not len(positions_yx):
        raise InputError("there are no atoms in it.")
    steps = encode_steps(run, image, positions_yx)
    stopped = False
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            made: Run = end.value
            return made.atoms, stopped
        sentences.extend(progress.notes)
        # the positions are of one frame among others
        stopped |= (yield replace(progress, positions_yx=None)) == "stop"


def _by_frame(positions_tyx: ArrayLike | None, frames: int) -> list[Floats] | None:
    """Picks (N, 2) of each frame."""
    if positions_tyx is None:
        return None
    table = np.asarray(positions_tyx, dtype=np.float64).reshape(-1, 3)
    outside = (table[:, 0] < 0) | (table[:, 0] >= frames)
    if outside.any():
        raise InputError(
            f"{int(outside.sum())} positions are in frames that do not exist: the sequence has "
            f"frames 0 to {frames - 1}."
        )
    return [table[table[:, 0] == index, 1:] for index in range(frames)]


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
    folder: Path,
    config: AnalysisConfig,
    some: list[NDArray[np.float32]],
    frames: int,
    picks: list[Floats] | None,
) -> None:
    """Note what the folder is for, or see that it is for the same."""
    record = {
        "settings": asdict(config),
        "frames": frames,
        "sha256": [checksum(frame) for frame in some],
    }
    if picks is not None:
        record["positions"] = checksum(np.concatenate(picks))
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


def _same_for_all(
    config: AnalysisConfig, some: list[NDArray[np.float32]], picks: list[Floats] | None
) -> AnalysisConfig:
    """Fix separation and threshold, so that an atom comes or goes by its own strength."""
    if picks is not None:
        return config
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
    given: list[Floats] | None,
    config: AnalysisConfig,
    path: Path,
) -> Generator[Progress, str | None, Run]:
    """Train on frames laid one beneath the other, or take the model that is there."""
    if path.exists():
        return load_run(path)
    width = max(frame.shape[1] for frame in some)
    found = [_found(frame, config) for frame in some] if given is None else given
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
    steps = analyse(image, config, positions_yx=np.concatenate(picks), resume=resume)
    run = yield from with_checkpoints(steps, checkpoint)
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
