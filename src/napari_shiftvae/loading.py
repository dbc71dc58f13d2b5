"""Loads torch ahead of its first use. No Qt."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from pathlib import Path

from napari_shiftvae.garbage import none_while_loading

ANALYSIS = "napari_shiftvae.core.analyse"
# What else a run and its tabs import, each when it is first used.
ALSO = ("apply", "manifold", "readout", "run_figure", "seeds")
LIBRARIES = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib"}


def is_loaded() -> bool:
    """Whether nothing is left to load."""
    return ANALYSIS in sys.modules


def load_torch() -> None:
    """Import what an analysis needs; for a thread, while the window lives."""
    _map_library()
    with none_while_loading():
        importlib.import_module(ANALYSIS)
        for name in ALSO:
            importlib.import_module(f"napari_shiftvae.core.{name}")


def _map_library() -> None:
    """Load torch's largest library while other threads go on.

    Python holds its lock while it loads one, for some tenths of a second here; a call through
    ctypes does without.
    """
    found, name = importlib.util.find_spec("torch"), LIBRARIES.get(sys.platform)
    if "torch" in sys.modules or found is None or found.origin is None or name is None:
        return
    library = Path(found.origin).parent / "lib" / name
    if library.is_file():  # whatever comes of it, torch loads it again
        ctypes.CDLL(None).dlopen(os.fsencode(library), os.RTLD_NOW)
