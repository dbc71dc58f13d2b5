"""What napari saves with this plugin: the atoms of a layer as a table."""

from pathlib import Path
from typing import Any

import numpy as np


def write_atoms(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write the points of a layer, with their features, as CSV.

    Parameters
    ----------
    path : str
        ``.csv`` is appended where it is missing.
    data : (N, 2) or (N, 3) array
        Positions (y, x) or (t, y, x) in pixels of the image.
    attributes : dict
        Of the layer, its ``features`` among them.

    Returns
    -------
    list of str
        The file that was written.

    Raises
    ------
    InputError
        If the layer has other dimensions, or the file cannot be written.
    """
    import pandas as pd

    from napari_shiftvae.core.errors import InputError
    from napari_shiftvae.core.positions import write_positions

    positions = np.asarray(data, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] not in {2, 3}:
        raise InputError(
            f"The layer has positions of shape {positions.shape}; choose points of an image "
            "(y, x) or of a stack (t, y, x)."
        )
    table = pd.DataFrame(positions[:, -2:], columns=["y_px", "x_px"])
    if positions.shape[1] == 3:
        table.insert(0, "t", np.rint(positions[:, 0]).astype(np.int64))
    features = pd.DataFrame(attributes.get("features", {})).reset_index(drop=True)
    for name in features.columns.difference(table.columns, sort=False):
        table[name] = features[name]
    file = Path(path)
    if file.suffix.lower() != ".csv":
        file = file.with_name(f"{file.name}.csv")
    return [str(write_positions(table, file))]
