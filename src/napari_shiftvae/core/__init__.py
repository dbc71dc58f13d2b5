"""The analysis: numpy, scipy and torch, no napari and no Qt.

Import what you use from its module (`from napari_shiftvae.core.atoms import find_atoms`), so that
reading an image does not load torch.
"""
