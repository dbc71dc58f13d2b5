"""The command line: what it writes, what it prints, and one line for every mistake."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.spatial import cKDTree

from napari_shiftvae import __version__
from napari_shiftvae.cli import main
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import read_image
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import SIMULATIONS, perovskite
from napari_shiftvae.core.train import TrainConfig

# As DESIGN fixes them: people script against these.
COLUMNS = [
    *("y_px", "x_px", "shift_y_px", "shift_x_px", "shift_y_sd_px", "shift_x_sd_px"),
    *("atom_y_px", "atom_x_px", "atom_y_sd_px", "atom_x_sd_px"),
    *("polar_y_px", "polar_x_px", "polar_y_sd_px", "polar_x_sd_px"),
    *("polar_y_shared_sd_px", "polar_x_shared_sd_px"),
    *("z1", "z1_sd", "z2", "z2_sd", "residual"),
]
KEYS = {
    *("n_patches", "epochs", "noise_sigma", "active_latents"),
    *("seconds", "peak_memory_mb", "device"),
}
STAGES = {"find", "align", "train", "refine", "fields", "total"}


@pytest.fixture(scope="module")
def simulation():
    return perovskite(rng=np.random.default_rng(0), shape=(160, 150))


@pytest.fixture(scope="module")
def folder(simulation, tmp_path_factory):
    """Folder with an image, the same with a calibration, and the true positions."""
    path = tmp_path_factory.mktemp("images")
    np.save(path / "plain.npy", simulation.image)
    tifffile.imwrite(
        path / "calibrated.ome.tif",
        simulation.image,
        metadata={
            "axes": "YX",
            "PhysicalSizeX": 30.0,
            "PhysicalSizeXUnit": "pm",
            "PhysicalSizeY": 15.0,
            "PhysicalSizeYUnit": "pm",
        },
    )
    simulation.truth.to_csv(path / "truth.csv", index=False)
    return path


def run(*arguments):
    """Run a command with brief training; return its status."""
    return main(["run", *map(str, arguments), "--epochs", "3"])


def table_of(path):
    with zipfile.ZipFile(path) as archive, archive.open("atoms.csv") as file:
        return pd.read_csv(file).fillna({"set_aside": ""})


# --- run ---------------------------------------------------------------------------------------


def test_run_writes_the_run_file(folder, tmp_path, capsys):
    output = tmp_path / "made.shiftvae"
    assert run(folder / "plain.npy", "--output", output) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["made.shiftvae"]
    assert zipfile.ZipFile(output).namelist() == ["atoms.csv", "run.json", "model.safetensors"]
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"Wrote {output}"
    assert any("z1 carries" in line for line in out)
    assert list(table_of(output).columns) == [*COLUMNS, "set_aside"]


def test_run_finds_the_atoms(folder, tmp_path, simulation):
    output = tmp_path / "made.shiftvae"
    assert main(["run", str(folder / "plain.npy"), "--output", str(output), "--epochs", "60"]) == 0
    table = table_of(output)
    used = table[table["set_aside"] == ""]
    atoms = used[["atom_y_px", "atom_x_px"]].to_numpy()
    distance = cKDTree(simulation.truth[["y_px", "x_px"]]).query(atoms)[0]
    assert len(used) > 25
    assert np.median(distance) < 0.25
    assert distance.max() < 1.5


def test_json_is_the_last_line(folder, tmp_path, capsys):
    output = tmp_path / "made.shiftvae"
    assert run(folder / "plain.npy", "--output", output, "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(summary) == KEYS
    assert set(summary["seconds"]) == STAGES
    assert summary["epochs"] == 3
    assert summary["n_patches"] == (table_of(output)["set_aside"] == "").sum()
    assert summary["device"] in {"cpu", "cuda", "mps"}
    assert summary["peak_memory_mb"] is None or summary["peak_memory_mb"] > 50
    assert isinstance(summary["active_latents"], int)


def test_same_seed_gives_the_same_table_to_the_byte(folder, tmp_path):
    tables = []
    for number, seed in enumerate((5, 5, 6)):
        output = tmp_path / f"{number}.shiftvae"
        assert run(folder / "plain.npy", "--output", output, "--seed", seed) == 0
        tables.append(zipfile.ZipFile(output).read("atoms.csv"))
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_command_line_gives_the_numbers_of_the_library(folder, tmp_path):
    output = tmp_path / "made.shiftvae"
    assert run(folder / "plain.npy", "--output", output, "--seed", 2) == 0
    config = AnalysisConfig(train=TrainConfig(epochs=3, seed=2))
    atoms = finish(analyse(read_image(folder / "plain.npy"), config)).atoms
    table = table_of(output)
    for name in COLUMNS:
        np.testing.assert_allclose(table[name], atoms[name], rtol=1e-9)


def test_calibrated_image_has_columns_in_nanometres(folder, tmp_path):
    output = tmp_path / "made.shiftvae"
    assert run(folder / "calibrated.ome.tif", "--output", output) == 0
    table = table_of(output)
    lengths = [name for name in COLUMNS if name.endswith("_px")]
    twins = [f"{name[:-3]}_nm" for name in lengths]
    assert list(table.columns) == [*COLUMNS, *twins, "set_aside"]
    for name, twin in zip(lengths, twins, strict=True):
        size = 0.015 if "y" in name.split("_") else 0.030
        np.testing.assert_allclose(table[twin], table[name] * size, rtol=1e-8)


@pytest.mark.parametrize(
    ("value", "unit", "size_nm"), [(15, "pm", 0.015), (0.2, "angstrom", 0.02), (0.03, "nm", 0.03)]
)
def test_pixel_size_can_be_given(folder, tmp_path, value, unit, size_nm):
    output = tmp_path / "made.shiftvae"
    options = ["--pixel-size", value, "--unit", unit, "--no-refine"]
    assert run(folder / "calibrated.ome.tif", "--output", output, *options) == 0
    table = table_of(output)
    for axis in "yx":  # in the place of the file's own
        np.testing.assert_allclose(table[f"{axis}_nm"], table[f"{axis}_px"] * size_nm, rtol=1e-8)


def test_positions_can_be_given(folder, tmp_path, simulation):
    """Columns other than y_px and x_px do not matter; the order is kept."""
    output = tmp_path / "made.shiftvae"
    options = ["--positions", folder / "truth.csv"]
    assert run(folder / "plain.npy", "--output", output, *options) == 0
    np.testing.assert_allclose(
        table_of(output)[["y_px", "x_px"]], simulation.truth[["y_px", "x_px"]], rtol=1e-9
    )


def test_options_reach_the_analysis(folder, tmp_path):
    output = tmp_path / "made.shiftvae"
    options = ["--patch-size", 26, "--latent-dim", 3, "--no-refine", "--device", "cpu", "--dark"]
    options += ["--positions", folder / "truth.csv", "--seed", 9]
    assert run(folder / "plain.npy", "--output", output, *options) == 0
    made = load_run(output)
    expected = AnalysisConfig(
        patch_size_px=26,
        latent_dim=3,
        refine=False,
        device="cpu",
        dark=True,
        train=TrainConfig(epochs=3, seed=9),
    )
    assert made.config == expected
    assert made.model.config.patch_size_px == 26


@pytest.mark.parametrize("sampling", ["grid", "random"])
def test_windows_anywhere(folder, tmp_path, capsys, sampling):
    output = tmp_path / "made.shiftvae"
    options = ["--sampling", sampling, "--count", 300, "--patch-size", 32, "--json"]
    assert run(folder / "plain.npy", "--output", output, *options) == 0
    made = load_run(output)
    assert (made.config.sampling, made.config.count) == (sampling, 300)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["seconds"]["align"] > 0
    assert summary["n_patches"] < 40  # 300 windows met on a few cells


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(folder, tmp_path, capsys):
    """Atoms on one line make no map, and all else."""
    positions = pd.DataFrame({"y_px": 80.0, "x_px": np.linspace(40, 110, 40)})
    positions.to_csv(tmp_path / "row.csv", index=False)
    options = ["--output", tmp_path / "made.shiftvae", "--positions", tmp_path / "row.csv"]
    assert run(folder / "plain.npy", *options, "--patch-size", 20) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("napari-shiftvae: The maps are empty")


# --- info and simulate -------------------------------------------------------------------------


def test_info_says_what_a_run_holds(folder, tmp_path, capsys):
    output = tmp_path / "made.shiftvae"
    assert run(folder / "calibrated.ome.tif", "--output", output, "--seed", 4) == 0
    capsys.readouterr()
    assert main(["info", str(output)]) == 0
    out = capsys.readouterr().out
    table = table_of(output)
    for words in (
        "160 x 150 px",
        str(folder / "calibrated.ome.tif"),
        "0.015 x 0.03 nm",
        f"{(table['set_aside'] == '').sum()} used of {len(table)} picked",
        "2 latents, fourier decoder, 3 epochs, seed 4",
        "z1 carries",
    ):
        assert words in out


@pytest.mark.parametrize("kind", sorted(SIMULATIONS))
def test_simulate_writes_image_and_truth(tmp_path, kind):
    output = tmp_path / f"{kind}.tif"
    assert main(["simulate", kind, "--output", str(output), "--seed", "3"]) == 0
    expected = SIMULATIONS[kind](rng=np.random.default_rng(3))
    image = read_image(output)
    np.testing.assert_array_equal(image.data, expected.image)
    assert image.calibration is not None
    assert image.calibration.pixel_size_nm == pytest.approx(2 * [expected.pixel_size_nm])
    truth = pd.read_csv(tmp_path / f"{kind}.tif.truth.csv")
    pd.testing.assert_frame_equal(truth, expected.truth, check_exact=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == __version__
