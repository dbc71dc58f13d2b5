"""Spectra of a scan: how far the peak of each is shifted, and what else differs among them.

python spectra.py [FILE.shiftvae]
"""

import sys
from pathlib import Path

import numpy as np

from napari_shiftvae.core.analyse import finish
from napari_shiftvae.core.runfile import load_spectra, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.spectra_run import analyse_spectra
from napari_shiftvae.core.spectra_simulation import peak_spectra
from napari_shiftvae.core.train import TrainConfig

path = Path(sys.argv[1] if len(sys.argv) > 1 else "spectra.shiftvae")
made = peak_spectra(rng=np.random.default_rng(0), count=600)
cube = made.spectra.reshape(20, 30, -1)  # a scan of 20 x 30 places

config = AnalysisConfig(train=TrainConfig(epochs=30))
run = finish(analyse_spectra(cube, -1, config, axis_scale=made.step, axis_unit="eV"))
for sentence in run.diagnostics.sentences:
    print(sentence)

shift = run.maps["shift"].ravel()
truth = made.centre - made.centre.mean()
correlation = np.corrcoef(shift, truth)[0, 1]
print(f"The shift follows the peaks with a correlation of {correlation:.4f}")
path = save_run(run, path)
print(f"Saved as {path}; it opens again with {len(load_spectra(path).atoms)} rows")
