"""Kinds of atoms on graphene with dopants and vacancies: without labels, and with five a class.

python benchmarks/classes.py --seeds 3
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import adjusted_rand_score

from machine import on_this_machine, print_table
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import graphene
from napari_shiftvae.core.train import TrainConfig

KINDS = ["carbon", "dopant", "vacancy"]
LABELS = 5  # a class
CASES = (  # size of the windows [px], latents, labels; bonds are 11.8 px long
    (10, 1, False),
    (10, 1, True),
    (14, 2, False),
    (14, 2, True),
    (24, 2, True),
)


def run_case(seed: int, size: int, latents: int, *, labelled: bool) -> dict[str, str]:
    """Analyse one sheet; the picks are all its sites."""
    made = graphene(rng=np.random.default_rng(seed), shape=(512, 512))
    sites = made.truth[["site_y_px", "site_x_px"]].to_numpy()
    kind = np.searchsorted(KINDS, made.truth["kind"].to_numpy().astype(str))
    label = np.full(len(sites), -1)
    if labelled:
        rng = np.random.default_rng(seed)
        away = np.minimum(sites, np.array(made.image.shape) - 1 - sites).min(axis=1)
        for number in range(len(KINDS)):
            some = rng.permutation(np.flatnonzero((away > size) & (kind == number)))
            label[some[:LABELS]] = number
    config = AnalysisConfig(
        patch_size_px=size,
        separation_px=made.separation_px,
        latent_dim=latents,
        classes=len(KINDS),
        normalisation="global",
        train=TrainConfig(seed=seed),
    )
    image = MicroscopeImage(data=made.image, name="sheet")
    run = finish(analyse(image, config, positions_yx=sites, labels=label if labelled else None))
    asked = run.used & (label < 0)
    found = run.atoms["class"].to_numpy()[asked]
    return {
        "": f"seed {seed}, windows of {size} px, {latents} latents, "
        + (f"{LABELS} labels a class" if labelled else "no labels"),
        "atoms": f"{asked.sum()}",
        "adjusted Rand index": f"{adjusted_rand_score(kind[asked], found):.4f}",
        "total s": f"{run.seconds['total']:.1f}",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    chosen = parser.parse_args()
    rows = [
        run_case(seed, size, latents, labelled=labelled)
        for size, latents, labelled in CASES
        for seed in range(chosen.seeds)
    ]
    print_table("Classes of atoms; aims 0.98 without labels, 0.995 with five a class", rows)


if __name__ == "__main__":
    with on_this_machine():
        main()
