"""Find order parameters in atomic-resolution images without labels, inside napari.

Importing the package loads neither torch nor napari nor Qt; the analysis is in
`napari_shiftvae.core`.
"""

__version__ = "0.1.0"
