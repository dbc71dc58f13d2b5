"""Images in zarr, plain or OME; chunks that are not there are no zeros."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.errors import InputError, reading
from napari_shiftvae.core.signals import Axis, Signal, file_stem

__all__ = ["missing_sentence", "read_zarr", "without_missing_chunks"]


def read_zarr(path: Path) -> Signal:
    """Read the array of a zarr store, of OME-Zarr the first image at its full size.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Signal
        A stack is lazy (dask). Chunks that are not there are NaN; see `missing_sentence`.

    Raises
    ------
    InputError
        A library is not installed, or the store holds no image.
    """
    if not all(importlib.util.find_spec(name) for name in ("zarr", "dask")):
        raise InputError(
            f"{path.name} needs the zarr and dask libraries; run pip install napari-shiftvae[dask]."
        )
    store, axes = _image_in(path)
    return Signal(data=_pixels(store, path), name=file_stem(path), axes=axes)


def missing_sentence(path: Path | None) -> str:
    """Say how much of an image is not in its store, "" where all of it is there, or none is zarr.

    Zarr reads a chunk without a file as its fill value, zero as a rule, and leaves chunks that
    hold nothing else out when it writes: a store that was copied in part, a run that was broken
    off and a margin without data look the same, and none of them was measured.
    """
    store = None if path is None else _whole(path)
    if path is None or store is None:
        return ""
    missing, total = len(_missing(store, path)), int(np.prod(_grid(store)))
    if not missing:
        return ""
    are = "is" if missing == 1 else "are"
    return f"{path.name}: {missing} of {total} chunks {are} not in the file, and masked."


def without_missing_chunks(data: Any, path: Path | None) -> Any:
    """Mask the pixels of a lazy array whose chunks are not in the store that it is read from.

    Parameters
    ----------
    data : dask array
        Other arrays are given back as they are: their pixels need not be those of the store.
    path : Path or None
        The store; of another file or folder nothing is known.

    Returns
    -------
    dask array
        NaN in these chunks, of a floating-point type then.
    """
    store = None if path is None else _whole(path)
    if path is None or store is None:
        return data
    import dask.array

    if not isinstance(data, dask.array.Array) or data.shape != store.shape:
        return data
    missing = _missing(store, path)
    if not missing:
        return data
    own = np.result_type(data.dtype, np.float32)

    def masked(block: NDArray[Any], block_id: tuple[int, ...]) -> NDArray[Any]:
        return np.full(block.shape, np.nan, own) if block_id in missing else block.astype(own)

    lazy = data.rechunk(store.shards or store.chunks)  # type: ignore[no-untyped-call]
    return lazy.map_blocks(masked, dtype=own, meta=np.empty((0,) * data.ndim, own))


def _whole(path: Path) -> Any:
    """Array of the image, None where there is none that `read_zarr` would read."""
    if not path.is_dir():
        return None
    try:
        with reading(path):
            return _image_in(path)[0]
    except InputError:
        return None


def _image_in(path: Path) -> tuple[Any, tuple[Axis, ...]]:
    """Array of the image, and its axes."""
    import zarr

    store = zarr.open(path, mode="r")
    if isinstance(store, zarr.Array):
        return store, tuple(Axis() for _ in range(store.ndim))
    # a folder of arrays: OME-Zarr, whose first data set is the full-size image
    attributes: dict[str, Any] = dict(store.attrs)
    described = attributes.get("ome", attributes).get("multiscales")
    if not described:
        raise InputError(
            f"{path.name} is a zarr group without an OME image; give the path of one of its arrays."
        )
    image = described[0]["datasets"][0]
    steps = next(
        (t["scale"] for t in image.get("coordinateTransformations", []) if t["type"] == "scale"),
        [1.0] * len(described[0]["axes"]),
    )
    axes = tuple(
        Axis(name=str(axis["name"]), scale=float(step), unit=str(axis.get("unit", "")))
        for axis, step in zip(described[0]["axes"], steps, strict=True)
    )
    return store[image["path"]], axes


def _pixels(store: Any, path: Path) -> Any:
    """Pixels of an image, or a dask array of a stack, whose frames are read when asked for."""
    import dask.array

    lazy = dask.array.from_array(store, chunks=store.chunks)  # type: ignore[no-untyped-call]
    lazy = without_missing_chunks(lazy, path)
    return np.asarray(lazy) if sum(length > 1 for length in store.shape) <= 2 else lazy


def _grid(store: Any) -> tuple[int, ...]:
    """How many files the array is in along each axis."""
    sides = store.shards or store.chunks
    return tuple(-(-length // side) for length, side in zip(store.shape, sides, strict=True))


def _missing(store: Any, path: Path) -> set[tuple[int, ...]]:
    """Chunks without a file."""
    folder = path / store.path
    return {
        place
        for place in np.ndindex(*_grid(store))
        if not (folder / store.metadata.encode_chunk_key(place)).exists()
    }
