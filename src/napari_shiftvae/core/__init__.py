"""The analysis: numpy, scipy and torch, no napari and no Qt.

Import what you use from its module (`from napari_shiftvae.core.atoms import find_atoms`), so that
reading an image does not load torch.
"""

import os

# What Apple's graphics processors cannot do, torch then does on the CPU. It is read when torch is
# loaded.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
