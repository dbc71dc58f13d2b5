"""An image as the analysis takes it: read, checked, converted."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.formats import read_signals
from napari_shiftvae.core.signals import Axis, Signal, file_stem, nm_per_unit

COARSEST = 0.01  # step of single precision, over the standard deviation of the image
TOO_FINE = (
    "The values of the image differ by too little beside their size for single precision; "
    "subtract their mean, and divide by their standard deviation."
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Size of a pixel.

    Attributes
    ----------
    pixel_size_nm : tuple of float
        Height and width (y, x) of a pixel [nm].
    """

    pixel_size_nm: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(math.isfinite(size) and size > 0 for size in self.pixel_size_nm):
            raise InputError(
                f"pixel_size_nm is {self.pixel_size_nm}; give two lengths above zero, in nm."
            )


@dataclass(frozen=True, kw_only=True)
class MicroscopeImage:
    """One image with what is known about it.

    Attributes
    ----------
    data : array (H, W) or (T, H, W)
        An image or a stack of frames. Pixels in their own type; `as_float_image` converts them.
    name : str
        Name for layers and files.
    path : Path or None
        Where it was read from.
    calibration : Calibration or None
        None where the size of a pixel is not known.
    """

    data: NDArray[Any]
    name: str
    path: Path | None = None
    calibration: Calibration | None = None

    @cached_property
    def sha256(self) -> str:
        """Checksum of the pixels as they are when it is first asked for."""
        return checksum(self.data)


def read_image(path: str | Path, *, stacks: bool = False) -> MicroscopeImage:
    """Read the first 2-D image of a file, with its calibration.

    Parameters
    ----------
    path : str or Path
        TIFF (calibrated by OME-XML or ImageJ), PNG, npy, zarr (OME-Zarr too); with the extra `em` a
        microscope vendor's file (dm3, dm4, emd, ser, mrc, hspy ...), with the extra `spm` a scan
        (sxm, gwy, gsf).
    stacks : bool
        Whether the first stack of frames is read where the file has no 2-D image.

    Returns
    -------
    MicroscopeImage
        `data` is (H, W), or (T, H, W) of a stack, of the file's own type. Axes of length one are
        dropped. A stack of zarr, npy, plain TIFF or a large vendor's file is read frame by frame
        when it is used.

    Raises
    ------
    InputError
        The file cannot be read, or its image cannot be analysed (see `as_float_image`).
    """
    path = Path(path)
    signals = read_signals(path)
    flat = [signal for signal in signals if _extent(signal.data.shape) == 2]
    real = [signal for signal in flat if signal.data.dtype.kind != "c"]
    deep = [signal for signal in signals if stacks and _is_stack(signal)]
    signal = (real or flat or deep or signals)[0]
    if signal.spectral:
        raise InputError(
            f"{path.name} holds a spectrum for each pixel of a scan: analyse these along their "
            "axis, with --spectra 0 or in the Train tab."
        )
    kept = [i for i, length in enumerate(signal.data.shape) if length > 1 or not (flat or deep)]
    is_stack = bool(deep) and not flat and signal.data.shape[kept[-1]] not in {3, 4}  # that is RGB
    data = signal.data if is_stack else np.asarray(signal.data)
    data = data[tuple(slice(None) if i in kept else 0 for i in range(data.ndim))]
    try:
        as_float_image(data[0] if is_stack else data)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    return MicroscopeImage(
        data=data,
        name=file_stem(path),
        path=path,
        calibration=_calibration([signal.axes[i] for i in kept[-2:]]),
    )


def _is_stack(signal: Signal) -> bool:
    return _extent(signal.data.shape) == 3 and not signal.spectral


def _extent(shape: tuple[int, ...]) -> int:
    return sum(length > 1 for length in shape)


def _calibration(axes: list[Axis]) -> Calibration | None:
    """Calibration of a (y, x) pair of axes, None unless both have a unit of length."""
    y_nm, x_nm = ((nm_per_unit(axis.unit) or 0.0) * abs(axis.scale) for axis in axes)
    if not (math.isfinite(y_nm) and math.isfinite(x_nm) and y_nm > 0 and x_nm > 0):
        return None
    return Calibration(pixel_size_nm=(y_nm, x_nm))


