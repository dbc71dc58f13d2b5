"""Files from strangers: a valid load or one sentence, soon, in little memory."""

import io
import json
import resource
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from napari_shiftvae.cli import main
from napari_shiftvae.core import export
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage, read_image
from napari_shiftvae.core.positions import read_positions
from napari_shiftvae.core.runfile import MEMBERS, load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

LONGEST_S = 10.0  # for one file, on a busy machine; a thousand take seconds
MOST_BYTES = 48 * 2**20  # of memory for one file of a hundred kB
BOMB_MB = 64
STRANGE = (None, True, -1, 0, 2**40, 1e300, -0.5, "", "x", "../../etc/passwd", [], {}, [[]], [None])


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> bytes:
    """Bytes of a run file that holds all there can be."""
    made = perovskite(rng=np.random.default_rng(0), shape=(90, 90))
    config = AnalysisConfig(patch_size_px=16, train=TrainConfig(epochs=1))
    picks = made.truth[["y_px", "x_px"]].to_numpy()
    run = finish(analyse(MicroscopeImage(data=made.image, name="a"), config, positions_yx=picks))
    return save_run(run, tmp_path_factory.mktemp("valid") / "a.shiftvae").read_bytes()


@pytest.fixture(scope="module")
def members(valid) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes]) -> bytes:
    """A zip with right checksums, so that what is wrong lies within."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def survives(tmp_path, capsys):
    """Use a file all the way; tell whether it was taken for valid."""
    path = tmp_path / "strange.shiftvae"

    def used(content: bytes) -> bool:
        path.write_bytes(content)
        began = time.process_time()
        try:
            run = load_run(path)
        except InputError as error:
            assert str(error).endswith(".")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return False
        finally:
            assert time.process_time() - began < LONGEST_S
        assert main(["info", str(path)]) == 0
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may be strange, such as empty
            _ = run.maps
        return True

    yield used
    assert [one.name for one in tmp_path.iterdir()] == ["strange.shiftvae"]  # nothing written


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    data = np.frombuffer(content, dtype=np.uint8).copy()
    at = rng.integers(len(data), size=rng.integers(1, 9))
    data[at] ^= (1 << rng.integers(8, size=len(at))).astype(np.uint8)
    return data.tobytes()


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def reordered(content: bytes, rng: np.random.Generator) -> bytes:
    cuts = np.sort(rng.integers(len(content), size=4))
    pieces = [piece.tobytes() for piece in np.split(np.frombuffer(content, np.uint8), cuts)]
    return b"".join(pieces[number] for number in rng.permutation(len(pieces)))


def repeated(content: bytes, rng: np.random.Generator) -> bytes:
    begin, end = np.sort(rng.integers(len(content), size=2))
    return content[:end] + content[begin:]


CHANGES = [flipped, truncated, reordered, repeated]
ROUNDS = [pytest.param(12, id="some"), pytest.param(300, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_damaged_bytes_end_in_a_valid_load_or_one_sentence(valid, survives, change, rounds):
    rng = np.random.default_rng(1)
    for _ in range(rounds):
        survives(change(valid, rng))


@pytest.mark.parametrize("name", sorted(MEMBERS))
@pytest.mark.parametrize("rounds", ROUNDS)
def test_damaged_members_with_right_checksums(members, survives, name, rounds):
    rng = np.random.default_rng(2)
    for number in range(rounds):
        change = CHANGES[number % len(CHANGES)]
        survives(packed(members | {name: change(members[name], rng)}))


@pytest.mark.parametrize("rounds", ROUNDS)
def test_strange_values_in_the_record(members, survives, rounds):
    rng = np.random.default_rng(3)
    places = list(leaves(json.loads(members["run.json"])))
    refused = 0
    for number in range(rounds):
        record = json.loads(members["run.json"])
        *outer, last = places[number % len(places)]
        at = record
        for key in outer:
            at = at[key]
        at[last] = STRANGE[rng.integers(len(STRANGE))]
        refused += not survives(packed(members | {"run.json": json.dumps(record).encode()}))
    assert refused > rounds / 4


def leaves(record, path=()):
    """Ways to every value and every table of a record."""
    keys = record if isinstance(record, dict) else range(len(record))
    for key in keys:
        yield (*path, key)
        if isinstance(record[key], dict | list):
            yield from leaves(record[key], (*path, key))


@pytest.mark.parametrize("rounds", ROUNDS)
def test_strange_cells_in_the_table(members, survives, rounds):
    rng = np.random.default_rng(4)
    cells = ["", "nan", "inf", "-1e999", "1e400", "x", "'", '"', "=1+1", "1,2", "9" * 400, "\0"]
    for _ in range(rounds):
        lines = members["atoms.csv"].decode().splitlines()
        row = rng.integers(len(lines))
        words = lines[row].split(",")
        words[rng.integers(len(words))] = cells[rng.integers(len(cells))]
        lines[row] = ",".join(words)
        survives(packed(members | {"atoms.csv": "\n".join(lines).encode()}))


def test_strange_tensors_are_refused(members, survives):
    tensors = load_tensors(members["model.safetensors"])
    for name in np.random.default_rng(7).choice(sorted(tensors), 8, replace=False):
        value = tensors[name]
        for other in (
            value.double() if value.dtype == torch.float32 else value.float(),
            torch.zeros(*value.shape, 2, dtype=value.dtype),
            value.reshape(-1)[:0],
            torch.full_like(value, torch.nan) if value.is_floating_point() else value - 2**40,
        ):
            content = save_tensors(tensors | {name: other.contiguous()})
            loaded = survives(packed(members | {"model.safetensors": content}))
            same_shape = other.shape == value.shape
            is_nan = same_shape and other.is_floating_point() and bool(other.isnan().any())
            assert not loaded or (same_shape and not is_nan) or "pace" in name
        left = {one: tensor for one, tensor in tensors.items() if one != name}
        assert not survives(packed(members | {"model.safetensors": save_tensors(left)}))


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_bomb_is_refused_unread(members, survives, name):
    """Zeros pack a thousand times."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, content in members.items():
            with archive.open(one, "w") as member:
                if one != name:
                    member.write(content)
                for _ in range(BOMB_MB * (one == name)):
                    member.write(bytes(2**20))
    tracemalloc.start()
    assert not survives(file.getvalue())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES


