"""Shapes drawn by hand become pixels of the image, however both layers lie."""

import numpy as np
import pytest

pytest.importorskip("napari.layers")

from napari.layers import Image, Shapes

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.placement import spatial
from napari_shiftvae.regions import region_mask

BOX = np.array([[10.0, 20.0], [10.0, 40.0], [30.0, 40.0], [30.0, 20.0]])
PLACE = {"scale": (0.02, 0.02), "rotate": 30.0, "translate": (5.0, -3.0), "units": ("nm", "nm")}


def expected() -> np.ndarray:
    mask = np.zeros((60, 80), dtype=bool)
    mask[10:31, 20:41] = True
    return mask


def test_a_rectangle_on_the_image_is_its_pixels():
    image = Image(np.zeros((60, 80)), **PLACE)
    mask = region_mask(Shapes([BOX], **spatial(image)), image)
    np.testing.assert_array_equal(mask[12:29, 22:39], expected()[12:29, 22:39])
    assert mask.sum() == pytest.approx(expected().sum(), rel=0.12)  # pixels at the edge


def test_a_layer_that_lies_otherwise_and_in_other_units_is_put_right():
    image = Image(np.zeros((60, 80)), **PLACE)
    # the same box in angstrom, drawn in world coordinates
    corners = np.array([image.data_to_world(corner) for corner in BOX]) * 10
    shapes = Shapes([corners], shape_type="polygon", units=("angstrom", "angstrom"))
    mask = region_mask(shapes, image)
    assert (mask ^ expected()).sum() < 90
    assert mask[20, 30]


def test_several_shapes_add_up_and_lines_enclose_nothing():
    image = Image(np.zeros((60, 80)))
    shapes = Shapes([BOX, BOX + np.array([25, 30])], shape_type=["rectangle", "ellipse"])
    shapes.add_lines(np.array([[0, 0], [59, 79]]))
    mask = region_mask(shapes, image)
    assert mask[20, 30]
    assert mask[45, 60]
    assert not mask[36, 51]  # corner of the box, outside the ellipse
    assert mask.sum() == pytest.approx(20 * 20 * (1 + np.pi / 4), rel=0.12)


def test_a_region_of_a_stack_is_that_of_its_frames():
    image = Image(np.zeros((4, 60, 80)))
    shapes = Shapes([np.column_stack([np.full(4, 2.0), BOX])], shape_type="rectangle")
    assert region_mask(shapes, image).shape == (60, 80)
    assert region_mask(shapes, image)[20, 30]


def test_shapes_beside_the_image_are_refused():
    image = Image(np.zeros((60, 80)), name="made")
    with pytest.raises(InputError, match="encloses nothing of 'made'"):
        region_mask(Shapes([BOX + 500]), image)
