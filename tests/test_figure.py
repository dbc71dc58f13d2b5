"""Figures: colours that all people can read, and everything where it belongs."""

import io
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.figure import WIDTH, Picture, Words, laid_out
from napari_shiftvae.core.figure_files import as_png, as_svg, as_tiff, figure_file
from napari_shiftvae.core.palettes import ANGLES, DIVERGING, coloured, limits_of, wheel
from napari_shiftvae.core.run_figure import View, figure_of
from napari_shiftvae.core.scalars import Scalar
from napari_shiftvae.core.vector_field import VectorField

# Linear RGB as seen without red or green receptors: G. M. Machado, M. M. Oliveira, L. A. F.
# Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), doi:10.1109/TVCG.2009.113
BLIND = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
FIELD = VectorField(
    start_yx=np.array([[10.0, 20.0], [30.0, 44.0], [5.0, 5.0], [12.0, 60.0]]),
    yx_px=np.array([[2.0, 0.0], [0.0, -3.0], [np.nan, 0.0], [0.1, 0.1]]),
    sd_yx_px=np.full((4, 2), 0.2),
    sentence="made",
    square_yx=(0.5, 2.0),
)
GREY = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (40, 1))
SCALAR = Scalar(
    name="along y",
    unit="pm",
    values=np.array([-4.0, 1.0, np.nan, 3.0]),
    sd=np.array([0.1, 0.2, np.nan, 0.3]),
    signed=True,
    smooth=True,
)


def lab(rgb):
    """Linear RGB in OKLab (B. Ottosson, 2020), in which distances are those that are seen."""
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(rgb @ np.transpose(to_cones)) @ np.transpose(to_lab)


def linear(colours):
    shares = np.array([[int(one[i : i + 2], 16) / 255 for i in (0, 2, 4)] for one in colours])
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("kind", BLIND)
def test_directions_are_told_apart_by_colour_blind_people(kind):
    """Neighbouring colours by twice what is just seen (0.02); the farther, the more."""
    seen = lab(np.clip(linear(ANGLES) @ np.transpose(BLIND[kind]), 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)
    for steps, least in ((1, 0.04), (2, 0.08), (4, 0.15), (8, 0.2)):
        assert min(apart[at, (at + steps) % 16] for at in range(16)) > least


@pytest.mark.parametrize("kind", BLIND)
def test_signs_are_told_apart_by_colour_blind_people(kind):
    seen = lab(np.clip(linear(DIVERGING) @ np.transpose(BLIND[kind]), 0, 1))
    apart = np.linalg.norm(seen - seen[::-1], axis=1)
    assert apart[[0, 1, 2, 3]].min() > 0.12
    assert (np.diff(seen[:6, 0]) > 0).all()  # lighter towards zero
    assert (np.diff(seen[5:, 0]) < 0).all()


def test_zero_is_in_the_middle_of_signed_maps():
    low, high = SCALAR.limits
    assert low == -high
    middle = coloured(0.0, (low, high), SCALAR.palette)
    assert (middle[:3] == 247).all()
    assert limits_of([np.nan], signed=True) == (-1.0, 1.0)


def test_the_wheel_turns_with_the_image():
    """Where the image is turned by 90 degrees clockwise, what points along x points down."""
    turned = wheel(65, [[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(turned[60, 32], wheel(65)[32, 60])
    assert turned[0, 0, 3] == turned[32, 32, 3] == 0


def test_a_figure_holds_image_map_arrows_and_their_scales():
    drawn = np.full(GREY.shape, np.nan, np.float32)
    drawn[10:30, 10:50] = 2.0
    view = View(title="made", pixel_size_nm=(0.01, 0.04), unit="pm", gain=2.0, opacity=0.5)
    figure = figure_of(GREY, view, shown=(SCALAR, drawn), field=FIELD)
    page = laid_out(figure)
    words = [part.text for part in page.parts if isinstance(part, Words)]
    assert words[0] == "made"
    assert {"along y (pm)", "arrow (pm), 2-fold", "0.5 nm"} <= set(words)
    root = ET.fromstring(as_svg(figure))  # noqa: S314
    assert len(root.findall("{http://www.w3.org/2000/svg}polygon")) == 3  # one is not known
    pixels = np.asarray(Image.open(io.BytesIO(as_png(figure))).convert("RGB")).astype(int)
    map_part = next(part for part in page.parts if isinstance(part, Picture))
    zoom = WIDTH / 64

    def at(y, x):
        row = map_part.y + (y + 0.5) * zoom / 4
        return pixels[int(2 * row), int(2 * (map_part.x + (x + 0.5) * zoom))]

    np.testing.assert_allclose(at(36, 50), 255 * GREY[36, 50], atol=2)  # outside the map
    colour = coloured(2.0, SCALAR.limits, SCALAR.palette)[:3]
    np.testing.assert_allclose(at(26, 40), (colour + 255 * GREY[26, 40]) / 2, atol=2)
    # lengths are those of the sample: 2 px of 10 pm, 3 px of 40 pm
    np.testing.assert_allclose(figure.arrows.values, [20, 120, np.hypot(1, 4)])


def test_a_part_of_the_image_keeps_everything_in_place():
    view = View(box=(8, 36, 16, 56))
    figure = figure_of(GREY, view, field=FIELD)
    np.testing.assert_array_equal(figure.beneath, GREY[8:36, 16:56])
    np.testing.assert_array_equal(figure.arrows.start_yx, [[2, 4], [22, 28]])
    chosen = figure_of(GREY, replace(view, rows=np.array([1])), field=FIELD)
    assert len(chosen.arrows.start_yx) == 1
    with pytest.raises(InputError, match="Nothing of the image is in view"):
        figure_of(GREY, replace(view, box=(50, 60, 0, 9)))


def test_directions_have_a_wheel_instead_of_a_bar():
    figure = figure_of(GREY, View(colour="angle"), field=FIELD)
    np.testing.assert_allclose(
        figure.arrows.values, [np.pi / 2, np.pi, np.arctan2(0.5, 2)], atol=1e-9
    )
    pictures = [part for part in laid_out(figure).parts if isinstance(part, Picture)]
    assert pictures[-1].pixels.shape == (264, 264, 4)
    plain = figure_of(GREY, View(colour="#000000"), field=FIELD)
    assert laid_out(plain).width < laid_out(figure).width  # nothing beside the image


def test_tiff_holds_its_scale():
    figure = figure_of(GREY, View(pixel_size_nm=(0.02, 0.04)), field=FIELD)
    page = laid_out(figure)
    with tifffile.TiffFile(io.BytesIO(as_tiff(figure))) as file:
        metadata, tags, pixels = file.imagej_metadata, file.pages[0].tags, file.asarray()
    picture = next(part for part in page.parts if isinstance(part, Picture))
    assert pixels.shape == (round(2 * page.height), round(2 * page.width), 3)
    assert metadata["unit"] == "nm"
    for axis, nm, length in (("X", 64 * 0.04, picture.width), ("Y", 40 * 0.02, picture.height)):
        pixels, by = tags[f"{axis}Resolution"].value
        assert by / pixels == pytest.approx(nm / (2 * length), rel=1e-6)
        assert tags["ResolutionUnit"].value == 1  # the unit is that of the metadata


def test_an_unknown_ending_is_refused():
    with pytest.raises(InputError, match=r"call it \*.png"):
        figure_file(figure_of(GREY, View()), "figure.jpg")
