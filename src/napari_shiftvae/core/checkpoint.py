"""Runs saved while they are made, so that a crash loses no more than seconds of work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_shiftvae.core.errors import Cancelled, InputError, tell

if TYPE_CHECKING:
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.spectra_run import SpectraRun

__all__ = [
    "CHECKPOINT_EVERY_S",
    "Autosave",
    "Interrupted",
    "autosaved",
    "checkpoint_beside",
    "latest_checkpoint",
    "runs_folder",
    "save_at_end",
    "with_checkpoints",
]

AnyRun = TypeVar("AnyRun", "Run", "SpectraRun")

CHECKPOINT_EVERY_S = 25.0
ABANDONED_S = 24 * 3600.0
CHECKPOINT = ".checkpoint.shiftvae"  # ends the names of runs that are not finished


def runs_folder() -> Path:
    """Folder of this user's runs, where no other was chosen.

    Returns
    -------
    Path
        ``napari-shiftvae/runs`` where programs keep their data on this system; it need not exist.
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "napari-shiftvae" / "runs"


@dataclass(frozen=True, kw_only=True)
class Autosave:
    """Where one analysis is saved without being asked.

    Attributes
    ----------
    folder : Path
    name : str
        Begins the names of its files; no other run has it.
    """

    folder: Path
    name: str

    @classmethod
    def of(cls, image_name: str, folder: Path | None = None) -> Autosave:
        """Choose names for a new analysis of an image, in the user's own folder by default."""
        plain = "".join(sign if sign.isalnum() or sign in " -_+" else "_" for sign in image_name)
        moment = datetime.now().astimezone().strftime("%Y-%m-%d %H.%M.%S")
        name = f"{plain.strip()[:80] or 'image'} {moment} {os.getpid()}"
        return cls(folder=folder or runs_folder(), name=name)

    @property
    def checkpoint(self) -> Path:
        """File of the unfinished run."""
        return self.folder / f"{self.name}{CHECKPOINT}"

    @property
    def finished(self) -> Path:
        """File of the finished run."""
        return self.folder / f"{self.name}.shiftvae"


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """What the name of a checkpoint tells.

    Attributes
    ----------
    image_name : str
    begun : str
        Date and time.
    """

    image_name: str
    begun: str

    @classmethod
    def of(cls, checkpoint: Path) -> Interrupted | None:
        """Read the name of a checkpoint; None where it is not one of `Autosave`.

        Examples
        --------
        >>> Interrupted.of(Autosave.of("made", Path()).checkpoint).image_name
        'made'
        """
        name = checkpoint.name.removesuffix(CHECKPOINT)
        pieces = name.rsplit(" ", 3)
        if name == checkpoint.name or len(pieces) < 4 or not pieces[3].isdecimal():
            return None
        return cls(image_name=pieces[0], begun=f"{pieces[1]} {pieces[2].replace('.', ':')}")


def autosaved(
    steps: Generator[Progress, str | None, AnyRun],
    where: Autosave,
    *,
    continues: Path | None = None,
    every_s: float = CHECKPOINT_EVERY_S,
    executor: Executor | None = None,
) -> Generator[Progress, str | None, AnyRun]:
    """Pass an analysis on, with checkpoints while it trains, and save it at its end.

    Where a file cannot be written, a warning says so and the analysis goes on.

    Parameters
    ----------
    steps : generator
        From `analyse.analyse`.
    where : Autosave
        Its folder is made where it is missing, for its owner's eyes only.
    continues : Path, optional
        Checkpoint of the run that is trained on; it becomes the first one of this analysis, so that
        it is there if this one is interrupted too, and gone when it is finished.
    every_s : float
        Time between checkpoints [s].
    executor : Executor, optional
        As of `with_checkpoints`.

    Yields
    ------
    Progress

    Returns
    -------
    Run

    Examples
    --------
    >>> from napari_shiftvae.core.analyse import analyse, finish
    >>> run = finish(autosaved(analyse(image, config), Autosave.of("image")))  # doctest: +SKIP
    """
    _make(where.folder)
    if continues is not None:
        with suppress(OSError):  # it may have been moved or removed meanwhile, which harms nothing
            continues.replace(where.checkpoint)
    run = yield from with_checkpoints(
        steps, where.checkpoint, every_s=every_s, discard=continues is None, executor=executor
    )
    if _saved(run, where.finished):
        where.checkpoint.unlink(missing_ok=True)
    return run


