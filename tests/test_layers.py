"""Layers made from an analysis lie on its image, whatever its scale, rotation and units."""

from contextlib import nullcontext
from itertools import starmap
from types import SimpleNamespace

import numpy as np
import pytest

from napari_shiftvae.core.errors import InputError

napari_layers = pytest.importorskip("napari.layers")

from napari.components import ViewerModel  # noqa: E402
from napari.layers import Image, Labels, Layer, Points, Shapes, Vectors  # noqa: E402

from napari_shiftvae import layers as to_layers  # noqa: E402
from napari_shiftvae import placement  # noqa: E402
from napari_shiftvae.core.analyse import analyse, finish  # noqa: E402
from napari_shiftvae.core.images import Calibration, MicroscopeImage  # noqa: E402
from napari_shiftvae.core.readout import Options, read_out  # noqa: E402
from napari_shiftvae.core.runs import Run  # noqa: E402
from napari_shiftvae.core.settings import AnalysisConfig  # noqa: E402
from napari_shiftvae.core.simulate import perovskite  # noqa: E402
from napari_shiftvae.core.train import TrainConfig  # noqa: E402
from napari_shiftvae.field_layers import Look  # noqa: E402
from napari_shiftvae.overlay import Overlay  # noqa: E402
from napari_shiftvae.picks import Picks  # noqa: E402
from napari_shiftvae.run_layers import AtOnce, RunLayers  # noqa: E402
from napari_shiftvae.session import Session  # noqa: E402

ODD_PLACE = {
    "scale": (0.015, 0.02),
    "rotate": 30.0,
    "shear": [0.1],
    "translate": (3.0, -7.0),
    "affine": [[1.1, 0.1, 2.0], [0.0, 0.9, 1.0], [0.0, 0.0, 1.0]],
    "units": ("nm", "nm"),
    "axis_labels": ("y", "x"),
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image


@pytest.fixture(scope="module")
def run(pixels: np.ndarray) -> Run:
    image = MicroscopeImage(
        data=pixels, name="made", calibration=Calibration(pixel_size_nm=(0.015, 0.02))
    )
    return finish(analyse(image, AnalysisConfig(train=TrainConfig(epochs=2))))


def image_layer(pixels: np.ndarray, **place: object) -> Image:
    return Image(pixels, name="made", **place)


def test_every_layer_of_a_run_lies_on_the_image(run: Run, pixels: np.ndarray) -> None:
    image = image_layer(pixels, **ODD_PLACE)
    made = list(starmap(Layer.create, to_layers.run_layers(run, "made", placement.spatial(image))))
    assert [layer.name for layer in made] == ["made z1", "made z2", "made atoms", "made shift"]
    for layer in made:
        for corner in ((0.0, 0.0), (0.0, 169.0), (149.0, 0.0), (12.5, 31.25)):
            np.testing.assert_allclose(layer.data_to_world(corner), image.data_to_world(corner))
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels


def test_moving_one_layer_does_not_move_the_image(run: Run, pixels: np.ndarray) -> None:
    image = image_layer(pixels, **ODD_PLACE)
    before = image.data_to_world((10.0, 20.0))
    layer = Layer.create(*to_layers.run_layers(run, "made", placement.spatial(image))[0])
    layer.affine.translate = (100.0, 100.0)
    layer.scale *= 2
    np.testing.assert_array_equal(image.data_to_world((10.0, 20.0)), before)


def test_atoms_layer_holds_every_column_and_shows_the_first_latent(run: Run) -> None:
    layer = Layer.create(*to_layers.run_to_layer_data(run)[-2])
    assert isinstance(layer, Points)
    assert list(layer.features.columns) == list(run.atoms.columns)
    expected = to_layers.latent_colours(run.atoms["z1"])
    np.testing.assert_allclose(layer.face_color[run.used], expected[run.used], atol=0.01)
    assert (layer.face_color[~run.used, 3] == 0).all()  # set aside: no latent, no colour
    assert len(np.unique(layer.border_color, axis=0)) == 2


def test_maps_are_on_the_pixels_of_the_image(run: Run, pixels: np.ndarray) -> None:
    maps = {layer[1]["name"]: layer[0] for layer in to_layers.map_layers(run, "made", {})}
    assert {name: values.shape for name, values in maps.items()} == {
        "made z1": pixels.shape,
        "made z2": pixels.shape,
    }
    y, x = run.picks_yx[run.used][10].round().astype(int)
    assert np.isfinite(maps["made z1"][y, x])
    assert np.isnan(maps["made z1"][0, 0])


def test_the_three_readings_of_the_arrows_agree(run: Run) -> None:
    (whole, all_rows), (atom, rows), (cage, _) = (
        to_layers.arrows(run.atoms, reading) for reading in to_layers.READINGS
    )
    np.testing.assert_array_equal(run.picks_yx[all_rows], whole[:, 0])
    # a model trained as shortly as here does not show the central atom of each patch
    np.testing.assert_allclose(whole[np.isin(all_rows, rows), 1] + cage[:, 1], atom[:, 1])
    np.testing.assert_allclose(
        cage[:, 0] + atom[:, 1], run.atoms[["atom_y_px", "atom_x_px"]].to_numpy()[rows]
    )
    assert np.linalg.norm(cage[:, 1], axis=1).max() > 0.1


def test_a_calibrated_run_stands_alone_in_nm(run: Run) -> None:
    for _, kwargs, _ in to_layers.run_to_layer_data(run):
        assert kwargs["scale"] == (0.015, 0.02)
        assert kwargs["units"] == ("nm", "nm")


@pytest.mark.parametrize(
    ("place", "size"),
    [
        ({}, None),
        ({"scale": (2.0, 2.0)}, None),
        ({"scale": (0.15, 0.2), "units": ("angstrom", "angstrom")}, (0.015, 0.02)),
        ({"scale": (-15.0, 20.0), "units": ("pm", "pm")}, (0.015, 0.02)),
        ({"scale": (1.0, 1.0), "units": ("s", "nm")}, None),
    ],
)
def test_pixel_size(place: dict, size: tuple[float, float] | None) -> None:
    found = placement.pixel_size_nm(image_layer(np.eye(9), **place))
    assert found == (None if size is None else pytest.approx(size))


def test_what_the_file_says_counts_where_the_layer_says_nothing() -> None:
    in_file = Calibration(pixel_size_nm=(0.5, 0.5))
    plain = image_layer(np.eye(9))
    scaled = image_layer(np.eye(9), scale=(2.0, 2.0), units=("nm", "nm"))
    assert placement.image_from_layer(plain, in_file).calibration == in_file
    assert placement.image_from_layer(scaled, in_file).calibration == Calibration(
        pixel_size_nm=(2.0, 2.0)
    )
    assert placement.image_from_layer(plain).calibration is None


def test_images_that_are_none_are_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match=r"RGB image; right-click it .* Split RGB"):
        placement.image_from_layer(Image(np.zeros((8, 8, 3), np.uint8), rgb=True))
    with pytest.raises(InputError, match="has 3 dimensions"):
        placement.image_from_layer(Image(np.zeros((3, 8, 8))))


