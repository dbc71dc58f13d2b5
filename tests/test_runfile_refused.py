"""Run files that are refused, each with a sentence that names the file and the reason."""

import io
import json
import os
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from napari_shiftvae.core import runfile
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.runfile import FORMAT_VERSION, load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from saved_run import members, run_with_all


@pytest.fixture(scope="module")
def run():
    return run_with_all()


@pytest.fixture(scope="module")
def content():
    return members()


@pytest.fixture
def write(content, tmp_path):
    """Write a run file with some members changed, added, or (None) left out."""

    def written(**changed):
        path = tmp_path / "bad.shiftvae"
        members = content | {name.replace("__", "."): data for name, data in changed.items()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    return written


@pytest.fixture
def rewrite(content, write):
    """Write a run file with some values in run.json changed, given as dotted names."""

    def written(**changed):
        record = json.loads(content["run.json"])
        for name, value in changed.items():
            *outer, last = name.split("__")
            at = record
            for key in outer:
                at = at[key]
            at[last] = value
        return write(run__json=json.dumps(record))

    return written


def refused(path, reason):
    """The file is refused with one line that names it and the reason."""
    with pytest.raises(InputError, match=reason) as caught:
        load_run(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert message.endswith(".")


def test_good_members_are_not_refused(write, rewrite):
    assert load_run(write()).epochs == 4
    assert load_run(rewrite(epochs=3)).epochs == 3


def test_missing_file_is_said(tmp_path):
    refused(tmp_path / "none.shiftvae", "There is no file")


def test_folder_is_refused(tmp_path):
    refused(tmp_path, "no run file")


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, -1])
def test_truncated_file_is_refused(run, tmp_path, kept):
    path = save_run(run, tmp_path / "made.shiftvae")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else kept])
    refused(path, "cannot be opened as a run file")


def test_damaged_bytes_are_refused(run, tmp_path):
    path = save_run(run, tmp_path / "made.shiftvae")
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 40] = bytes(40)
    path.write_bytes(whole)
    refused(path, "damaged or incomplete")


def test_foreign_zip_is_refused(tmp_path):
    path = tmp_path / "foreign.shiftvae"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    refused(path, "does not hold just atoms.csv, run.json, model.safetensors")


def test_text_is_refused(tmp_path):
    path = tmp_path / "text.shiftvae"
    path.write_text("y_px,x_px\n1,2\n")
    refused(path, "no run file")


@pytest.mark.parametrize(
    "extra", ["../evil.py", "/etc/evil", "atoms.csv/x", "reproduce.py", "..\\evil", "model.pkl"]
)
def test_further_members_are_refused_and_never_written(write, tmp_path, extra):
    refused(write(**{extra: b"import os"}), "does not hold just")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.shiftvae"]
    assert not (tmp_path.parent / "evil.py").exists()


def test_a_member_given_twice_is_refused(write, content):
    path = write()
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr("run.json", content["run.json"])
    refused(path, "does not hold just")


@pytest.mark.parametrize("name", ["atoms__csv", "run__json", "model__safetensors"])
def test_missing_or_empty_members_are_refused(write, name):
    refused(write(**{name: None}), "does not hold just")
    refused(write(**{name: b""}), "cannot be opened as a run file")


def test_huge_claims_are_refused_unread(write, monkeypatch):
    monkeypatch.setitem(runfile.MEMBERS, "run.json", 100)
    refused(write(), "its run.json is larger than any real one")


def test_bomb_of_a_member_is_refused(write):
    """Packed a thousand times smaller than it claims to be."""
    path = write()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in runfile.MEMBERS:
            archive.writestr(name, bytes(2**24 + 1) if name == "run.json" else b"")
    path.write_bytes(packed.getvalue())
    assert path.stat().st_size < 2**17
    refused(path, "its run.json is larger than any real one")


def test_newer_version_is_refused(rewrite):
    refused(
        rewrite(format_version=FORMAT_VERSION + 1),
        "written by a newer version; update napari-shiftvae",
    )