def save_at_end(run: Run | SpectraRun, where: Autosave) -> Path | None:
    """Save a run that is finished, without having been asked.

    Parameters
    ----------
    run : Run or SpectraRun
    where : Autosave

    Returns
    -------
    Path or None
        The file; None, after a warning, where it cannot be written.
    """
    _make(where.folder)
    return where.finished if _saved(run, where.finished) else None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _warn(f"{folder} could not be made ({error.strerror or error})")
    _sweep(folder)


def with_checkpoints(
    steps: Generator[Progress, str | None, AnyRun],
    path: Path,
    *,
    every_s: float = CHECKPOINT_EVERY_S,
    discard: bool = True,
    executor: Executor | None = None,
) -> Generator[Progress, str | None, AnyRun]:
    """Pass an analysis on, and save what it has learned at intervals while it trains.

    A checkpoint is a run file like any other: it opens, with results of up to 200 atoms, and the
    training goes on from it with the same numbers. An analysis that is closed before its end
    leaves one, an analysis that is `Cancelled` none. It is for the caller to remove it when the
    finished run is saved. A file that cannot be written is said in a warning and stops nothing.

    Parameters
    ----------
    steps : generator
        From `analyse.analyse`.
    path : Path
        Checkpoint; the older one stays whole until the newer one is.
    every_s : float
        Time between checkpoints [s].
    discard : bool
        Whether an analysis that is `Cancelled` leaves no checkpoint; where the file was there
        before, it stays.
    executor : Executor, optional
        Makes and writes them beside the training, which else waits for each, some tenths of a
        second, and so does who stops it. The analysis does not end before the last is written.

    Yields
    ------
    Progress

    Returns
    -------
    Run
    """
    saved = time.monotonic()
    sent: str | None = None
    writing: Future[str | None] | None = None

    def wait() -> None:
        nonlocal writing
        if writing is not None:
            _tell(writing.result())
        writing = None

    while True:
        try:
            progress = steps.send(sent)
        except StopIteration as end:
            wait()
            run: AnyRun = end.value
            return run
        if writing is not None and writing.done():
            wait()
        due = time.monotonic() - saved >= every_s
        if progress.hold is not None and due and writing is None:
            held = progress.hold()
            if executor is None:
                _saved(held(), path)
            else:
                writing = executor.submit(_written, held, path)
            saved = time.monotonic()
        try:
            sent = yield progress
        except Cancelled:
            wait()
            if discard:
                path.unlink(missing_ok=True)
            raise
        except GeneratorExit:
            wait()
            if progress.snapshot is not None:
                _saved(progress.snapshot(), path)
            raise


def checkpoint_beside(output: Path) -> Path:
    """Checkpoint of a run that is to be written to a file."""
    return output.with_name(output.name.removesuffix(".shiftvae") + CHECKPOINT)


def latest_checkpoint(folder: Path | None = None) -> Path | None:
    """Find what the newest analysis that did not end has left.

    Parameters
    ----------
    folder : Path, optional
        By default `runs_folder`.

    Returns
    -------
    Path or None
        A run file; those of processes that are still running do not count.
    """
    found = []
    for path in (folder or runs_folder()).glob(f"*{CHECKPOINT}"):
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:  # removed meanwhile
            continue
    return next((path for _, path in sorted(found, reverse=True) if not _at_work(path)), None)


def _at_work(checkpoint: Path) -> bool:
    """Whether the process that the file's name tells of is running."""
    pid = checkpoint.name.removesuffix(CHECKPOINT).rpartition(" ")[2]
    if sys.platform == "win32" or not pid.isdecimal() or not 0 < int(pid) < 2**31:
        return False  # on Windows, asking in this way would end it
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove parts of files that processes were writing when they were killed."""
    for part in folder.glob("*.part"):
        try:
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()
        except OSError:  # another process was faster, or it is not ours
            continue


def _saved(run: Run | SpectraRun, path: Path) -> bool:
    reason = _try_to_save(run, path)
    _tell(reason)
    return reason is None


def _written(held: Callable[[], Run | SpectraRun], path: Path) -> str | None:
    """Do so beside the training, with no more cores than it has; why it was not possible."""
    from napari_shiftvae.core.computer import alone

    with alone():
        return _try_to_save(held(), path)


def _try_to_save(run: Run | SpectraRun, path: Path) -> str | None:
    from napari_shiftvae.core.runfile import save_run

    try:
        save_run(run, path)
    except InputError as error:
        return str(error)
    return None


def _tell(reason: str | None) -> None:
    if reason is not None:
        _warn(reason)


def _warn(reason: str) -> None:
    tell(f"The run is not being saved: {reason}", stacklevel=3)
