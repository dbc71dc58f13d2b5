"""Picks, undo and what belongs to which image, without a window."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from napari_shiftvae import jobs
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.picks import Picks
from napari_shiftvae.session import Session
from napari_shiftvae.settings import TrainSettings

FOUND = np.array([[5.0, 5.0], [5.0, 15.0], [15.0, 5.0], [15.0, 15.0]])


@pytest.fixture
def session() -> Session:
    made = Session()
    made.choose("image")
    return made


def report(epoch: float, **more: object) -> SimpleNamespace:
    """A progress record as training yields it."""
    values = {"step": 10 * epoch, "epoch": epoch, "reconstruction": 0.5}
    values |= {"kl_shift": 1.0, "kl_latents": [2.0, 3.0]}
    return SimpleNamespace(report=SimpleNamespace(**(values | more)))


def test_an_automatic_step_keeps_what_was_made_by_hand(session: Session) -> None:
    session.put_found(Picks.of(FOUND, by_hand=False), 10.0)
    session.change_picks(session.picks.added((5.0, 25.0)).moved(0, (6.0, 6.0)))
    session.put_found(Picks.of(FOUND + 0.1, by_hand=False), 10.0)
    by_hand = session.picks.positions_yx[session.picks.by_hand]
    assert sorted(map(tuple, by_hand)) == [(5.0, 25.0), (6.0, 6.0)]
    # the found atom under the moved one is the same atom
    assert len(session.picks) == 5


def test_picks_that_were_found_give_way_to_newly_found_ones(session: Session) -> None:
    session.put_found(Picks.of(FOUND, by_hand=False), 10.0)
    session.put_found(Picks.of(FOUND[:2], by_hand=False), 10.0)
    np.testing.assert_array_equal(session.picks.positions_yx, FOUND[:2])


def test_undo_and_redo_go_through_every_kind_of_change(session: Session) -> None:
    states = [session.picks]
    for change in (
        lambda: session.put_found(Picks.of(FOUND, by_hand=False), 10.0, step=""),
        lambda: session.change_picks(session.picks.added((1.0, 2.0))),
        lambda: session.change_picks(session.picks.moved(1, (7.0, 7.0))),
        lambda: session.change_picks(session.picks.without([0, 2])),
    ):
        change()
        states.append(session.picks)
    for state in states[-2::-1]:
        session.undo()
        assert session.picks is state
    assert not session.can_undo
    for state in states[1:]:
        session.redo()
        assert session.picks is state
    assert not session.can_redo


def test_a_slider_that_is_dragged_is_one_step(session: Session) -> None:
    session.put_found(Picks.of(FOUND, by_hand=False), 10.0, step="")
    for count in (3, 2, 1):
        session.put_found(Picks.of(FOUND[:count], by_hand=False), 10.0, step="preview")
    session.undo()
    assert len(session.picks) == 4


def test_two_drags_are_two_steps(session: Session) -> None:
    session.put_found(Picks.of(FOUND, by_hand=False), 10.0, step="")
    for end in (6.0, 7.0):
        for step in (0.5, 1.0):
            session.change_picks(session.picks.moved(0, (end * step, 5.0)), step="drag")
        session.end_step()
    session.undo()
    np.testing.assert_array_equal(session.picks.positions_yx[0], (6.0, 5.0))


def test_each_image_keeps_its_picks_and_its_run(session: Session) -> None:
    session.put_found(Picks.of(FOUND, by_hand=False), 10.0)
    run = SimpleNamespace()
    session.finish(run, "image")
    session.choose("another")
    assert len(session.picks) == 0
    assert session.run is None
    session.choose("image")
    assert len(session.picks) == 4
    assert session.run is run
    assert session.separation_px == 10.0


def test_a_run_that_ends_after_another_image_was_chosen_waits_there(session: Session) -> None:
    run, shown = SimpleNamespace(), []
    session.choose("another")
    session.run_changed.connect(shown.append)
    session.finish(run, "image")
    assert shown == []
    session.choose("image")
    assert shown == [run]


def test_rows_edited_elsewhere_become_picks_by_hand(session: Session) -> None:
    session.put_found(Picks.of(FOUND, by_hand=False), 10.0)
    edited = session.picks.edited([[5.0, 15.0], [15.5, 5.0], [15.0, 15.0], [30.0, 30.0]])
    assert edited.by_hand.tolist() == [False, True, False, True]


def test_nearest_pick_only_within_reach() -> None:
    picks = Picks.of(FOUND, by_hand=False)
    assert picks.nearest((6.0, 14.0), 2.0) == 1
    assert picks.nearest((10.0, 10.0), 2.0) is None
    assert Picks.none().nearest((0.0, 0.0), 99.0) is None


def test_a_table_without_flags_is_no_picks() -> None:
    with pytest.raises(ValueError, match=r"no columns .*by_hand"):
        Picks(table=pd.DataFrame({"y_px": [1.0], "x_px": [2.0]}))


def test_a_resumed_run_continues_its_curve(session: Session) -> None:
    session.begin()
    session.take_progress(report(1))
    session.begin(keep_losses=True)
    session.take_progress(report(2))
    assert [(loss.epoch, loss.kl) for loss in session.losses] == [(1, 6.0), (2, 6.0)]
    session.begin()
    assert session.losses == []


def test_activity_is_announced_once(session: Session) -> None:
    heard = []
    session.activity_changed.connect(heard.append)
    for activity in ("running", "running", "idle"):
        session.activity = activity
    assert heard == ["running", "idle"]


def test_survey_of_a_single_pick_has_a_patch():
    """The first click on an image: no neighbour tells the scale yet."""
    pixels = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    image = MicroscopeImage(data=pixels, name="noise")
    seen = jobs.survey(image, Picks.of([[32.0, 31.5]], by_hand=True), 0, None, TrainSettings())
    assert 8 <= seen.patch_size_px <= 64
    assert seen.set_aside.tolist() == [""]
