"""The writer of atoms, as napari calls it."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("napari", reason="the writer is for napari")

from napari.layers import Points
from npe2 import PluginManifest

from napari_shiftvae._writer import write_atoms
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.positions import read_positions

PLACES = np.array([[1.25, 2.0], [1 / 3, 5.0]])


def test_manifest_offers_it_for_points():
    manifest = PluginManifest.from_distribution("napari-shiftvae")
    (writer,) = manifest.contributions.writers
    assert (writer.layer_types, writer.filename_extensions) == (["points"], [".csv"])
    manifest.validate_imports()


def test_atoms_come_back(tmp_path):
    features = {"z1": [0.5, np.nan], "sublattice": ["A", "B"], "y_px": [9.0, 9.0]}
    layer = Points(PLACES, features=features, scale=(2, 3))
    data, attributes, _ = layer.as_layer_data_tuple()
    (path,) = write_atoms(str(tmp_path / "made"), data, attributes)
    assert path == str(tmp_path / "made.csv")
    table = read_positions(path)
    np.testing.assert_array_equal(table[["y_px", "x_px"]], PLACES)  # pixels, where points are
    np.testing.assert_array_equal(table["z1"], features["z1"])
    assert list(table["sublattice"]) == ["A", "B"]


def test_atoms_of_a_stack_keep_their_frames(tmp_path):
    tyx = np.column_stack([[3.0, 0.0], PLACES])
    data, attributes, _ = Points(tyx).as_layer_data_tuple()
    (path,) = write_atoms(str(tmp_path / "made.csv"), data, attributes)
    assert pd.read_csv(path).columns[0] == "t"
    np.testing.assert_array_equal(read_positions(path)["t"], [3, 0])


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(InputError, match=r"shape \(2, 4\); choose points of an image"):
        write_atoms(str(tmp_path / "made.csv"), np.zeros((2, 4)), {})
    with pytest.raises(InputError, match="could not be written"):
        write_atoms(str(tmp_path / "missing" / "made.csv"), PLACES, {})