def test_file_of_the_first_version_is_opened(content, write, run):
    """It had no state of the training, and settings that came later are missing."""
    record = json.loads(content["run.json"])
    record["format_version"] = 1
    for name in ("holds", "intensity", "trained_on"):
        del record[name]
    later = {"invariances", "rotation_prior_rad", "scale_prior", "classes"}
    for part in ("settings", "model"):
        record[part] = {name: record[part][name] for name in record[part].keys() - later}
    first = ("epochs", "batch_size", "learning_rate", "kl_shift", "kl_content", "seed")
    record["settings"]["train"] = {name: record["settings"]["train"][name] for name in first}
    tensors = load_tensors(content["model.safetensors"])
    weights = {name: tensors[name] for name in tensors if not name.startswith("training.")}
    path = write(run__json=json.dumps(record), model__safetensors=save_tensors(weights))
    loaded = load_run(path)
    assert loaded.config == run.config
    assert not loaded.resumable
    assert loaded.intensity is None
    np.testing.assert_array_equal(loaded.picks_yx, run.picks_yx)


def test_other_program_s_file_is_refused(rewrite):
    refused(rewrite(format="something else"), "not written by napari-shiftvae")


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"format": 1}']
)
def test_broken_record_is_refused(write, record):
    refused(write(run__json=record), "cannot be opened as a run file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format_version", "one"),
        ("settings", None),
        ("settings__surprise", 1),
        ("settings__train", {"epochs": "many"}),
        ("model__latent_dim", "two"),
        ("model__latent_dim", 2.5),
        ("image__shape", None),
        ("image__surprise", 1),
        ("diagnostics__kl_latents", 3),
        ("diagnostics__surprise", 1),
        ("epochs", "many"),
        ("seconds", 12),
        ("seconds", {"find": "long"}),
    ],
)
def test_wrong_values_in_the_record_are_refused(rewrite, name, value):
    refused(rewrite(**{name: value}), "cannot be opened as a run file")


@pytest.mark.parametrize(
    ("name", "value"), [("settings__latent_dim", 99), ("model__hidden", 0), ("model__decoder", "x")]
)
def test_settings_out_of_range_are_refused_by_name(rewrite, name, value):
    path = rewrite(**{name: value})
    with pytest.raises(InputError, match=f"{name.split('__')[1]} is '?{value}"):
        load_run(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", 64), ("latent_dim", 2), ("patch_size_px", 20), ("decoder", "coordinate")],
)
def test_weights_of_another_model_are_refused(rewrite, name, value):
    refused(rewrite(**{f"model__{name}": value}), "its weights do not fit its settings")


def test_settings_for_an_enormous_model_are_refused_without_making_it(rewrite):
    """Ten thousand million weights: 40 GB."""
    path = rewrite(model__hidden=4096, model__patch_size_px=1024, model__band_limit=0.5)
    refused(path, "its weights do not fit its settings")


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(content, write, spoilt):
    weights = load_tensors(content["model.safetensors"])
    weights["encoder.2.0.weight"][3, 4] = spoilt
    path = write(model__safetensors=save_tensors(weights))
    refused(path, "its weights are not finite")


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "type"])
def test_weights_of_wrong_shape_are_refused(content, write, change):
    weights = load_tensors(content["model.safetensors"])
    match change:
        case "missing":
            del weights["variance"]
        case "extra":
            weights["more"] = torch.zeros(3)
        case "shape":
            weights["gauge"] = torch.eye(4)
        case "type":
            weights["variance"] = weights["variance"].double()
    path = write(model__safetensors=save_tensors(weights))
    refused(path, "its weights do not fit its settings")


def test_pickle_in_the_place_of_weights_is_not_opened(write, tmp_path):
    """A pickle that would make a file when opened."""

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    buffer = io.BytesIO()
    torch.save({"variance": Evil()}, buffer)
    refused(write(model__safetensors=buffer.getvalue()), "damaged or incomplete")
    assert not (tmp_path / "evil").exists()


def test_table_without_its_columns_is_refused(content, write):
    lines = content["atoms.csv"].decode().splitlines()
    for lost in ("y_px", "atom_y_px", "z3_sd", "set_aside"):
        names = ["other" if name == lost else name for name in lines[0].split(",")]
        path = write(atoms__csv="\n".join([",".join(names), *lines[1:]]))
        refused(path, "its table of atoms lacks columns")


def test_table_of_words_is_refused(content, write):
    lines = content["atoms.csv"].decode().splitlines()
    lines[5] = "word" + lines[5][4:]
    refused(write(atoms__csv="\n".join(lines)), "damaged or incomplete")


def test_record_holds_all_settings(content):
    """A setting that is not in the file would be lost on the way."""
    record = json.loads(content["run.json"])
    assert set(record["settings"]) == set(asdict(AnalysisConfig()))
