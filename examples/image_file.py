"""An image file: train, save the run, and read a second image with the same model.

python image_file.py IMAGE [SECOND_IMAGE]
"""

import sys
from pathlib import Path

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.apply import encode_image
from napari_shiftvae.core.images import read_image
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

first, *others = map(Path, sys.argv[1:])
steps = analyse(read_image(first), AnalysisConfig(latent_dim=2, train=TrainConfig(seed=0)))
shown = ""
while True:  # training is a generator: print, plot, or stop whenever you like
    try:
        progress = next(steps)
    except StopIteration as end:
        run = end.value
        break
    if progress.stage != shown:
        shown = progress.stage
        print(progress.message)
path = save_run(run, first.with_suffix(".shiftvae"))
print(f"{run.used.sum()} atoms in {run.seconds['total']:.1f} s, saved as {path}")
print(run.atoms[["atom_y_px", "atom_x_px", "z1", "z1_sd"]].describe().round(3))

for other in others:
    encoded = save_run(
        finish(encode_image(load_run(path), read_image(other))), other.with_suffix(".shiftvae")
    )
    print(f"{other.name} read with the model of {first.name}: {encoded}")
