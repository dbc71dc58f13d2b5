"""The computer that an analysis runs on: device, cores, memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch

from napari_shiftvae.core.errors import InputError

__all__ = ["alone", "choose_device", "peak_memory_mb", "spare_one_core"]

MOST_THREADS = 4


@contextmanager
def spare_one_core() -> Generator[None]:
    """Let torch leave a core to the window and to other programs while an analysis runs.

    The regions of work are small: with all cores in use, each would wait for its slowest thread
    whenever anything else runs.
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 2
    torch.set_num_threads(max(1, min(MOST_THREADS, cores - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone() -> Generator[None]:
    """Let torch compute in the calling thread only.

    For what takes a millisecond or less: threads that are to share it have to be woken and waited
    for, which takes a hundred times as long while other programs use the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"`` into a device that is there.

    Parameters
    ----------
    name : str

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, found in there.items() if found), "cpu"))
    if not there.get(name, True):
        raise InputError(f"This machine has no {name} device: choose auto or cpu.")
    return torch.device(name)


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far [MB], None where it cannot be known."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
