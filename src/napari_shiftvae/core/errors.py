"""What a user is told: of a mistake, of a mishap, and where memory runs out."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """The input cannot be used as it is.

    The message is one sentence for the user: what is wrong, and what to do about it. The command
    line prints it and ends with status 2; the widgets show it. Any other exception is a defect.
    """


class Notice(UserWarning):
    """A warning that is meant for the user: the command line prints it and the widgets show it."""


_ears = threading.local()


def tell(sentence: str, *, stacklevel: int = 1) -> None:
    """Tell the user something: a `Notice`, or a call of who listens in this thread.

    Parameters
    ----------
    sentence : str
    stacklevel : int
        That of `warnings.warn`, counted from the caller.
    """
    hear = getattr(_ears, "hear", None)
    if hear is None:
        warnings.warn(sentence, Notice, stacklevel=stacklevel + 1)
    else:
        hear(sentence)


@contextmanager
def listening(hear: Callable[[str], None]) -> Iterator[None]:
    """Have what is told in this thread heard, instead of warned of.

    What catches warnings belongs to the process: of two threads that do, one may find the other's
    filters.
    """
    _ears.hear = hear
    try:
        yield
    finally:
        del _ears.hear


class Cancelled(BaseException):
    """Thrown into an analysis whose result nobody wants any more: it leaves nothing behind.

    No `GeneratorExit`, which ``yield from`` does not pass on as it is.
    """


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a broken or foreign file into an `InputError`.

    Parameters
    ----------
    path : Path
        The file being read; its name stands in the message.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # Each file format's library has its own idea of what to raise on a truncated file.
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(
            f"{path.name} could not be read ({reason}); check that the file is complete and that "
            "its name ends as its format does."
        ) from error


OUT_OF_MEMORY = (
    "The memory does not suffice: close other programs, or choose fewer atoms, smaller patches, "
    "smaller batches or another device."
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an error that says that memory ran out.

    Parameters
    ----------
    error : exception

    Returns
    -------
    bool

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."))
    True
    >>> is_out_of_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))
    False
    """
    # Torch raises RuntimeError for it, on each device in other words.
    words = str(error).casefold()
    signs = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc_failed")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in words for sign in signs)
    )
