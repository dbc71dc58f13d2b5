"""The table of picks: what each step keeps, adds and forgets."""

import numpy as np
import pandas as pd
import pytest

from napari_shiftvae.core.images import Calibration
from napari_shiftvae.picks import Picks
from napari_shiftvae.session import COLOURS, UNDO_ROWS, Session

FOUND = np.array([[5.0, 5.0], [5.0, 15.0], [15.0, 5.0], [15.0, 15.0]])


@pytest.fixture
def measured() -> Picks:
    """Four atoms, one in another frame, measured and in two sublattices."""
    picks = Picks.of(FOUND, by_hand=False, t=[0, 0, 0, 1])
    columns = {
        "amplitude": [1.0, 2.0, 3.0, 4.0],
        "flag": ["", "", "border", ""],
        "sublattice": ["A", "A", "B", "B"],
    }
    return picks.with_measured(pd.DataFrame(columns))


def test_a_moved_atom_is_by_hand_and_not_measured_any_more(measured: Picks) -> None:
    moved = measured.moved(2, (16.0, 6.0))
    assert moved.by_hand.tolist() == [False, False, True, False]
    assert np.isnan(moved.table.loc[2, "amplitude"])
    assert moved.table.loc[2, "flag"] == ""
    assert moved.sublattice.tolist() == ["A", "A", "B", "B"]
    assert measured.table.loc[2, "amplitude"] == 3.0  # the old ones are as they were


def test_an_added_atom_has_nothing_measured(measured: Picks) -> None:
    added = measured.added((30.0, 31.0), t=1)
    row = added.table.iloc[-1]
    assert (row["t"], row["y_px"], row["x_px"], row["by_hand"]) == (1, 30.0, 31.0, True)
    assert np.isnan(row["amplitude"])
    assert row["flag"] == row["sublattice"] == ""
    assert added.table.dtypes["t"] == np.int64
    assert added.table.dtypes["by_hand"] == np.bool_


def test_an_edited_layer_keeps_what_is_known_of_the_atoms_that_stay(measured: Picks) -> None:
    places = measured.positions_tyx[[3, 0, 1]]
    places[2] += 0.5
    edited = measured.edited(places)
    np.testing.assert_array_equal(edited.positions_tyx[:2], places[:2])
    assert edited.by_hand.tolist() == [False, False, True]
    assert edited.table["amplitude"].tolist()[:2] == [4.0, 1.0]
    assert edited.sublattice.tolist()[:2] == ["B", "A"]


def test_finding_in_one_frame_leaves_the_others(measured: Picks) -> None:
    found = Picks.of([[7.0, 7.0]], by_hand=False, t=1)
    new = measured.with_found(found, 3.0, frame=1)
    assert sorted(zip(new.t.tolist(), new.positions_yx[:, 0].tolist(), strict=True)) == [
        (0, 5.0),
        (0, 5.0),
        (0, 15.0),
        (1, 7.0),
    ]
    assert len(measured.with_found(found, 3.0)) == 1


def test_atoms_in_different_frames_are_never_the_same(measured: Picks) -> None:
    again = Picks.of(FOUND, by_hand=False, t=1)
    more = measured.with_more(again, 4.0)
    assert len(more) == 7  # only the one that is in frame 1


def test_similar_places_take_a_name_and_missing_ones_are_added(measured: Picks) -> None:
    places = Picks.of([[5.2, 15.1], [40.0, 40.0]], by_hand=False)
    new = measured.with_group(places, "C", 2.0)
    assert new.sublattice.tolist() == ["A", "C", "B", "B", "C"]
    np.testing.assert_array_equal(new.positions_yx[1], FOUND[1])  # no atom is moved
    assert new.sublattices == ["A", "B", "C"]


def test_a_subset_by_sublattice(measured: Picks) -> None:
    assert len(measured.in_sublattices(["A"])) == 2
    assert len(measured.in_sublattices(["A", "B"])) == 4
    assert len(measured.in_sublattices([])) == 0


def test_a_file_has_frames_only_of_a_stack_and_lengths_in_nm(measured: Picks) -> None:
    table = measured.for_file(Calibration(pixel_size_nm=(0.5, 0.25)), stack=False)
    assert "t" not in table
    np.testing.assert_allclose(table["x_nm"], table["x_px"] * 0.25)
    assert "t" in measured.for_file(None, stack=True)


def test_picks_of_a_file_are_those_that_were_written(measured: Picks, tmp_path) -> None:
    from napari_shiftvae.core.positions import read_positions, write_positions

    path = write_positions(measured.for_file(None, stack=True), tmp_path / "atoms.csv")
    back = Picks.read(read_positions(path), by_hand=True)
    np.testing.assert_array_equal(back.positions_tyx, measured.positions_tyx)
    assert back.sublattice.tolist() == ["A", "A", "B", "B"]
    assert back.table["amplitude"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert back.table["flag"].tolist() == ["", "", "border", ""]


def test_renaming_joins_and_can_be_undone(measured: Picks) -> None:
    session = Session()
    session.choose("image")
    session.change_picks(measured)
    colour = session.colour_of("B")
    assert colour == COLOURS[1]
    session.rename("B", "Ti")
    assert session.picks.sublattices == ["A", "Ti"]
    assert session.colour_of("Ti") == colour
    session.rename("Ti", "A")
    assert session.picks.sublattices == ["A"]
    session.undo()
    session.undo()
    assert session.picks is measured


def test_the_memory_of_undo_is_bounded() -> None:
    session = Session()
    session.choose("image")
    many = UNDO_ROWS // 10
    for _ in range(30):
        session.change_picks(Picks.of(np.zeros((many, 2)), by_hand=False))
    kept = 0
    while session.can_undo:
        session.undo()
        kept += 1
    assert 8 <= kept <= 11
