"""Keeps Python from looking through all of its objects while something moves on the screen.

Such a search for unused cycles of objects takes 0.3 to 0.5 s in a program as large as napari with
torch (`benchmarks/gui_stall.py`), in which no thread of Python does anything else. It is put off
while a job is at work, and what is there anyway as long as the dock is open, such as modules, is
left out of later ones.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 1_000_000

_holders = 0
_usual = gc.get_threshold()
_docks = 0
_frozen = False


def put_off() -> None:
    """Look through new objects only, until `allow` was called as often as this."""
    global _holders, _usual  # noqa: PLW0603 - there is one collector for the whole program
    if not _holders:
        _usual = gc.get_threshold()
        gc.set_threshold(_usual[0], _usual[1], SELDOM)
    _holders += 1


def allow() -> None:
    """Let all objects be looked through again, the next time that Python deems it due."""
    global _holders  # noqa: PLW0603
    _holders -= 1
    if not _holders:
        gc.set_threshold(*_usual)


def open_dock() -> None:
    """Leave out of searches what is there after the next one, while a dock is open."""
    global _docks  # noqa: PLW0603
    _docks += 1
    _freeze_after_search()


def close_dock() -> None:
    """Search all again: what was there may be gone with the dock."""
    global _docks  # noqa: PLW0603
    _docks -= 1
    thaw()


def thaw() -> None:
    """Search all once more, as something old has gone: a layer, and the image that it holds."""
    global _frozen  # noqa: PLW0603
    if _frozen:
        gc.unfreeze()
        _frozen = False
    if _docks:
        _freeze_after_search()
    elif _on_search in gc.callbacks:
        gc.callbacks.remove(_on_search)


@contextmanager
def none_while_loading() -> Iterator[None]:
    """Import modules, whose objects are there to stay, without a search now or later."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _docks:
            _freeze()
        if was_on:
            gc.enable()


def _freeze_after_search() -> None:
    # what were garbage now would never be found
    if not _frozen and _on_search not in gc.callbacks:
        gc.callbacks.append(_on_search)


def _on_search(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        _freeze()


def _freeze() -> None:
    global _frozen  # noqa: PLW0603
    if _on_search in gc.callbacks:
        gc.callbacks.remove(_on_search)
    if _frozen or not gc.get_freeze_count():  # else it is somebody else's, not to be undone here
        gc.freeze()
        _frozen = True
