"""What several test files share: measured images where there are any, and a vendor's file."""

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
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from napari_shiftvae.widgets import ShiftVAEWidget

RUN_MS = 60_000
DATA = Path(os.environ.get("SHIFTVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def real_image() -> Callable[[str], Path]:
    """Path of a measured image; skips where the folder of measured images is absent."""

    def path(name: str) -> Path:
        if not (DATA / name).is_file():
            pytest.skip(f"{name} is not in {DATA} (measured images are not part of this project)")
        return DATA / name

    return path


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail a test with a window that leaves windows, threads, workers or timers behind."""
    if not {"qtbot", "make_napari_viewer"} & set(request.fixturenames):
        yield
        return
    request.getfixturevalue("qapp")  # there must be one to ask
    if not gc.get_freeze_count() and "napari_shiftvae.core.analyse" in sys.modules:
        gc.collect()
        gc.freeze()  # what was imported stays: no search for garbage need go through it again
    from left_behind import LeftBehind

    left = LeftBehind(monkeypatch)
    yield
    request.node.funcargs.clear()  # pytest would hold the closed viewer and dock until later
    left.check()


@pytest.fixture
def finished_dock(qtbot, make_napari_viewer) -> Iterator[Callable[..., "ShiftVAEWidget"]]:
    """Open a window with an image ``made`` and its finished run, on one of the dock's tabs."""
    from napari_shiftvae.settings import TrainSettings
    from napari_shiftvae.widgets import ShiftVAEWidget

    docks = []

    def make(image: np.ndarray, *, tab: int, epochs: int, **place: object) -> ShiftVAEWidget:
        viewer = make_napari_viewer(show=True)
        viewer.add_image(image, name="made", **place)
        dock = ShiftVAEWidget(viewer)
        docks.append(dock)
        viewer.window.add_dock_widget(dock)
        dock.train.form.setValue(TrainSettings(epochs=epochs))
        with qtbot.waitSignal(dock.fields_control.read, timeout=RUN_MS):
            dock.quick_run()
        qtbot.waitUntil(lambda: dock.session.activity == "idle", timeout=RUN_MS)
        dock.tabs.setCurrentIndex(tab)
        qtbot.wait(50)
        return dock

    yield make
    for dock in docks:
        for part in (
            dock.training,
            dock.atoms_control,
            dock.explore_control,
            dock.fields_control,
            dock.pixel_size,
        ):
            part.close()


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
