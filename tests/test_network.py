"""Nothing of this program asks for a network."""

import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a fresh process, in which any use of a socket fails loudly.
GUARD = """
import socket, sys

def refused(*_, **__):
    raise AssertionError("a socket was asked for")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refused
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refused
try:
    socket.create_connection(("127.0.0.1", 9))
except AssertionError:
    pass
else:
    sys.exit("the guard does not hold")
from napari_shiftvae.cli import main
"""


def run_guarded(folder: Path, code: str) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", GUARD + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_an_analysis_uses_no_network(tmp_path) -> None:
    run_guarded(
        tmp_path,
        """
assert main(["simulate", "perovskite", "--output", "a.tif"]) == 0
import tifffile
tifffile.imwrite("b.tif", tifffile.imread("a.tif")[:150, :150])
assert main(["run", "b.tif", "--output", "a.shiftvae", "--epochs", "1", "--no-refine"]) == 0
assert main(["info", "a.shiftvae"]) == 0
assert main(["export", "a.shiftvae", "--output", "out"]) == 0
""",
    )


def test_the_dock_uses_no_network(tmp_path) -> None:
    pytest.importorskip("napari.qt")
    run_guarded(
        tmp_path,
        """
import napari, numpy as np
from napari_shiftvae.widgets.dock import ShiftVAEWidget
viewer = napari.Viewer(show=False)
viewer.add_image(np.random.default_rng(0).normal(size=(64, 64)))
viewer.window.add_dock_widget(ShiftVAEWidget(viewer))
viewer.close()
""",
    )
