"""Refines columns with Atomap, in the Python that has it.

python atomap_process.py TASK.npz RESULT.npz
"""

import sys
import time

import atomap.api  # noqa: F401 - first: its other modules import each other
import numpy as np
from atomap.sublattice import Sublattice


def main() -> None:
    """Refine by centre of mass, then by Gaussians, as in Atomap's documentation."""
    source, target = sys.argv[1:]
    with np.load(source) as task:
        image, start = task["image"], task["start_yx"]
    began = time.perf_counter()
    sublattice = Sublattice(start[:, ::-1], image=image)
    sublattice.find_nearest_neighbors()
    sublattice.refine_atom_positions_using_center_of_mass(show_progressbar=False)
    sublattice.refine_atom_positions_using_2d_gaussian(show_progressbar=False)
    seconds = time.perf_counter() - began
    found = np.column_stack([sublattice.y_position, sublattice.x_position])
    np.savez(target, positions_yx=found, seconds=seconds)


if __name__ == "__main__":
    main()
