"""What a run holds as files for other programs: tables, maps, figures, and a script."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_shiftvae.core.aside import made_folder, written_aside
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.fields import pixel_maps
from napari_shiftvae.core.figure import Arrows, Figure
from napari_shiftvae.core.figure_files import as_png, as_svg
from napari_shiftvae.core.images import MicroscopeImage, as_float_image, checksum
from napari_shiftvae.core.lattice import neighbour_distance
from napari_shiftvae.core.lengths import Ruler
from napari_shiftvae.core.palettes import GREY, limits_of
from napari_shiftvae.core.readout import Options, polar_in_cage, read_out
from napari_shiftvae.core.reproduce import reproducing_script
from napari_shiftvae.core.runfile import atoms_csv
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.scalars import Scalar, drawn_maps

__all__ = ["export_run", "tiff_of"]

FEWEST = 3  # atoms that a map is drawn from


def export_run(
    run: Run,
    image: MicroscopeImage | None,
    folder: str | Path,
    *,
    scalars: Sequence[Scalar] | None = None,
) -> list[Path]:
    """Write ``atoms.csv``, a TIFF of each map, figures as PNG and SVG, and ``reproduce.py``.

    The TIFFs hold the values in 32 bits, the size of a pixel, and in the channel's name what they
    are with their unit; those that end in ``_sd`` are standard deviations.

    Parameters
    ----------
    run : Run
    image : MicroscopeImage or None
        The image that was analysed, to lie beneath the arrows; kept as ``image.npy`` for the
        script where it was not read from a file.
    folder : str or Path
        Made where it is missing; files in it with the same names are replaced.
    scalars : sequence of Scalar, optional
        What maps are made of, from `readout.read_out`; by default polar displacement, strain,
        latents and residual as that gives them.

    Returns
    -------
    list of Path
        Files that were written. There is no script for a run whose model is another image's.

    Raises
    ------
    InputError
        If the image is another one, a scalar is of other atoms, or nothing can be written.

    Examples
    --------
    >>> from napari_shiftvae.core.runfile import load_run
    >>> export_run(load_run("made.shiftvae"), None, "results")  # doctest: +SKIP
    """
    folder = Path(folder)
    if image is not None and checksum(image.data) != run.image.sha256:
        raise InputError(f"{image.name} is not the image of this run: give the one it was made of.")
    if scalars is None:
        scalars = list(read_out(run, Options()).scalars.values())
    size = run.image.pixel_size_nm
    ruler = Ruler.of("pm", size)
    scalars = [one.given_in(ruler) for one in scalars if one.known >= FEWEST]
    deviations = [one.deviation() for one in scalars if np.isfinite(one.sd).sum() >= FEWEST]
    labels = {scalar.file_name: scalar.label for scalar in (*scalars, *deviations)}
    files = {"atoms.csv": atoms_csv(run.atoms)}
    figures = dict(_arrow_figures(run, image))
    for scalar, drawn in drawn_maps(run, [*scalars, *deviations]):
        name = scalar.file_name
        files[f"{name}.ome.tif"] = tiff_of(drawn, size, labels[name])
        if scalar in scalars:
            figures[name] = Figure(
                pixels=drawn,
                title=scalar.label,
                limits=scalar.limits,
                colours=scalar.palette,
                pixel_size_nm=size,
            )
    for name, drawn in _position_maps(run).items():
        files[f"{name}.ome.tif"] = tiff_of(drawn, size, name)
    for name, figure in figures.items():
        files[f"{name}.svg"], files[f"{name}.png"] = as_svg(figure), as_png(figure)
    if run.trained_on is None:
        if image is not None and image.path is None:
            packed = io.BytesIO()
            np.save(packed, image.data, allow_pickle=False)
            files["image.npy"] = packed.getvalue()
        files["reproduce.py"] = reproducing_script(run, image).encode()
    made_folder(folder)
    written = []
    for name, content in files.items():
        written_aside(folder / name, partial(_put, content))
        written.append(folder / name)
    return written


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def tiff_of(
    values: NDArray[np.float32], pixel_size_nm: tuple[float, float] | None, label: str = ""
) -> bytes:
    """Pack a map as OME-TIFF.

    Parameters
    ----------
    values : (H, W) array
    pixel_size_nm : tuple of float or None
        (y, x).
    label : str
        What the values are, with their unit: the name of the channel.

    Returns
    -------
    bytes
    """
    metadata: dict[str, object] = {"axes": "YX"}
    if label:
        metadata["Channel"] = {"Name": label}
    if pixel_size_nm is not None:
        for letter, size in zip("YX", pixel_size_nm, strict=True):
            metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": "nm"}
    packed = io.BytesIO()
    tifffile.imwrite(
        packed,
        np.asarray(values, dtype=np.float32),
        ome=True,
        compression="zlib",
        metadata=metadata,
    )
    return packed.getvalue()


def _position_maps(run: Run) -> dict[str, NDArray[np.float32]]:
    """Maps of shifts, and of the atoms against their cages."""
    shift, cage = _vectors(run)
    columns = {
        "shift_y_px": shift[:, 0],
        "shift_x_px": shift[:, 1],
        "atom_against_cage_y_px": cage[:, 0],
        "atom_against_cage_x_px": cage[:, 1],
    }
    used = run.used
    drawn = [
        pixel_maps(run.picks_yx[used], values[used, None], run.image.shape)[0]
        for values in columns.values()
    ]
    return dict(zip(columns, drawn, strict=True))


def _vectors(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whole pattern minus pick, and central atom against its cage, (M, 2) each [px]."""
    shift = run.atoms[["shift_y_px", "shift_x_px"]].to_numpy(dtype=np.float64)
    return shift, polar_in_cage(run).yx_px


def _arrow_figures(run: Run, image: MicroscopeImage | None) -> Iterator[tuple[str, Figure]]:
    """Figures of the vectors on the image, where it is there."""
    if image is None:
        beneath = np.full(run.image.shape, np.nan, dtype=np.float32)
    else:
        beneath = as_float_image(image.data)
    titles = ("shift of the whole pattern", "central atom against its cage")
    for name, title, vectors in zip(
        ("shift", "atom_against_cage"), titles, _vectors(run), strict=True
    ):
        there = np.isfinite(vectors).all(axis=1)
        gain = _gain(np.stack([run.picks_yx[there], vectors[there]], axis=1))
        yield (
            name,
            Figure(
                pixels=beneath,
                title=f"{title}, arrows {gain:.3g} times as long",
                limits=limits_of(beneath),
                colours=GREY,
                bar=None,
                pixel_size_nm=run.image.pixel_size_nm,
                arrows=Arrows(start_yx=run.picks_yx[there], along_yx=vectors[there], gain=gain),
            ),
        )


def _gain(arrows: NDArray[np.float64]) -> float:
    """Magnification at which the longest arrows are as long as atoms are apart."""
    if len(arrows) < 3:
        return 1.0
    longest = float(np.percentile(np.linalg.norm(arrows[:, 1], axis=1), 95))
    return float(np.clip(0.8 * neighbour_distance(arrows[:, 0]) / max(longest, 1e-6), 1, 200))
