"""Figures written as SVG, PNG or calibrated TIFF."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.figure import TEXT, Figure, Head, Line, Picture, laid_out

__all__ = ["as_png", "as_svg", "as_tiff", "figure_file"]

SHARPNESS = 2  # pixels of a PNG or TIFF for each unit of the page
SMOOTHER = 2  # drawn larger by this and made smaller: smooth edges


def as_svg(figure: Figure) -> bytes:
    """Draw a figure as SVG: the map embedded as PNG, all else as lines, shapes and text.

    Parameters
    ----------
    figure : Figure

    Returns
    -------
    bytes
    """
    page = laid_out(figure)
    size = f'width="{page.width:.0f}" height="{page.height:.0f}"'
    box = f'viewBox="0 0 {page.width:.0f} {page.height:.0f}"'
    font = f'font-family="sans-serif" font-size="{TEXT:g}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} {font}>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for part in page.parts:
        if isinstance(part, Picture):
            packed = io.BytesIO()
            Image.fromarray(part.pixels).save(packed, "PNG")
            data = base64.b64encode(packed.getvalue()).decode()
            lines.append(
                f'<image x="{part.x:g}" y="{part.y:g}" width="{part.width:.6g}" '
                f'height="{part.height:.6g}" preserveAspectRatio="none" '
                f'image-rendering="pixelated" href="data:image/png;base64,{data}"/>'
            )
        elif isinstance(part, Line):
            x1, y1, x2, y2 = part.ends
            lines.append(
                f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" '
                f'stroke="{part.colour}" stroke-width="{part.width:g}"/>'
            )
        elif isinstance(part, Head):
            corners = " ".join(f"{x:.2f},{y:.2f}" for x, y in part.corners)
            lines.append(f'<polygon points="{corners}" fill="{part.colour}"/>')
        else:
            lines.append(f'<text x="{part.x:g}" y="{part.y:g}">{escape(part.text)}</text>')
    return "\n".join([*lines, "</svg>\n"]).encode()


def as_png(figure: Figure) -> bytes:
    """Draw a figure as PNG.

    Parameters
    ----------
    figure : Figure

    Returns
    -------
    bytes
    """
    packed = io.BytesIO()
    Image.fromarray(_painted(figure)).save(packed, "PNG")
    return packed.getvalue()


def as_tiff(figure: Figure) -> bytes:
    """Draw a figure as TIFF in colours with its scale, as ImageJ writes it: pixels per nm.

    Fiji opens it at its scale without a plugin, which OME-TIFF needs.

    Parameters
    ----------
    figure : Figure

    Returns
    -------
    bytes
    """
    scale: dict[str, Any] = {}
    if figure.pixel_size_nm is not None:
        per_nm_yx = [
            zoom * SHARPNESS / size
            for size, zoom in zip(figure.pixel_size_nm, laid_out(figure).zoom_yx, strict=True)
        ]
        scale = {"resolution": tuple(per_nm_yx[::-1]), "metadata": {"unit": "nm"}}
    packed = io.BytesIO()
    tifffile.imwrite(
        packed,
        _painted(figure),
        imagej=True,
        photometric="rgb",
        compression="zlib",
        **scale,
    )
    return packed.getvalue()


DRAWN_BY = {
    ".png": as_png,
    ".svg": as_svg,
    ".tif": as_tiff,
    ".tiff": as_tiff,
}


def figure_file(figure: Figure, path: str | Path) -> bytes:
    """Draw a figure as the ending of a file's name says.

    Parameters
    ----------
    figure : Figure
    path : str or Path
        Ends in ``.png``, ``.svg``, ``.tif`` or ``.tiff``.

    Returns
    -------
    bytes

    Raises
    ------
    InputError
        Another ending.

    Examples
    --------
    >>> figure = Figure(pixels=np.eye(8, dtype=np.float32), title="", limits=(0, 1))
    >>> figure_file(figure, "made.svg")[:4]
    b'<svg'
    """
    draw = DRAWN_BY.get(Path(path).suffix.lower())
    if draw is None:
        raise InputError(
            f"{Path(path).name} has no ending of a figure: call it *.png, *.svg or *.tif."
        )
    return draw(figure)


def _painted(figure: Figure) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a figure."""
    page, finer = laid_out(figure), SHARPNESS * SMOOTHER
    canvas = Image.new("RGB", (round(page.width * finer), round(page.height * finer)), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(TEXT * finer)
    for part in page.parts:
        if isinstance(part, Picture):
            shape = (max(1, round(part.width * finer)), max(1, round(part.height * finer)))
            picture = Image.fromarray(part.pixels).resize(shape, Image.Resampling.NEAREST)
            canvas.paste(picture, (round(part.x * finer), round(part.y * finer)), picture)
        elif isinstance(part, Line):
            ends = [finer * end for end in part.ends]
            draw.line(ends, fill=part.colour, width=max(1, round(part.width * finer)))
        elif isinstance(part, Head):
            draw.polygon([(x * finer, y * finer) for x, y in part.corners], fill=part.colour)
        else:
            place = (part.x * finer, part.y * finer)
            draw.text(place, part.text, fill="black", font=font, anchor="ls")
    return np.asarray(canvas.reduce(SMOOTHER))
