"""Keeps Python from looking through all of its objects while something moves on the screen.

Such a search for unused cycles of objects takes some tenths of a second in a program as large as
napari with torch, in which no thread of Python does anything else.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 1_000_000

_holders = 0
_usual = gc.get_threshold()


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


@contextmanager
def none_while_loading() -> Iterator[None]:
    """Import modules, whose objects are there to stay, without a search."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # All objects now count as old ones, which saves the search that so many new ones call for.
        gc.freeze()
        gc.unfreeze()
        if was_on:
            gc.enable()
