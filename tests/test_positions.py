"""Tables of positions as other programs write them."""

import numpy as np
import pandas as pd
import pytest

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.positions import read_positions, write_positions

YX = np.array([[1.5, 20.25], [3.0, 40.5], [7.75, 0.0]])


def text_of(header: str, rows: np.ndarray, separator: str = ",") -> str:
    lines = [separator.join(f"{value:g}" for value in row) for row in rows]
    return "\n".join(([header] if header else []) + lines) + "\n"


@pytest.mark.parametrize(
    ("header", "columns", "separator"),
    [
        pytest.param("y_px,x_px", [0, 1], ",", id="own"),
        pytest.param("x_px;y_px", [1, 0], ";", id="semicolons"),
        pytest.param("index,axis-0,axis-1", [0, 0, 1], ",", id="napari"),
        pytest.param("x_position,y_position", [1, 0], ",", id="Atomap, named"),
        pytest.param("", [1, 0], " ", id="Atomap, by numpy.savetxt"),
        pytest.param("", [1, 0], ",", id="two columns"),
        pytest.param("x\ty", [1, 0], "\t", id="tabs"),
    ],
)
def test_every_layout_gives_the_same_positions(tmp_path, header, columns, separator):
    path = tmp_path / "positions.csv"
    path.write_text(text_of(header, YX[:, columns], separator))
    table = read_positions(path)
    np.testing.assert_allclose(table[["y_px", "x_px"]], YX)
    assert list(table.columns) == ["y_px", "x_px"]


@pytest.mark.parametrize(
    ("header", "order"),
    [("t,y_px,x_px", "tyx"), ("index,axis-0,axis-1,axis-2", "ityx"), ("frame,x,y", "txy")],
)
def test_stacks_have_frames(tmp_path, header, order):
    columns = {"t": np.array([0, 0, 3]), "y": YX[:, 0], "x": YX[:, 1], "i": np.arange(3)}
    path = tmp_path / "positions.csv"
    path.write_text(text_of(header, np.column_stack([columns[name] for name in order])))
    table = read_positions(path)
    assert table["t"].tolist() == [0, 0, 3]
    np.testing.assert_allclose(table[["y_px", "x_px"]], YX)


def test_points_saved_by_napari_are_read(tmp_path):
    layers = pytest.importorskip("napari.layers", reason="core is tested without napari too")
    pytest.importorskip("napari_builtins")
    from napari_builtins.io import napari_write_points

    path = str(tmp_path / "points.csv")
    layer = layers.Points(YX)
    napari_write_points(path, layer.data, layer.as_layer_data_tuple()[1])
    np.testing.assert_allclose(read_positions(path)[["y_px", "x_px"]], YX)


def test_what_is_written_is_read_with_all_columns(tmp_path):
    table = pd.DataFrame({"y_px": YX[:, 0], "x_px": YX[:, 1], "amplitude": [1.0, np.nan, 3.0]})
    path = write_positions(table, tmp_path / "atoms.csv")
    pd.testing.assert_frame_equal(read_positions(path), table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("row,column\n1,2\n", "no columns y_px and x_px"),
        ("1,2,3\n4,5,6\n", "3 columns without names"),
        ("y_px,x_px\n1,2\n3,nan\n", "no finite position in line 3"),
        ("1,2\n3,inf\n", "no finite position in line 2"),
        ("y_px,x_px\n1,two\n", "no numbers"),
        ("t,y_px,x_px\n0.5,1,2\n", "not whole"),
        ("", "could not be read"),
    ],
)
def test_what_is_no_table_of_positions_is_refused(tmp_path, text, words):
    path = tmp_path / "positions.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_positions(path)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="could not be written"):
        write_positions(pd.DataFrame({"y_px": [1.0]}), tmp_path / "none" / "atoms.csv")


def test_a_disk_that_is_full_leaves_the_old_table_whole(tmp_path, monkeypatch):
    path = write_positions(pd.DataFrame({"y_px": [1.0], "x_px": [2.0]}), tmp_path / "atoms.csv")
    old = path.read_bytes()

    def full(_, file, **__):
        file.write(b"y_px")  # some of it still fitted
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        write_positions(pd.DataFrame({"y_px": [3.0], "x_px": [4.0]}), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
