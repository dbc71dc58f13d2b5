"""Keeps what libraries warn of in the threads of jobs from whoever else listens. No Qt.

How warnings are filtered and shown belongs to the process, and each of superqt's workers sets it
for itself. Of two that are at work at once, the one that ends first puts back what was before both,
and the one that ends last what was the other's: from then on a warning, in any thread, is a call of
a worker that has been deleted, and raises an error. Here it is set once for all jobs together, so
that it does not matter in which order they set it and put it back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNSHOWN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning)  # by Python's own filters

_jobs = 0
_before = warnings.catch_warnings()
_show_before = warnings.showwarning
_thread = threading.local()


def begin() -> None:
    """Set it for a job that is about to start; called in the main thread."""
    global _jobs, _before, _show_before  # noqa: PLW0603 - there is one set of filters for all
    if not _jobs:
        _show_before = warnings.showwarning
        _before = warnings.catch_warnings()
        _before.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = _show
    _jobs += 1


def end() -> None:
    """Put back what was before, after as many calls as of `begin`; called in the main thread."""
    global _jobs  # noqa: PLW0603
    _jobs -= 1
    if not _jobs:
        _before.__exit__(None, None, None)


@contextmanager
def in_job() -> Iterator[None]:
    """Warn nobody meanwhile of what this thread warns of."""
    warnings.showwarning = _show  # no more the worker's own, which may outlive it
    _thread.is_of_job = True
    try:
        yield
    finally:
        _thread.is_of_job = False


def _show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    if not getattr(_thread, "is_of_job", False) and not issubclass(category, UNSHOWN):
        _show_before(message, category, *where, **more)
