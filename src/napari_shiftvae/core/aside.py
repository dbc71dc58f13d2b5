"""Folders, and files that are whole at any moment: written aside, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4

from napari_shiftvae.core.errors import InputError

__all__ = ["made_folder", "written_aside"]


def made_folder(folder: str | Path) -> Path:
    """Make a folder, and those that it is in, where it is not there yet.

    Raises
    ------
    InputError
        If it cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} could not be made ({error.strerror or error}): choose another."
        ) from error
    return folder


def written_aside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name and rename it, so that an older one stays whole.

    Parameters
    ----------
    path : Path
    write : callable
        Writes the contents into the file that it is given.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    # Not `tempfile`: its files are for their owner's eyes only, and would stay so.
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        try:
            with aside.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path} could not be written ({reason}): choose another folder or free some space."
        ) from error
