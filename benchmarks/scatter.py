"""Frames a second of the Explore tab's plot while it is panned and zoomed, 100,000 atoms.

python benchmarks/scatter.py
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from qtpy.QtWidgets import QApplication

from machine import on_this_machine, print_table
from napari_shiftvae.colouring import colouring
from napari_shiftvae.widgets.scatter import LatentScatter

FRAMES = 60


def main() -> None:
    """Pan and zoom in steps, each painted before the next."""
    app = QApplication([])
    with on_this_machine():
        rows = []
        for count in (5_000, 20_000, 100_000):
            rng = np.random.default_rng(0)
            x, y = rng.standard_normal((2, count))
            colours = colouring(pd.DataFrame({"x": x}), "x")
            plot = LatentScatter()
            plot.resize(360, 250)
            plot.show()
            plot.set_points(x, y, colours)
            plot.show_all()
            app.processEvents()
            for name, step in (("pan", {"x": 0.02, "y": 0.01}), ("zoom", {"s": (0.99, 0.99)})):
                began = time.perf_counter()
                for _ in range(FRAMES):
                    if "s" in step:
                        plot.plotItem.vb.scaleBy(**step)
                    else:
                        plot.plotItem.vb.translateBy(**step)
                    plot.repaint()
                    app.processEvents()
                rate = FRAMES / (time.perf_counter() - began)
                rows.append({"atoms": f"{count:,}", "motion": name, "frames/s": f"{rate:.0f}"})
            plot.close()
        print_table("Plot of 360 x 250 px", rows)


if __name__ == "__main__":
    main()
