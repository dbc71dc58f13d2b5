"""From a simulated ferroelectric to its polarisation map, and how good it is.

python ferroelectric.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.export import export_run
from napari_shiftvae.core.fields import pixel_maps
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.polarisation import decoded
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "ferroelectric")
made = perovskite(rng=np.random.default_rng(0), shape=(256, 256))
calibration = Calibration(pixel_size_nm=(made.pixel_size_nm, made.pixel_size_nm))
image = MicroscopeImage(data=made.image, name="perovskite", calibration=calibration)

# Windows around the B columns: what moves in their middle is the ferroelectric displacement.
is_b = made.truth["sublattice"] == "B"
picks = made.truth.loc[is_b, ["y_px", "x_px"]].to_numpy()
run = finish(analyse(image, AnalysisConfig(), positions_yx=picks))
for sentence in run.diagnostics.sentences:
    print(sentence)

polar = decoded(run.polar_yx)
print(polar.sentence)
export_run(run, image, folder)  # tables, maps and figures of all that the run holds
polar_map = pixel_maps(picks, polar.yx_px, run.image.shape)
np.save(folder / "polar_yx_px.npy", polar_map)

truth = made.truth.loc[is_b, ["displacement_y_px", "displacement_x_px"]].to_numpy()
known = np.isfinite(polar.yx_px).all(axis=1)
correlation = np.corrcoef(polar.yx_px[known, 0], truth[known, 0])[0, 1]
print(f"Correlation with the true displacement along y: {correlation:.3f}; files in {folder}")
