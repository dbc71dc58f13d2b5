"""The command `atoms`: the same steps as the Atoms tab, and one line for every mistake."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.spatial import KDTree

from napari_shiftvae.cli import main
from napari_shiftvae.core.simulate import perovskite

MADE = perovskite(rng=np.random.default_rng(3), shape=(150, 160), pixel_size_nm=0.02, noise=0.03)
TRUTH = MADE.truth[["y_px", "x_px"]].to_numpy()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "made.npy"
    np.save(path, MADE.image)
    return path


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_all_steps_in_one_command(image, tmp_path, capsys):
    output = tmp_path / "atoms.csv"
    options = ["--sublattices", "place,intensity", "--lattice", "--pixel-size", 20, "--unit", "pm"]
    assert run("atoms", image, "--output", output, *options, "--json") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    table = pd.read_csv(output, keep_default_na=False, na_values={"amplitude": [""]})
    assert figures["n_atoms"] == len(table)
    assert set(figures["sublattices"]) == {"A", "B"}
    good = table["flag"] == ""
    assert figures["flagged"] == (~good).sum()
    distance, row = KDTree(TRUTH).query(table.loc[good, ["y_px", "x_px"]])
    assert np.median(distance) < 0.15
    kinds = MADE.truth["sublattice"].to_numpy()[row]
    assert np.mean(kinds == table.loc[good, "sublattice"]) > 0.99
    assert {"lattice_a", "reference_y_px", "y_nm", "sigma_major_nm"} <= set(table)
    assert "t" not in table


def test_positions_can_be_given_and_only_refined(image, tmp_path):
    rng = np.random.default_rng(0)
    inner = TRUTH[((TRUTH > 15) & (TRUTH < 130)).all(axis=1)]
    start = inner + rng.uniform(-0.7, 0.7, inner.shape)
    pd.DataFrame(start, columns=["axis-0", "axis-1"]).to_csv(tmp_path / "napari.csv")
    output = tmp_path / "atoms.csv"
    assert run("atoms", image, "--positions", tmp_path / "napari.csv", "--output", output) == 0
    table = pd.read_csv(output)
    assert len(table) == len(inner)
    assert np.median(np.linalg.norm(table[["y_px", "x_px"]] - inner, axis=1)) < 0.15


def test_atoms_like_an_example(image, tmp_path):
    sites = MADE.truth[MADE.truth["sublattice"] == "A"][["y_px", "x_px"]].to_numpy()
    y, x = sites[np.linalg.norm(sites - 75, axis=1).argmin()]
    output = tmp_path / "atoms.csv"
    assert run("atoms", image, "--like", f"{y:.0f},{x:.0f}", "--output", output) == 0
    distance, _ = KDTree(sites).query(pd.read_csv(output)[["y_px", "x_px"]])
    assert np.mean(distance < 1) > 0.97


def test_a_stack_gives_one_table_with_frames(tmp_path):
    stack = np.stack([np.roll(MADE.image, 2 * t, axis=0) for t in range(3)])
    tifffile.imwrite(
        tmp_path / "movie.tif", stack, photometric="minisblack", metadata={"axes": "TYX"}
    )
    output = tmp_path / "atoms.csv"
    assert run("atoms", tmp_path / "movie.tif", "--no-refine", "--output", output) == 0
    table = pd.read_csv(output)
    assert set(table["t"]) == {0, 1, 2}
    for t in range(3):
        mine = table[table["t"] == t][["y_px", "x_px"]].to_numpy() - [2 * t, 0]
        mine = mine[mine[:, 0] > 8]
        assert np.median(KDTree(TRUTH).query(mine)[0]) < 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sublattices", "colour"], "choose from place, intensity, shape"),
        (["--score", "0.5"], "--score goes with --like"),
        (["--threshold", "9"], "No atoms were found"),
        (["--like", "500,20"], "outside the image"),
        (["--positions", "none.csv"], "could not be read"),
        (["--pixel-size", "3"], "go together"),
    ],
)
def test_mistakes_are_one_line(image, tmp_path, capsys, options, words):
    assert run("atoms", image, "--output", tmp_path / "atoms.csv", *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1]
    assert not (tmp_path / "atoms.csv").exists()


def test_a_place_that_is_none_is_said(image, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run("atoms", image, "--output", tmp_path / "atoms.csv", "--like", "here")
    assert end.value.code == 2
    assert "give it as Y,X" in capsys.readouterr().err