def as_float_image(data: ArrayLike) -> NDArray[np.float32]:
    """Check an image and convert it to single precision.

    Integer, boolean and double-precision images are converted, infinite pixels become NaN, NaN
    pixels stay: they are masked in the analysis.

    Parameters
    ----------
    data : array-like (H, W)
        Numpy, dask or zarr array of numbers.

    Returns
    -------
    array (H, W), float32
        May share memory with `data` where nothing had to be changed.

    Raises
    ------
    InputError
        The image is not 2-D, RGB, complex, empty, constant, without a valid pixel, not made of
        numbers, lost in single precision, or cannot be read.

    Examples
    --------
    >>> as_float_image([[1, 2], [3, 4]]).dtype
    dtype('float32')
    """
    pixels = read_pixels(data)
    if pixels.dtype.kind == "c":
        raise InputError("The image is complex; take its magnitude or its phase first.")
    if pixels.dtype.kind not in "biuf":
        raise InputError(
            f"The image holds {pixels.dtype} values; give an array of integers or real numbers."
        )
    shape = " x ".join(str(length) for length in pixels.shape)
    if pixels.ndim == 3 and pixels.shape[-1] in {3, 4}:
        raise InputError(
            f"The image is RGB ({shape}); convert it to one grey channel, "
            "in napari with a right click on the layer and Split RGB."
        )
    if pixels.ndim != 2:
        raise InputError(
            f"The image has {pixels.ndim} dimension{'s' * (pixels.ndim != 1)} "
            f"({shape or 'a single value'}); "
            "give one 2-D image, such as one frame of a stack."
        )
    if pixels.size == 0:
        raise InputError(f"The image is empty ({shape}); choose one that has pixels.")
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(pixels, dtype=np.float32)
    finite = np.isfinite(image)
    if not np.array_equal(finite, np.isfinite(pixels)):
        raise InputError(
            "The image has values beyond the range of single precision; divide it by its maximum."
        )
    if not finite.any():
        raise InputError("The image has no valid pixel, all are NaN or infinite; choose another.")
    lowest, highest = image[finite].min(), image[finite].max()
    if lowest == highest:
        if pixels[finite].min() == pixels[finite].max():
            raise InputError(
                f"The image is constant (every valid pixel is {lowest:g}); choose one with "
                "contrast."
            )
        raise InputError(TOO_FINE)
    if not np.can_cast(pixels.dtype, np.float32) and _rounds(image[finite], pixels[finite]):
        raise InputError(TOO_FINE)
    if np.isinf(image).any():
        image = np.where(finite, image, np.float32(np.nan))
    return image


def _rounds(image: NDArray[np.float32], pixels: NDArray[Any]) -> bool:
    """Whether what single precision rounds off is seen beside how the values vary."""
    step = float(np.spacing(np.abs(image).max()))
    return step > COARSEST * float(np.std(pixels, dtype=np.float64))


def read_pixels(data: Any, frame: int | None = None) -> NDArray[Any]:
    """Take the values of an array, which may have to be read from a file or computed first.

    Parameters
    ----------
    data : array-like
        Numpy, dask or zarr array.
    frame : int, optional
        Of a stack, the only one to read.

    Returns
    -------
    array

    Raises
    ------
    InputError
        If that fails, for whatever reason.
    """
    try:
        return np.asarray(data if frame is None else data[frame])
    except MemoryError:
        raise
    except Exception as error:  # whatever the user's own graph of tasks does
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(
            f"The pixels could not be read ({reason}): see whether their file is still there, and "
            "open the image again."
        ) from error


def masked_sentence(image: NDArray[np.float32]) -> str:
    """Say how many pixels of an image from `as_float_image` are left out, "" where none are.

    Examples
    --------
    >>> masked_sentence(np.array([[1, 2], [np.nan, 3]], dtype=np.float32))
    '1 pixel (25 %) is NaN or infinite: masked, and left out of the analysis.'
    """
    count = int(np.isnan(image).sum())
    if not count:
        return ""
    are = "pixel ({}) is" if count == 1 else "pixels ({}) are"
    share = f"{100 * count / image.size:.2g} %"
    return f"{count} {are.format(share)} NaN or infinite: masked, and left out of the analysis."


def checksum(data: ArrayLike) -> str:
    """Fingerprint of an array: the same for equal values, type and shape on every machine.

    Parameters
    ----------
    data : array-like
        Any array of numbers.

    Returns
    -------
    str
        SHA-256 over type, shape and bytes (little-endian, row by row), as 64 hexadecimal digits.
    """
    array = read_pixels(data)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    # as bytes: long numbers and dates have no buffer of their own
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