def test_multiscale_images_are_taken_at_full_size() -> None:
    layer = Image([np.eye(64), np.eye(32)], multiscale=True)
    assert placement.image_from_layer(layer).data.shape == (64, 64)


def test_clicks_beside_a_layer_in_other_units() -> None:
    """DESIGN 8: napari draws all in the smallest unit but converts as if there were one."""
    from napari.components import LayerList

    image = image_layer(np.eye(64), scale=(0.02, 0.03), units=("nm", "nm"), translate=(1.0, 2.0))
    beside = Image(np.eye(4), scale=(1.0, 1.0), units=("angstrom", "angstrom"))
    world = np.array(image.data_to_world((10.0, 20.0))) * 10  # where it is drawn, in angstrom
    units = LayerList([image, beside]).units
    np.testing.assert_allclose(placement.in_pixels(image, world, units), (10.0, 20.0))
    np.testing.assert_allclose(placement.in_pixels(image, (7.0, *world), units), (10.0, 20.0))


def test_calibrating_takes_along_what_lies_on_the_image_and_nothing_else() -> None:
    shape = (40, 60)
    image = image_layer(np.zeros(shape), translate=(4.0, 8.0))
    same_area = Image(np.zeros(shape), translate=(4.0, 8.0))
    another = Image(np.zeros((9, 9)), translate=(4.0, 8.0))
    moved = Image(np.zeros(shape))
    dots = Points([[3.0, 5.0]], translate=(4.0, 8.0))
    outlines = Shapes([np.eye(2)], shape_type="line", translate=(4.0, 8.0))
    on_it, off_it = [same_area, dots, outlines], [another, moved]
    placement.calibrate(image, (0.02, 0.02), [image, *on_it, *off_it])
    assert placement.pixel_size_nm(image) == pytest.approx((0.02, 0.02))
    np.testing.assert_allclose(image.translate, (0.08, 0.16))
    for layer in on_it:
        np.testing.assert_allclose(layer.data_to_world((7, 9)), image.data_to_world((7, 9)))
        assert layer.units == image.units
    for layer in off_it:
        assert placement.pixel_size_nm(layer) is None