def test_size_that_is_claimed_too_small_is_not_exceeded(valid, survives):
    """The directory says 100 bytes where there are many more."""
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        info = archive.getinfo("atoms.csv")
    size = info.file_size.to_bytes(4, "little")
    assert not survives(valid.replace(size, (100).to_bytes(4, "little")))


def test_no_path_in_a_file_is_opened(members, tmp_path, monkeypatch):
    """The image of a run is named in it; nothing reads that unless the user asks."""
    trap = tmp_path / "trap"
    trap.write_text("must not be read")
    record = json.loads(members["run.json"])
    record["image"]["path"] = str(trap)
    path = tmp_path / "a.shiftvae"
    path.write_bytes(packed(members | {"run.json": json.dumps(record).encode()}))
    opened = []
    real_open = io.open

    def watched(file, *arguments, **keywords):
        opened.append(str(file))
        return real_open(file, *arguments, **keywords)

    monkeypatch.setattr(io, "open", watched)
    monkeypatch.setattr("builtins.open", watched)
    load_run(path)
    assert main(["info", str(path)]) == 0
    assert str(path) in opened  # it is seen what is opened
    assert str(trap) not in opened


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:\\evil"])  # noqa: S108
def test_name_of_the_image_leads_out_of_no_folder(members, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(export, "as_png", lambda _: b"")  # takes long, and knows of no name
    record = json.loads(members["run.json"])
    record["image"]["name"] = name
    path = tmp_path / "a.shiftvae"
    path.write_bytes(packed(members | {"run.json": json.dumps(record).encode()}))
    folder = tmp_path / "in" / "out"
    folder.parent.mkdir()
    assert main(["export", str(path), "--output", str(folder)]) in (0, 2)
    capsys.readouterr()
    assert {one.name for one in tmp_path.iterdir()} == {"a.shiftvae", "in"}
    assert {one.name for one in folder.parent.iterdir()} <= {"out"}


# --- tables and images -------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", ROUNDS)
def test_damaged_tables_of_positions(tmp_path, rounds):
    rng = np.random.default_rng(5)
    text = "y_px,x_px,t\n" + "\n".join(f"{y},{y * 2.5},{y % 3}" for y in range(40))
    path = tmp_path / "atoms.csv"
    for number in range(rounds):
        path.write_bytes(CHANGES[number % len(CHANGES)](text.encode(), rng))
        try:
            table = read_positions(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert np.isfinite(table[["y_px", "x_px"]].to_numpy()).all()


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy"])
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.filterwarnings("ignore")  # libraries warn of what is strange in a file
def test_damaged_images(tmp_path, suffix, rounds):
    import PIL.Image
    import tifffile

    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 60000, (24, 30)).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 1.0})
    elif suffix == ".png":
        PIL.Image.fromarray(pixels).save(path)
    else:
        np.save(path, pixels)
    content = path.read_bytes()
    for number in range(rounds):
        path.write_bytes(CHANGES[number % len(CHANGES)](content, rng))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            image = read_image(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert image.data.ndim == 2
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MOST_BYTES / 1024
