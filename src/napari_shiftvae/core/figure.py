"""Figures of maps and arrows with scale bar and colour bar, drawn once, written as SVG or PNG."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Figure", "as_png", "as_svg", "limits_of"]

WIDTH, MARGIN, TEXT = 640.0, 24.0, 16.0
MOST_PIXELS = 1280  # across; of larger images every second pixel, or third ...
BAR = 18.0  # width of the colour bar
SHARPER = 2  # PNG are drawn larger and made smaller: smooth edges
# Matplotlib's viridis (S. van der Walt, N. Smith, CC0) at 17 places.
VIRIDIS = (
    *("440154", "48186a", "472d7b", "424086", "3b528b", "33638d"),
    *("2c728e", "26818e", "21908c", "1f9f88", "28ae80", "3ebc74"),
    *("5dc963", "82d34c", "abdc32", "d5e21a", "fde725"),
)
GREY = ("000000", "ffffff")
ARROW = "#e69f00"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """What a figure shows.

    Attributes
    ----------
    pixels : (H, W) array
        Drawn in colours; NaN stays white.
    title : str
    limits : tuple of float
        Values at the ends of the colours.
    colours : tuple of str
        From low to high, hexadecimal.
    bar : str or None
        Words beside the colour bar; None leaves it out.
    pixel_size_nm : tuple of float or None
        (y, x); the scale bar is in pixels where None.
    arrows : (N, 2, 2) array or None
        Start (y, x) and vector (y, x) of each arrow [px].
    gain : float
        Magnification of the arrows.
    """

    pixels: NDArray[np.float32]
    title: str
    limits: tuple[float, float]
    colours: tuple[str, ...] = VIRIDIS
    bar: str | None = ""
    pixel_size_nm: tuple[float, float] | None = None
    arrows: Floats | None = None
    gain: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Picture:
    x: float
    y: float
    width: float
    height: float
    pixels: NDArray[np.uint8]  # (h, w, 4)


@dataclass(frozen=True, kw_only=True)
class _Line:
    ends: tuple[float, float, float, float]
    width: float
    colour: str = "#000000"


@dataclass(frozen=True, kw_only=True)
class _Head:
    corners: tuple[tuple[float, float], ...]
    colour: str


@dataclass(frozen=True, kw_only=True)
class _Words:
    x: float
    y: float  # of the base line
    text: str


_Part = _Picture | _Line | _Head | _Words


def limits_of(values: NDArray[np.floating]) -> tuple[float, float]:
    """Limits for colours that outliers do not stretch: 1st and 99th percentile.

    Examples
    --------
    >>> limits_of(np.arange(101.0))
    (1.0, 99.0)
    """
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1, 99)) if len(finite) else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def as_svg(figure: Figure) -> bytes:
    """Draw a figure: the map embedded as PNG, all else as lines, shapes and text.

    Parameters
    ----------
    figure : Figure

    Returns
    -------
    bytes
    """
    width, height, parts = _laid_out(figure)
    page = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    font = f'font-family="sans-serif" font-size="{TEXT:g}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {page} {font}>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for part in parts:
        if isinstance(part, _Picture):
            packed = io.BytesIO()
            Image.fromarray(part.pixels).save(packed, "PNG")
            data = base64.b64encode(packed.getvalue()).decode()
            lines.append(
                f'<image x="{part.x:g}" y="{part.y:g}" width="{part.width:.6g}" '
                f'height="{part.height:.6g}" preserveAspectRatio="none" '
                f'image-rendering="pixelated" href="data:image/png;base64,{data}"/>'
            )
        elif isinstance(part, _Line):
            x1, y1, x2, y2 = part.ends
            lines.append(
                f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" '
                f'stroke="{part.colour}" stroke-width="{part.width:g}"/>'
            )
        elif isinstance(part, _Head):
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
    width, height, parts = _laid_out(figure)
    size = (round(width * SHARPER), round(height * SHARPER))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(TEXT * SHARPER)
    for part in parts:
        if isinstance(part, _Picture):
            shape = (max(1, round(part.width * SHARPER)), max(1, round(part.height * SHARPER)))
            picture = Image.fromarray(part.pixels).resize(shape, Image.Resampling.NEAREST)
            canvas.paste(picture, (round(part.x * SHARPER), round(part.y * SHARPER)), picture)
        elif isinstance(part, _Line):
            ends = [SHARPER * end for end in part.ends]
            draw.line(ends, fill=part.colour, width=max(1, round(part.width * SHARPER)))
        elif isinstance(part, _Head):
            draw.polygon([(x * SHARPER, y * SHARPER) for x, y in part.corners], fill=part.colour)
        else:
            place = (part.x * SHARPER, part.y * SHARPER)
            draw.text(place, part.text, fill="black", font=font, anchor="ls")
    packed = io.BytesIO()
    canvas.resize((round(width), round(height)), Image.Resampling.LANCZOS).save(packed, "PNG")
    return packed.getvalue()


def _laid_out(figure: Figure) -> tuple[float, float, list[_Part]]:
    """Size of the page and what is on it."""
    rows, columns = figure.pixels.shape
    size_y, size_x = figure.pixel_size_nm or (1.0, 1.0)
    zoom_x = WIDTH / columns
    zoom_y = zoom_x * size_y / size_x
    height = rows * zoom_y
    left, top = MARGIN, MARGIN + TEXT
    parts: list[_Part] = [_Words(x=left, y=MARGIN + 0.2 * TEXT, text=figure.title)]
    step = max(1, columns // MOST_PIXELS)
    colours = _coloured(figure.pixels[::step, ::step], figure.limits, figure.colours)
    parts.append(_Picture(x=left, y=top, width=WIDTH, height=height, pixels=colours))
    if figure.arrows is not None:
        for start, vector in figure.arrows:
            begin = (left + (start[1] + 0.5) * zoom_x, top + (start[0] + 0.5) * zoom_y)
            along = (vector[1] * zoom_x * figure.gain, vector[0] * zoom_y * figure.gain)
            parts += _arrow(begin, along)
    parts += _scale_bar(left, top + height + 1.2 * TEXT, WIDTH / columns, figure.pixel_size_nm)
    width = 2 * MARGIN + WIDTH
    if figure.bar is not None:
        parts += _colour_bar(figure, left + WIDTH + MARGIN, top, height)
        width += 8 * TEXT
    return width, top + height + 3 * TEXT + MARGIN, parts


def _coloured(
    values: NDArray[np.floating], limits: tuple[float, float], colours: tuple[str, ...]
) -> NDArray[np.uint8]:
    """Colours (H, W, 4) of values; clear where NaN."""
    palette = np.array([[int(one[i : i + 2], 16) for i in (0, 2, 4)] for one in colours])
    level = (np.asarray(values, dtype=np.float64) - limits[0]) / (limits[1] - limits[0])
    there = np.isfinite(level)
    level = np.where(there, level, 0).clip(0, 1)
    made = np.zeros((*level.shape, 4), dtype=np.uint8)
    for channel in range(3):
        ends = np.linspace(0, 1, len(palette))
        made[..., channel] = np.rint(np.interp(level, ends, palette[:, channel]))
    made[..., 3] = 255 * there
    return made


def _arrow(begin: tuple[float, float], along: tuple[float, float]) -> list[_Part]:
    length = math.hypot(*along)
    if length < 1e-6:
        return []
    ux, uy = along[0] / length, along[1] / length
    head = min(0.4 * length, 9.0)
    end = (begin[0] + along[0], begin[1] + along[1])
    neck = (end[0] - head * ux, end[1] - head * uy)
    side = 0.45 * head
    corners = (
        end,
        (neck[0] - side * uy, neck[1] + side * ux),
        (neck[0] + side * uy, neck[1] - side * ux),
    )
    return [
        _Line(ends=(*begin, *neck), width=1.6, colour=ARROW),
        _Head(corners=corners, colour=ARROW),
    ]


def _scale_bar(
    x: float, y: float, zoom: float, pixel_size_nm: tuple[float, float] | None
) -> list[_Part]:
    """Line of 1, 2 or 5 times a power of ten, about a quarter of the width."""
    unit_px = 1.0 if pixel_size_nm is None else pixel_size_nm[1]
    wanted = 0.25 * WIDTH / zoom * unit_px
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    across = length / unit_px * zoom
    unit = "px" if pixel_size_nm is None else "nm"
    return [
        _Line(ends=(x, y, x + across, y), width=4.0),
        _Words(x=x + across + 0.5 * TEXT, y=y + 0.35 * TEXT, text=f"{length:g} {unit}"),
    ]


def _colour_bar(figure: Figure, x: float, y: float, height: float) -> list[_Part]:
    ramp = np.linspace(1, 0, 256)[:, None]
    parts: list[_Part] = [
        _Picture(x=x, y=y, width=BAR, height=height, pixels=_coloured(ramp, (0, 1), figure.colours))
    ]
    low, high = figure.limits
    for part in (0.0, 0.5, 1.0):
        text = f"{low + part * (high - low):.3g}"
        at = y + (1 - part) * height
        base = min(max(at + 0.35 * TEXT, y + 0.8 * TEXT), y + height)
        parts.append(_Words(x=x + BAR + 0.4 * TEXT, y=base, text=text))
    return [*parts, _Words(x=x, y=y + height + 1.6 * TEXT, text=figure.bar or "")]