def test_calibrating_again_leaves_the_place_in_nm() -> None:
    image = image_layer(np.eye(9), scale=(1.0, 1.0), units=("nm", "nm"), translate=(5.0, 6.0))
    placement.calibrate(image, (2.0, 2.0), [image])
    np.testing.assert_array_equal(image.translate, (5.0, 6.0))


def test_a_labels_layer_of_another_shape_stays() -> None:
    image, labels = image_layer(np.eye(9)), Labels(np.zeros((4, 4), dtype=int))
    placement.calibrate(image, (2.0, 2.0), [image, labels])
    np.testing.assert_array_equal(labels.scale, (1.0, 1.0))


def test_picks_become_open_circles_of_two_colours() -> None:
    picks = Picks.of([[0, 0], [0, 20], [20, 0], [20, 20]], by_hand=[True, False, False, False])
    layer = Layer.create(*to_layers.atoms_layer(picks, "made", {}))
    assert layer.name == "made atoms"
    assert (layer.face_color[:, 3] == 0).all()
    assert len(np.unique(layer.border_color, axis=0)) == 2
    np.testing.assert_array_equal(layer.size, 8.0)  # 0.4 of the distance between neighbours


def test_colour_limits_ignore_outliers_and_nan() -> None:
    values = np.append(np.linspace(0, 1, 1001), [1e6, np.nan])
    low, high = to_layers.latent_limits(values)
    assert 0 <= low < 0.02
    assert 0.98 < high <= 1.001
    assert to_layers.latent_limits([np.nan]) == (0.0, 1.0)
    assert to_layers.latent_limits([2.0, 2.0]) == (1.5, 2.5)


def test_arrows_are_coloured_by_length_in_pixels(run: Run) -> None:
    data = to_layers.arrows_layer(run.atoms, "made", {}, "central atom", 7.0)
    layer = Layer.create(*data)
    assert isinstance(layer, Vectors)
    assert layer.length == 7.0
    np.testing.assert_allclose(
        layer.features["length_px"], np.linalg.norm(layer.data[:, 1], axis=1)
    )


def test_adding_a_layer_draws_nothing_for_a_selection_that_stays() -> None:
    viewer, told, shown = ViewerModel(), [], []
    image = viewer.add_image(np.eye(9), name="made")
    for event in ("changed", "active"):
        getattr(viewer.layers.selection.events, event).connect(told.append)
    runs = RunLayers(viewer, SimpleNamespace(add=shown.append, unpainted=nullcontext))
    data = np.ones((3, 2))
    points, unseen = runs.add(
        [(data, {"name": "dots"}, "points"), (np.eye(9), {"visible": False}, "image")]
    )
    assert told == []
    assert list(viewer.layers.selection) == [image]
    assert viewer.layers.selection.active is image
    assert shown == [points]  # it is for the window to say when
    assert not points.visible
    assert not unseen.visible
    viewer.layers.selection.active = points
    assert told


def test_arrows_are_drawn_once_for_all_that_changes(run: Run) -> None:
    viewer, drawn = ViewerModel(), []
    image = viewer.add_image(np.zeros(run.image.shape), name="made")
    runs, field = RunLayers(viewer, AtOnce()), read_out(run, Options()).field
    runs.show_vectors(run, image, field, Look(gain=3.0), visible=True)
    arrows = runs.arrows_of(run)
    arrows.events.set_data.connect(drawn.append)
    runs.show_vectors(run, image, field, Look(gain=4.0, colour="angle"), visible=True)
    assert len(drawn) == 1
    assert (arrows.length, arrows.visible) == (4.0, True)
    assert np.ptp(arrows.edge_color, axis=0).max() > 0.5
    runs.show_vectors(run, image, field, Look(gain=4.0, colour="#ff0000"), visible=True)
    np.testing.assert_array_equal(arrows.edge_color, np.tile([1, 0, 0, 1], (len(arrows.data), 1)))


@pytest.mark.parametrize("some", [False, True])
def test_earlier_run_stays_in_view_where_another_is_of_some_atoms(run: Run, some: bool) -> None:
    """No layer is shown while the second one is at work, as where it trains nothing."""
    viewer, session = ViewerModel(), Session()
    overlay = Overlay(viewer, session)
    overlay.choose(viewer.add_image(np.zeros(run.image.shape), name="made"))
    picks = Picks.of(run.picks_yx, by_hand=False)
    session.change_picks(picks)
    overlay.at_work.begin(picks)
    list(overlay.at_work.end(run))
    first = overlay.atoms
    assert first is not None
    overlay.at_work.begin(Picks.of(run.picks_yx[:9], by_hand=False) if some else picks)
    list(overlay.at_work.end(run))
    assert len(overlay.runs.of_run(run, Points)) == 2
    assert first.visible == some
    assert (overlay.atoms is first) == some
