"""What keeps the window alive: rare painting, long work in steps, no search for garbage."""

import gc
import weakref
from collections.abc import Iterator

import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from napari.utils.progress import cancelable_progress, progress
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QLabel, QTabWidget, QWidget

from napari_shiftvae import garbage
from napari_shiftvae.widgets import activity, pace
from napari_shiftvae.widgets.turns import Turns
from napari_shiftvae.widgets.when_seen import WhenSeen


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "wait_ms"), [(0.04, 2000), (0.0, 100)])
def test_what_is_shown_at_great_cost_is_shown_rarely(
    qtbot, monkeypatch, seconds: float, wait_ms: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(pace.time, "perf_counter", clock)
    widget, shown = QWidget(), []
    qtbot.addWidget(widget)

    def show(number: int) -> None:
        clock.now += seconds
        shown.append(number)

    paced = pace.Pace(show, widget)
    paced.offer(1)
    qtbot.waitUntil(lambda: shown == [1])
    for number in range(2, 50):
        paced.offer(number)
    assert paced._timer.interval() == wait_ms
    paced.catch_up()
    paced.catch_up()
    assert shown == [1, 49]  # the newest, once
    paced.offer(50)
    paced.forget()
    paced.catch_up()
    assert shown == [1, 49]


def test_what_is_shown_is_painted_before_the_pace_is_set(qtbot) -> None:
    painted = []

    class Painted(QLabel):
        def paintEvent(self, event) -> None:  # noqa: N802
            super().paintEvent(event)
            painted.append(self.text())

    label = Painted("before")
    qtbot.addWidget(label)
    label.show()
    qtbot.waitUntil(lambda: "before" in painted)
    paced = pace.Pace(label.setText, label)
    paced.offer("after")
    paced.catch_up()
    assert painted[-1] == "after"  # not whenever Qt comes to it


def three_steps() -> tuple[Turns, list[int]]:
    """Work that has been started, and the steps of it that are done."""
    turns, done = Turns(None), []

    def steps() -> Iterator[None]:
        for number in range(3):
            done.append(number)
            yield

    turns.start(steps())
    return turns, done


def test_the_window_lives_between_the_steps_of_long_work(qtbot) -> None:
    turns, done = three_steps()
    assert done == []
    turn_of = []
    turns._timer.timeout.connect(lambda: turn_of.append(len(done)))
    with qtbot.waitSignal(turns.ended):
        pass
    assert turn_of[:3] == [1, 2, 3]  # not all at once
    assert done == [0, 1, 2]
    assert garbage._holders == 0


def test_a_step_that_fails_ends_the_work(qtbot) -> None:
    def steps() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    turns = Turns(None)
    with qtbot.captureExceptions() as raised, qtbot.waitSignal(turns.ended):
        turns.start(steps())
    assert [kind for kind, *_ in raised] == [ZeroDivisionError]
    assert garbage._holders == 0


def test_what_is_hidden_is_drawn_once_it_is_seen(qtbot) -> None:
    tabs, plot, drawn = QTabWidget(), QLabel(), []
    qtbot.addWidget(tabs)
    tabs.addTab(QLabel(), "first")
    tabs.addTab(plot, "second")
    draw = WhenSeen(plot, lambda: drawn.append(plot.isVisible()))
    tabs.show()
    draw()
    draw()
    assert drawn == []
    tabs.setCurrentIndex(1)
    assert drawn == [True]
    draw()
    assert drawn == [True, True]
    tabs.setCurrentIndex(0)
    tabs.setCurrentIndex(1)  # nothing has waited
    assert drawn == [True, True]


def test_steps_that_are_left_can_be_done_at_once(qtbot) -> None:
    turns, done = three_steps()
    with qtbot.waitSignal(turns.ended):
        turns.finish()
    assert done == [0, 1, 2]
    assert garbage._holders == 0


def test_a_bar_that_comes_after_the_end_of_its_job_is_taken_away(qtbot, monkeypatch) -> None:
    parent, made = QObject(), []
    bar = activity.ActivityBar(parent)

    def ending(**about: object) -> cancelable_progress:
        made.append(cancelable_progress(**about))
        bar.end()  # as where napari handles events while it makes one
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(activity, "cancelable_progress", ending)
        bar.start("made")
        qtbot.waitUntil(lambda: bool(made))
    assert not set(made) & set(progress._all_instances)
    bar.start("again")
    qtbot.waitUntil(lambda: any("again" in one.desc for one in progress._all_instances))
    bar.end()
    assert not progress._all_instances


class Cycle:
    """Only a search finds out that nobody uses it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def thawed() -> Iterator[None]:
    """Undo what the other tests leave out of searches, which then do so anew."""
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
def test_what_is_there_is_left_out_of_searches_until_the_dock_is_closed() -> None:
    old = Cycle()
    is_old, callbacks = weakref.ref(old), list(gc.callbacks)
    garbage.open_dock()
    try:
        assert gc.get_freeze_count() == 0  # there may be garbage now
        gc.collect()
        assert gc.get_freeze_count() > 100_000
        new = Cycle()
        is_new = weakref.ref(new)
        del old, new
        gc.collect()
        assert is_new() is None
        assert is_old() is not None
    finally:
        garbage.close_dock()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert is_old() is None
    assert gc.get_freeze_count() == 0
    assert gc.callbacks == callbacks


@pytest.mark.usefixtures("thawed")
def test_what_went_while_a_dock_is_open_is_found() -> None:
    old = Cycle()
    is_old = weakref.ref(old)
    garbage.open_dock()
    try:
        gc.collect()
        del old
        garbage.thaw()
        gc.collect()
        assert is_old() is None
        assert gc.get_freeze_count() > 0  # what is left is left out again
    finally:
        garbage.close_dock()


@pytest.mark.usefixtures("thawed")
def test_what_is_loaded_meanwhile_is_left_out_at_once() -> None:
    garbage.open_dock()
    try:
        with garbage.none_while_loading():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        garbage.close_dock()
    with garbage.none_while_loading():  # the dock was closed before it was done
        pass
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()


@pytest.mark.usefixtures("thawed")
def test_what_others_left_out_stays_so() -> None:
    gc.freeze()
    garbage.open_dock()
    gc.collect()
    garbage.close_dock()
    assert gc.get_freeze_count() > 0


def test_all_objects_are_not_looked_through_meanwhile() -> None:
    before = gc.get_threshold()
    gc.collect()
    garbage.put_off()
    garbage.put_off()
    garbage.allow()
    full = gc.get_stats()[2]["collections"]
    kept = [[number] for number in range(400_000)]  # would set off several full searches
    assert gc.get_stats()[2]["collections"] == full
    garbage.allow()
    assert gc.get_threshold() == before
    del kept
