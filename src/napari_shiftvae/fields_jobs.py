"""What the Fields tab has done in a thread. No Qt, no layers."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_shiftvae.core.images import MicroscopeImage, as_float_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_shiftvae.core.figure import Figure
    from napari_shiftvae.core.readout import Options, Readout
    from napari_shiftvae.core.reconstruction import Reconstruction
    from napari_shiftvae.core.run_figure import View
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.scalars import Scalar
    from napari_shiftvae.core.vector_field import VectorField

# As `core.readout` has them, which loads torch.
VECTORS = {
    "polar displacement in the cage": (
        "The central atom against all else in its patch; ferroelectric polarisation is "
        "proportional to it."
    ),
    "polar displacement between sublattices": (
        "Atoms of all other sublattices against the mean of their nearest neighbours of the first "
        "one; needs sublattices named in the Atoms tab."
    ),
    "displacement from the lattice": "Position minus its place on the fitted ideal lattice.",
    "displacement from the neighbours": (
        "Position minus the mean of the opposite neighbours of the same sublattice."
    ),
    "shift from the pick": "Where the pattern or the atom lies, seen from the pick.",
}


def read(
    run: Run,
    wanted: dict[str, Any],
    region: NDArray[np.bool_] | None,
    more: dict[str, Any],
) -> tuple[Run, Readout]:
    """Work out vectors and scalars; a region (H, W) says which atoms are the reference.

    `wanted` are the arguments of `readout.Options`, `more` further ones of `readout.read_out`.
    """
    from napari_shiftvae.core.readout import Options, read_out

    inside = None
    if region is not None:
        y, x = run.picks_yx.round().astype(int).T
        inside = region[y.clip(0, len(region) - 1), x.clip(0, region.shape[1] - 1)]
    options: Options = Options(**wanted)
    return run, read_out(run, options, inside=inside, **more)


def draw(run: Run, scalar: Scalar) -> tuple[Run, Scalar, NDArray[np.float32]]:
    """Draw a map on the pixels of the image."""
    return run, scalar, scalar.on_pixels(run)


def figure(
    run: Run, image: NDArray[Any], view: View, scalar: Scalar | None, field: VectorField | None
) -> Figure:
    """Put what is shown into one figure."""
    from napari_shiftvae.core.run_figure import figure_of

    shown = None if scalar is None else (scalar, scalar.on_pixels(run))
    return figure_of(as_float_image(image), view, shown=shown, field=field)


def figure_to_copy(*what: Any) -> tuple[bytes, bytes]:
    """Draw a figure as PNG and SVG; arguments as for `figure`."""
    from napari_shiftvae.core.figure_files import as_png, as_svg

    made = figure(*what)
    return as_png(made), as_svg(made)


def save_figure(path: str, *what: Any) -> str:
    """Write a figure as the ending of the path says; say so."""
    from functools import partial

    from napari_shiftvae.core.aside import written_aside
    from napari_shiftvae.core.figure_files import figure_file

    content = figure_file(figure(*what), path)
    written_aside(Path(path), partial(_put, content))
    return f"Wrote {path}."


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def export(run: Run, image: MicroscopeImage | None, folder: str, scalars: list[Scalar]) -> str:
    """Write tables, maps, figures and a script into a folder; say so."""
    from napari_shiftvae.core.export import export_run

    written = export_run(run, image, folder, scalars=scalars or None)
    return f"Wrote {len(written)} files into {folder}."


def save(run: Run, path: str) -> str:
    """Write a run file; say so."""
    from napari_shiftvae.core.runfile import save_run

    return f"Wrote {save_run(run, path)}."


def reconstruct(run: Run, image: MicroscopeImage) -> tuple[Run, Reconstruction]:
    """Draw the image as the model has it."""
    from napari_shiftvae.core.manifold import patches_of
    from napari_shiftvae.core.reconstruction import reconstruct as draw

    return run, draw(run, patches_of(run, image), as_float_image(image.data))
