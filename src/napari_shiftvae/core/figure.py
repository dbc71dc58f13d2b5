"""Figures of maps and arrows with scale bar and colour bars: what is where on the page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.palettes import (
    ANGLES,
    GREY,
    LENGTHS,
    VIRIDIS,
    coloured,
    limits_of,
    wheel,
)

__all__ = ["Arrows", "Figure", "laid_out"]

WIDTH, MARGIN, TEXT = 640.0, 24.0, 16.0
MOST_PIXELS = 1280  # across; of larger images every second pixel, or third ...
BAR = 18.0  # width of a colour bar
WHEEL, WHEEL_PIXELS = 88.0, 264
ARROW = "e69f00"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrows:
    """Arrows of a figure.

    Attributes
    ----------
    start_yx, along_yx : (N, 2) arrays
        Where they start and what they show (y, x) [px].
    gain : float
        Magnification.
    values : (N,) array or None
        What their colours tell; all have one colour where None.
    limits : tuple of float
        Values at the ends of the colours.
    bar : str
        Words at their colour bar.
    angles : bool
        Whether the values are directions [rad] from x towards y, shown by a wheel of colours.
    colour : str
        Hexadecimal, of arrows without values.
    """

    start_yx: Floats
    along_yx: Floats
    gain: float = 1.0
    values: Floats | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    bar: str = ""
    angles: bool = False
    colour: str = ARROW


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """What a figure shows.

    Attributes
    ----------
    pixels : (H, W) array
        Drawn in colours; NaN is clear.
    title : str
    limits : tuple of float
        Values at the ends of the colours.
    colours : tuple of str
        From low to high, hexadecimal.
    bar : str or None
        Words at the colour bar; None leaves it out.
    opacity : float
        Of the pixels, from 0 to 1.
    beneath : (H, W) array or None
        Image that lies under the pixels, in grey.
    beneath_limits : tuple of float or None
        Values of black and white; by its percentiles where None.
    pixel_size_nm : tuple of float or None
        (y, x); the scale bar is in pixels where None.
    arrows : Arrows or None
    """

    pixels: NDArray[np.float32]
    title: str
    limits: tuple[float, float]
    colours: tuple[str, ...] = VIRIDIS
    bar: str | None = ""
    opacity: float = 1.0
    beneath: NDArray[np.float32] | None = None
    beneath_limits: tuple[float, float] | None = None
    pixel_size_nm: tuple[float, float] | None = None
    arrows: Arrows | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """Pixels (h, w, 4) on a page."""

    x: float
    y: float
    width: float
    height: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line from (x1, y1) to (x2, y2)."""

    ends: tuple[float, float, float, float]
    width: float
    colour: str = "#000000"


@dataclass(frozen=True, kw_only=True)
class Head:
    """The filled head of an arrow."""

    corners: tuple[tuple[float, float], ...]
    colour: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """A line of text; y is that of its base line."""

    x: float
    y: float
    text: str


Part = Picture | Line | Head | Words


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """A figure laid out.

    Attributes
    ----------
    width, height : float
    parts : list of Part
        From bottom to top; y points down.
    zoom_yx : tuple of float
        Size of an image's pixel on the page.
    """

    width: float
    height: float
    parts: list[Part] = field(default_factory=list)
    zoom_yx: tuple[float, float] = (1.0, 1.0)


