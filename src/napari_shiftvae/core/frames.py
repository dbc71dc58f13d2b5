"""Frames of a sequence, each read with one model into a file of its own as soon as it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.apply import encode_steps
from napari_shiftvae.core.aside import made_folder, written_aside
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.frame_picks import FramePicks
from napari_shiftvae.core.given import GIVEN
from napari_shiftvae.core.images import (
    Calibration,
    MicroscopeImage,
    as_float_image,
    checksum,
    read_pixels,
)
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.runfile import atoms_csv, save_run
from napari_shiftvae.core.runparts import TEXT
from napari_shiftvae.core.runs import Run

__all__ = ["FramesDone", "Reading", "SequenceRun", "encode_sequence", "fingerprint", "read_frames"]

MODEL, SETTINGS, TABLE = "model.shiftvae", "sequence.json", "atoms.csv"
CHECKED = 3  # frames by which a folder is known to be of the same sequence
MOST_SAID = 10  # sentences of single frames; a thousand alike say no more

Frames = Sequence[ArrayLike] | NDArray[np.generic]


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
        Whose model all frames were read with. Where it was trained on frames of the sequence, its
        image is that of these, one beneath the other.
    learned_from : tuple of int
        These frames; none where the model comes from elsewhere.
    sentences : tuple of str
        What is to be said of single frames; those that cannot be read are left out.
    """

    table: Path
    count: int
    frames: int
    run: Run
    learned_from: tuple[int, ...]
    sentences: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """What came of it, in words: where the model is from, what it found, what went wrong."""
        frames = ", ".join(map(str, self.learned_from))
        learned = (
            f"Learned from frames {frames}."
            if frames
            else f"Read with the model of '{self.run.image.name}'."
        )
        return (learned, *self.sentences, *self.run.diagnostics.sentences)

    @cached_property
    def atoms(self) -> pd.DataFrame:
        """One row per pick of each frame: ``t``, then the columns of ``atoms.csv``.

        Read from the file when it is first asked for: that of a long movie fills the memory.
        """
        return read_table(self.table)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a model reads frames; the fields are those of `apply.encode_image`."""

    resample: bool = False
    own_intensity: bool = False
    device: str = "auto"


def encode_sequence(
    run: Run,
    images: Frames,
    folder: str | Path,
    *,
    positions_tyx: ArrayLike | None = None,
    given: ArrayLike | None = None,
    reading: Reading = Reading(),
    calibration: Calibration | None = None,
) -> Generator[Progress | FramesDone, str | None, SequenceRun]:
    """Read all frames of a sequence with the model of a run, each as `apply.encode_image` does.

    Interrupted and begun again with the same folder, it goes on where it was. Send ``"stop"`` into
    the generator to end with the frames there are.

    Parameters
    ----------
    run : Run
    images : (T, H, W) array or sequence of (H, W) arrays
        Also a dask or zarr array: frames are read one at a time.
    folder : str or Path
        For a copy of the model, a table of each frame, and ``atoms.csv`` of all.
    positions_tyx : (M, 3) array-like, optional
        Picks (frame, y, x), the latter [px], to use instead of finding atoms. A frame without any
        is left out.
    given : (M,) array-like of str or int, optional
        Class of each of these picks, for a model that is conditional on classes.
    reading : Reading
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
        If no frame can be read, or the folder holds another sequence.

    Examples
    --------
    >>> from napari_shiftvae.core.progress import finish
    >>> made = finish(encode_sequence(run, stack, "second movie"))  # doctest: +SKIP
    """
    folder = Path(folder)
    picks = FramePicks.of(positions_tyx, count_frames(images), given=given)
    looked_at = np.unique(np.linspace(0, len(images) - 1, CHECKED).round().astype(int))
    record = {
        "settings": asdict(run.config),
        "model": fingerprint(run),
        "reading": asdict(reading),
        "pixel_size_nm": None if calibration is None else calibration.pixel_size_nm,
    }
    # of the pixels as they are: whether they can be analysed is said when their turn comes
    claim(folder, record, [read_pixels(images, index) for index in looked_at], len(images), picks)
    if not (folder / MODEL).exists():
        save_run(run, folder / MODEL)
    steps = read_frames(run, images, folder, picks, reading=reading, calibration=calibration)
    return (yield from steps)


def read_frames(
    run: Run,
    images: Frames,
    folder: Path,
    picks: FramePicks | None,
    *,
    reading: Reading,
    calibration: Calibration | None,
    learned_from: Sequence[int] = (),
) -> Generator[Progress | FramesDone, str | None, SequenceRun]:
    """Read the frames that have no table in a folder yet, and join the tables of all."""
    sentences: list[str] = []
    done, stopped = 0, False
    for index in range(len(images)):
        path = _table_of(folder, index)
        if not path.exists():
            try:
                image = MicroscopeImage(
                    data=as_float_image(read_pixels(images, index)),
                    name=f"frame {index}",
                    calibration=calibration,
                )
                own = None if picks is None else picks.of_frame(index)
                made, stopped = yield from _read(run, image, own, reading, sentences)
            except InputError as error:  # one bad frame among a thousand is no reason to end
                sentences.append(f"Frame {index} was left out: {error}")
                made = run.atoms.iloc[:0]
            written_aside(path, _writer(atoms_csv(made)))
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
    if len(sentences) > MOST_SAID:
        more = len(sentences) - MOST_SAID
        sentences[MOST_SAID:] = [f"{more} more sentences like these of other frames."]
    return SequenceRun(
        table=folder / TABLE,
        count=count - 1,
        frames=done,
        run=run,
        learned_from=tuple(learned_from),
        sentences=tuple(sentences),
    )


def claim(
    folder: Path,
    record: dict[str, Any],
    some: Sequence[NDArray[Any]],
    frames: int,
    picks: FramePicks | None,
) -> None:
    """Make a folder and note what it is for, or see that it is for the same.

    Raises
    ------
    InputError
        If it cannot be made, or is for another sequence or other settings.
    """
    made_folder(folder)
    record = record | {"frames": frames, "sha256": [checksum(frame) for frame in some]}
    if picks is not None:
        record |= picks.checksums
    content = json.dumps(record, indent=1)
    path = folder / SETTINGS
    if path.exists():
        if path.read_text(encoding="utf-8") != content:
            raise InputError(
                f"{folder} holds another sequence, or one made with other settings: choose a new "
                "folder."
            )
        return
    written_aside(path, _writer(content.encode()))


def count_frames(images: Frames) -> int:
    """How many frames there are; there must be one."""
    if not len(images):
        raise InputError("The sequence has no frame: choose one that has.")
    return len(images)


def read_table(path: Path) -> pd.DataFrame:
    """Read the atoms of a sequence from their file."""
    with path.open("rb") as table:
        header = table.readline().decode().strip().split(",")
    words = {*TEXT, GIVEN} & set(header)
    return pd.read_csv(
        path,
        keep_default_na=False,
        na_values={name: [""] for name in header if name not in words},
        dtype=dict.fromkeys(words, object),
    )


def _writer(content: bytes) -> Any:
    return lambda file: file.write(content)


def fingerprint(run: Run) -> str:
    """Checksum of what a model is and how it takes intensities."""
    digest = hashlib.sha256(repr((run.model.config, run.intensity)).encode())
    for name, value in run.model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


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
    run: Run,
    image: MicroscopeImage,
    picks: tuple[NDArray[np.float64], NDArray[np.str_] | None] | None,
    reading: Reading,
    sentences: list[str],
) -> Generator[Progress, str | None, tuple[pd.DataFrame, bool]]:
    """Atoms of one frame, and whether this is to be the last; notes are added to the sentences."""
    positions_yx, given = picks or (None, None)
    if positions_yx is not None and not len(positions_yx):
        raise InputError("there are no atoms in it.")
    steps = encode_steps(
        run, image, positions_yx, given=given, tell_masked=False, **asdict(reading)
    )
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
