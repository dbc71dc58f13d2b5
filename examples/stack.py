"""A stack of frames: one model for all, each frame read with it, and what changes in time.

python stack.py [FOLDER]      (run again after an interruption, it goes on)
"""

import sys
from pathlib import Path

import numpy as np

from napari_shiftvae.core.analyse import finish
from napari_shiftvae.core.sequence import analyse_sequence
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "stack")
# The same crystal, seen again and again: the noise differs, and the intensity fades.
made = perovskite(rng=np.random.default_rng(0), shape=(180, 180))
rng = np.random.default_rng(1)
frames = np.stack(
    [
        fading * made.image + 0.02 * rng.normal(size=made.image.shape)
        for fading in np.linspace(1, 0.9, 5)
    ]
).astype(np.float32)

result = finish(analyse_sequence(frames, AnalysisConfig(), folder, share=0.4))
print(f"Learned from frames {result.learned_from}; tables are in {folder}")
used = result.atoms[result.atoms["set_aside"] == ""]
by_frame = used.groupby("t")
print(by_frame[["z1", "z2", "residual"]].mean().round(3))
print("Atoms per frame:", by_frame.size().tolist())