def laid_out(figure: Figure) -> Page:
    """Say where everything of a figure comes to lie.

    Parameters
    ----------
    figure : Figure

    Returns
    -------
    Page
    """
    rows, columns = figure.pixels.shape
    size_y, size_x = figure.pixel_size_nm or (1.0, 1.0)
    zoom_x = WIDTH / columns
    zoom_y = zoom_x * size_y / size_x
    height = rows * zoom_y
    left, top = MARGIN, MARGIN + TEXT
    parts: list[Part] = [Words(x=left, y=MARGIN + 0.2 * TEXT, text=figure.title)]
    place = {"x": left, "y": top, "width": WIDTH, "height": height}
    step = max(1, columns // MOST_PIXELS)
    if figure.beneath is not None:
        limits = figure.beneath_limits or limits_of(figure.beneath)
        parts.append(
            Picture(pixels=coloured(figure.beneath[::step, ::step], limits, GREY), **place)
        )
    pixels = coloured(figure.pixels[::step, ::step], figure.limits, figure.colours)
    pixels[..., 3] = np.rint(figure.opacity * pixels[..., 3])
    parts.append(Picture(pixels=pixels, **place))
    if figure.arrows is not None:
        parts += _arrows(figure.arrows, left, top, (zoom_y, zoom_x))
    parts += _scale_bar(left, top + height + 1.2 * TEXT, zoom_x, figure.pixel_size_nm)
    beside, foot = _legends(figure, left + WIDTH + MARGIN, top, height)
    return Page(
        width=2 * MARGIN + WIDTH + (8 * TEXT if beside else 0),
        height=max(top + height, foot) + 3 * TEXT + MARGIN,
        parts=parts + beside,
        zoom_yx=(zoom_y, zoom_x),
    )


def _arrows(arrows: Arrows, left: float, top: float, zoom_yx: tuple[float, float]) -> list[Part]:
    if arrows.values is None:
        colours = [f"#{arrows.colour}"] * len(arrows.start_yx)
    else:
        values, limits, palette = arrows.values, arrows.limits, LENGTHS
        if arrows.angles:
            values, limits = np.mod(values, 2 * np.pi), (0.0, 2 * np.pi)
            palette = (*ANGLES, ANGLES[0])
        colours = [f"#{bytes(one[:3]).hex()}" for one in coloured(values, limits, palette)]
    parts: list[Part] = []
    for start, along, colour in zip(arrows.start_yx, arrows.along_yx, colours, strict=True):
        begin = (left + (start[1] + 0.5) * zoom_yx[1], top + (start[0] + 0.5) * zoom_yx[0])
        to = (along[1] * zoom_yx[1] * arrows.gain, along[0] * zoom_yx[0] * arrows.gain)
        parts += _arrow(begin, to, colour)
    return parts


def _arrow(begin: tuple[float, float], along: tuple[float, float], colour: str) -> list[Part]:
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
        Line(ends=(*begin, *neck), width=1.6, colour=colour),
        Head(corners=corners, colour=colour),
    ]


def _scale_bar(
    x: float, y: float, zoom: float, pixel_size_nm: tuple[float, float] | None
) -> list[Part]:
    """Line of 1, 2 or 5 times a power of ten, about a quarter of the width."""
    unit_px = 1.0 if pixel_size_nm is None else pixel_size_nm[1]
    wanted = 0.25 * WIDTH / zoom * unit_px
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    across = length / unit_px * zoom
    unit = "px" if pixel_size_nm is None else "nm"
    return [
        Line(ends=(x, y, x + across, y), width=4.0),
        Words(x=x + across + 0.5 * TEXT, y=y + 0.35 * TEXT, text=f"{length:g} {unit}"),
    ]


def _legends(figure: Figure, x: float, y: float, height: float) -> tuple[list[Part], float]:
    """Colour bars and wheel beside the image, and where they end."""
    arrows = figure.arrows
    of_arrows = arrows is not None and arrows.values is not None
    both = figure.bar is not None and of_arrows
    tall = max((height - 3 * TEXT) / 2, 5 * TEXT) if both else max(height, 5 * TEXT)
    parts: list[Part] = []
    if figure.bar is not None:
        parts += _colour_bar(figure.bar, figure.limits, figure.colours, (x, y, tall))
        y += tall + 3 * TEXT
    if arrows is not None and of_arrows and arrows.angles:
        parts += [
            Picture(x=x, y=y, width=WHEEL, height=WHEEL, pixels=wheel(WHEEL_PIXELS)),
            Words(x=x, y=y + WHEEL + 1.2 * TEXT, text=arrows.bar),
        ]
        return parts, y + WHEEL
    if arrows is not None and of_arrows:
        parts += _colour_bar(arrows.bar, arrows.limits, LENGTHS, (x, y, tall))
    return parts, y + tall if of_arrows else y - 3 * TEXT


def _colour_bar(
    words: str,
    limits: tuple[float, float],
    colours: tuple[str, ...],
    place: tuple[float, float, float],
) -> list[Part]:
    """Bar at a place (x, y, height), its limits beside it and words below."""
    x, y, height = place
    ramp = coloured(np.linspace(1, 0, 256)[:, None], (0, 1), colours)
    parts: list[Part] = [Picture(x=x, y=y, width=BAR, height=height, pixels=ramp)]
    low, high = limits
    for part in (0.0, 0.5, 1.0):
        text = f"{low + part * (high - low):.3g}"
        at = y + (1 - part) * height
        base = min(max(at + 0.35 * TEXT, y + 0.8 * TEXT), y + height)
        parts.append(Words(x=x + BAR + 0.4 * TEXT, y=base, text=text))
    return [*parts, Words(x=x, y=y + height + 1.2 * TEXT, text=words)]
