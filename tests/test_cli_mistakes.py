"""What a user gets wrong on the command line is said in one line, and nothing is written."""

import os
import zipfile

import numpy as np
import pytest

from napari_shiftvae.cli import main


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    np.save(path / "plain.npy", made)
    return path


def run(*arguments):
    """Run a command with brief training; return its status."""
    return main(["run", *map(str, arguments), "--epochs", "3"])


def rgb(path):
    np.save(path / "rgb.npy", np.zeros((20, 20, 3), dtype=np.uint8))
    return path / "rgb.npy"


def complaint(capsys):
    """Return the one line that a refused command prints."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1
    assert "Traceback" not in err
    assert lines[0].startswith("napari-shiftvae: ")
    assert lines[0].endswith(".")
    return lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--patch-size", "500"], "patch size of 500 px does not fit"),
        (["--patch-size", "3"], "patch_size_px is 3"),
        (["--pixel-size", "15"], "--pixel-size and --unit go together"),
        (["--unit", "pm"], "--pixel-size and --unit go together"),
        (["--pixel-size", "-1", "--unit", "pm"], "give two lengths above zero"),
        (["--pixel-size", "nan", "--unit", "pm"], "give two lengths above zero"),
        (["--latent-dim", "0"], "latent_dim is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--count", "300"], "count is the number of windows"),
        (["--positions", "none.csv"], "none.csv could not be read as CSV"),
        (["--positions", "none.csv", "--sampling", "grid"], "exclude each other"),
    ],
)
def test_bad_options_are_one_line(folder, tmp_path, capsys, options, words):
    output = tmp_path / "made.shiftvae"
    assert run(folder / "plain.npy", "--output", output, *options) == 2
    assert words in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


def test_bad_number_of_epochs_is_one_line(folder, tmp_path, capsys):
    output = tmp_path / "made.shiftvae"
    arguments = ["run", str(folder / "plain.npy"), "--output", str(output), "--epochs", "0"]
    assert main(arguments) == 2
    assert "epochs is 0: choose one from 1" in complaint(capsys)


def test_bad_images_are_one_line(tmp_path, capsys):
    output = tmp_path / "made.shiftvae"
    (tmp_path / "text.tif").write_text("no image")
    noise = np.random.default_rng(0).normal(size=(100, 100))
    np.save(tmp_path / "noise.npy", noise)
    np.save(tmp_path / "constant.npy", np.ones((50, 50)))
    for image, words in (
        (tmp_path / "missing.tif", "missing.tif"),
        (rgb(tmp_path), "rgb.npy: The image is RGB"),
        (tmp_path / "text.tif", "text.tif"),
        (tmp_path / "noise.npy", "atoms were found"),
        (tmp_path / "constant.npy", "constant"),
        (tmp_path, tmp_path.name),
    ):
        assert run(image, "--output", output) == 2
        assert words in complaint(capsys)
    assert not output.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "could not be read as CSV"),
        ("y_px,x_px\n1,2\n3,4,5,6\n", "could not be read as CSV"),
        ("row,column\n1,2\n", "has no columns y_px and x_px"),
        ("y_px,x_px\n1,2\n3,four\n", "holds positions that are no numbers"),
        ("y_px,x_px\n1,2\n3,\n", "no finite position in line 3"),
        ("y_px,x_px\n1,inf\n3,2\n", "no finite position in line 2"),
        ("y_px,x_px\n", "There are 0 different positions"),
        ("y_px,x_px\n80,80\n", "There are 1 different positions"),
    ],
)
def test_bad_positions_are_one_line(folder, tmp_path, capsys, text, words):
    positions = tmp_path / "positions.csv"
    positions.write_text(text)
    options = ["--output", tmp_path / "made.shiftvae", "--positions", positions]
    assert run(folder / "plain.npy", *options) == 2
    assert words in complaint(capsys)


def test_positions_in_bytes_that_are_no_text_are_one_line(folder, tmp_path, capsys):
    positions = tmp_path / "positions.csv"
    positions.write_bytes(b"\xff\xfe\x00\x81")
    options = ["--output", tmp_path / "made.shiftvae", "--positions", positions]
    assert run(folder / "plain.npy", *options) == 2
    assert "could not be read as CSV" in complaint(capsys)


def test_bad_outputs_are_one_line_and_come_before_the_work(folder, tmp_path, capsys, monkeypatch):
    for output, words in (
        (tmp_path / "missing" / "made.shiftvae", "does not exist: make it first"),
        (tmp_path, "is a folder: name a file in it, such as"),
        (".", ". is a folder"),
    ):
        assert run(folder / "none.npy", "--output", output) == 2
        assert words in complaint(capsys)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert run(folder / "none.npy", "--output", tmp_path / "made.shiftvae") == 2
    assert "may not be written to: choose another" in complaint(capsys)


def test_what_is_read_is_not_written_over(folder, tmp_path, capsys):
    """A table in the place of the image would be all that is left of it."""
    image = tmp_path / "mine.npy"
    image.write_bytes((folder / "plain.npy").read_bytes())
    trained = tmp_path / "mine.shiftvae"
    trained.write_bytes(image.read_bytes())
    before = {path: path.read_bytes() for path in (image, trained)}
    for words in (
        ["atoms", image, "--output", image],
        ["encode", trained, image, "--output", trained],
    ):
        assert main([str(word) for word in words]) == 2
        assert "which is read from: choose another name" in complaint(capsys)
    words = ["encode", trained, image, "--output", trained.with_suffix("")]  # which is the same
    assert main([str(word) for word in words]) == 2
    assert "choose another name" in complaint(capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bad_run_files_are_one_line(folder, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "foreign.shiftvae", "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
    for path, words in (
        (tmp_path / "none.shiftvae", "There is no file"),
        (tmp_path / "foreign.shiftvae", "foreign.shiftvae cannot be opened as a run file"),
        (folder / "plain.npy", "plain.npy cannot be opened as a run file"),
        (tmp_path, "cannot be opened as a run file"),
    ):
        assert main(["info", str(path)]) == 2
        assert words in complaint(capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "made.png"], "name a TIFF file, ending in .tif"),
        (["--output", "missing/made.tif"], "The folder missing does not exist: make it first"),
        (["--output", "made.tif", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_bad_simulations_are_one_line(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "graphene", *options]) == 2
    assert words in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["run", "a.tif"], ["simulate", "gold", "--output", "a.tif"]]
)
def test_incomplete_commands_say_how_they_go(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: napari-shiftvae" in capsys.readouterr().err


def test_interrupted_run_writes_nothing(folder, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_shiftvae.core.analyse.train", interrupted)
    assert run(folder / "plain.npy", "--output", tmp_path / "made.shiftvae") == 130
    assert "interrupted; nothing was written" in complaint(capsys)
    assert list(tmp_path.iterdir()) == []
