"""Memory that was used, back to the system. No Qt."""

import ctypes
import sys
from contextlib import suppress


def give_back_memory() -> None:
    """Give back what is not in use; for a thread, as it takes some milliseconds.

    The C library of Linux keeps memory for later, and more from run to run as it gets scattered.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
