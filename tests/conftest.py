"""What several test files share: images, made and measured, and a window with the dock."""

import gc
import os
import sys
import tempfile

# Torch's threads wait for each other at every small step; one is as fast, and steady on a busy
# machine. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Runs that save themselves shall not fill the folder of who runs the tests.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="shiftvae-tests-")
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="shiftvae-tests-")

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import napari

    from napari_shiftvae.widgets import ShiftVAEWidget

PLACE = {
    "scale": (0.015, 0.02),
    "rotate": 20.0,
    "translate": (3.0, -7.0),
    "units": ("nm", "nm"),
    "axis_labels": ("y", "x"),
}
DATA = Path(os.environ.get("SHIFTVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def real_image() -> Callable[[str], Path]:
    """Path of a measured image; skips where the folder of measured images is absent."""

    def path(name: str) -> Path:
        if not (DATA / name).is_file():
            pytest.skip(f"{name} is not in {DATA} (measured images are not part of this project)")
        return DATA / name

    return path


@pytest.fixture(scope="session")
def frozen() -> SimpleNamespace:
    """How many modules are left out of the searches for garbage."""
    return SimpleNamespace(modules=0)


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, frozen: SimpleNamespace
) -> Iterator[None]:
    """Fail a test with a window that leaves windows, threads, workers or timers behind."""
    if not {"qtbot", "make_napari_viewer"} & set(request.fixturenames):
        yield
        return
    request.getfixturevalue("qapp")  # there must be one to ask
    if len(sys.modules) > 1.2 * frozen.modules:
        gc.collect()
        gc.freeze()  # what was imported stays: no search for garbage need go through it again
        frozen.modules = len(sys.modules)
    from left_behind import LeftBehind

    left = LeftBehind(monkeypatch)
    yield
    request.node.funcargs.clear()  # pytest would hold the closed viewer and dock until later
    left.check()


@pytest.fixture(scope="session")
def made() -> np.ndarray:
    """A small perovskite of some hundred atoms; copy it to change it."""
    from napari_shiftvae.core.simulate import perovskite

    image = perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image
    image.setflags(write=False)
    return image


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the runs that save themselves, this test's own."""
    from napari_shiftvae.core.checkpoint import runs_folder

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    return runs_folder()


@pytest.fixture
def qtbot(qtbot, monkeypatch: pytest.MonkeyPatch) -> object:
    """One that waits two minutes, unless asked for less: on a busy machine much takes long."""
    for name in ("waitUntil", "waitSignal"):
        monkeypatch.setattr(qtbot, name, partial(getattr(qtbot, name), timeout=120_000))
    return qtbot


@pytest.fixture
def viewer(make_napari_viewer: "Callable[..., napari.Viewer]") -> "napari.Viewer":
    return make_napari_viewer()


@pytest.fixture
def open_dock(
    make_napari_viewer: "Callable[..., napari.Viewer]",  # noqa: ARG001  # ends after this
    runs: Path,
) -> "Iterator[Callable[..., ShiftVAEWidget]]":
    """Open the dock in a viewer; it is closed before the viewer is."""
    from napari_shiftvae.settings import TrainSettings
    from napari_shiftvae.widgets import ShiftVAEWidget

    docks = []

    def open_in(viewer: "napari.Viewer", *, epochs: int | None = 3) -> "ShiftVAEWidget":
        dock = ShiftVAEWidget(viewer)
        docks.append(dock)
        viewer.window.add_dock_widget(dock)
        dock.train.form.setValue(TrainSettings(epochs=epochs))
        return dock

    yield open_in
    for dock in docks:
        for part in (
            dock.restoring,
            dock.training,
            dock.model_control,
            dock.spectra,
            dock.stack.job,
            dock.stack.frames,
            dock.copying,
            dock.atoms_control,
            dock.explore_control,
            dock.fields_control,
            dock.pixel_size,
            dock.appearing,
        ):
            part.close()
    assert not list(runs.glob("*.part"))  # half-written


@pytest.fixture
def dock(viewer: "napari.Viewer", made: np.ndarray, open_dock) -> "ShiftVAEWidget":
    """The dock beside an image ``made`` of oblong pixels, which lies turned."""
    viewer.add_image(made.copy(), name="made", **PLACE)
    return open_dock(viewer)


@pytest.fixture
def finished_dock(qtbot, make_napari_viewer, open_dock) -> "Callable[..., ShiftVAEWidget]":
    """Open a window with an image ``made`` and its finished run, on one of the dock's tabs."""
    from driving import run

    def make(image: np.ndarray, *, tab: int, epochs: int, **place: object) -> "ShiftVAEWidget":
        viewer = make_napari_viewer(show=True)
        viewer.add_image(image, name="made", **place)
        dock = open_dock(viewer, epochs=epochs)
        run(qtbot, dock)
        dock.tabs.setCurrentIndex(tab)
        qtbot.wait(50)
        return dock

    return make


@pytest.fixture
def in_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Have something happen before each step of training, given its number, model and batch."""
    from napari_shiftvae.core import train

    own, number = train._step, iter(range(10**9))

    def set_up(happens: Callable[..., None]) -> None:
        def step(model, batch, *arguments, **keywords):
            happens(next(number), model, batch.x)
            return own(model, batch, *arguments, **keywords)

        monkeypatch.setattr(train, "_step", step)

    return set_up


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[float]]:
    """Set how long a step of training seems to take [s]; the list holds the time [s]."""
    from napari_shiftvae.core import train

    now = [0.0]
    step = train._step

    def set_duration(seconds: float) -> list[float]:
        def slow(*arguments, **keywords):
            now[0] += seconds
            return step(*arguments, **keywords)

        clock = SimpleNamespace(perf_counter=lambda: now[0])
        monkeypatch.setattr(train, "time", clock)
        monkeypatch.setattr(train, "_step", slow)
        return now

    return set_duration


@pytest.fixture
def write_hspy(tmp_path: Path) -> Callable[..., Path]:
    """Write signals (title, data, axes) as HyperSpy's HDF5 file, which RosettaSciIO reads."""
    pytest.importorskip("rsciio", reason="RosettaSciIO is the extra `em`")
    import h5py

    def write(
        *signals: tuple[str, np.ndarray, list[dict[str, object]]], chunks: bool = False
    ) -> Path:
        path = tmp_path / "made.hspy"
        with h5py.File(path, "w") as file:
            file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.1"})
            for title, data, axes in signals:
                group = file.create_group(f"Experiments/{title}")
                group.create_dataset("data", data=data, chunks=chunks or None)
                group.create_group("metadata/General").attrs["title"] = title
                group.create_group("original_metadata")
                for index, axis in enumerate(axes):
                    size = data.shape[index]
                    group.create_group(f"axis-{index}").attrs.update(
                        {"size": size, "offset": 0.0, "navigate": False} | axis
                    )
        return path

    return write
