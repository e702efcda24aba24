"""Files of strangers: .npz, IDX, CIFAR-10 batches, folders. What is read, and what is refused with which words."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from mcuq import data
from mcuq.data import arrays, cifar, idx
from mcuq.data.folders import load_folder
from mcuq.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")


def parts(train=8, test=4, shape=(6, 5), dtype=np.uint8):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (train, *shape)).astype(dtype),
        "y_train": np.arange(train) % 3,
        "x_test": rng.integers(0, 256, (test, *shape)).astype(dtype),
        "y_test": np.arange(test) % 3,
    }


def save(path, **changed):
    content = {**parts(), **changed}
    np.savez_compressed(path, **{k: v for k, v in content.items() if v is not None})
    return path


def refused(call, *words):
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    return text


# --- npz -----------------------------------------------------------------------------------------------------


def test_npz_round_trip(tmp_path):
    path = save(tmp_path / "mine.npz", classes=np.array(["a", "b", "c"]))
    d = data.load(str(path))
    assert d.name == "mine" and d.classes == ("a", "b", "c") and d.input_shape == (6, 5, 1)
    assert np.array_equal(d.x_train[..., 0], parts()["x_train"]) and d.y_train.dtype == np.int64
    assert 0 <= d.normalization.zero_point <= 255


def test_npz_by_name_in_the_data_dir(tmp_path):
    save(tmp_path / "mine.npz")
    assert data.load("mine.npz", tmp_path).x_test.shape == (4, 6, 5, 1)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 7.0, 255.0], [0, 7, 255]),
    ],
)
def test_float_pixels_map_as_documented(values, expected):
    x = np.array(values, np.float32).reshape(1, 1, 3)
    assert arrays.to_pixels(x, "x").reshape(-1).tolist() == expected


def test_every_pixel_code_survives_the_way_through_floats():
    codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.array_equal(arrays.to_pixels(codes.astype(np.float32) / 255, "x")[..., 0], codes)
    assert np.array_equal(arrays.to_pixels(codes.astype(np.float32) / 127.5 - 1, "x")[..., 0], codes)


@pytest.mark.parametrize(
    "x, words",
    [
        (np.array([[[0.0, 3.7]]]), ("float64 from 0 to 3.7", "Undo the normalization")),
        (np.array([[[np.nan, 0.0]]]), ("NaN or infinity",)),
        (np.array([[[-3, 5]]]), ("int64 from -3 to 5", "integers 0..255")),
        (np.array([[["a"]]]), ("uint8 pixels or floating point",)),
        (np.zeros((4, 4), np.uint8), ("shape [4, 4]", "[N, H, W] or [N, H, W, C]")),
        (np.zeros((9, 3, 96, 96), np.uint8), ("looks like [N, C, H, W]",)),
    ],
)
def test_pixels_that_are_none(x, words):
    refused(lambda: arrays.to_pixels(x, "x_train"), "x_train", *words)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"x_test": None}, ("has no x_test", "It should hold")),
        ({"y_train": np.arange(3)}, ("y_train has shape [3]; 8 images need [8]",)),
        ({"y_train": np.zeros((8, 2))}, ("y_train has shape [8, 2]",)),
        ({"y_train": np.full(8, 0.5)}, ("labels are whole numbers",)),
        ({"y_train": np.full(8, -1)}, ("labels of y_train run from -1",)),
        ({"y_test": np.full(4, 10**9)}, ("highest label is 1000000000",)),
        ({"x_test": np.zeros((4, 7, 5), np.uint8)}, ("training images are [6, 5, 1], test images [7, 5, 1]",)),
        ({"x_train": np.zeros((0, 6, 5), np.uint8), "y_train": np.zeros(0, int)}, ("training images are empty",)),
        ({"x_test": np.zeros((4, 6, 5), np.float32)}, ("store both alike",)),
        ({"classes": np.array(["a"])}, ("run from 0 to 2; 0 .. 0 are allowed",)),
        ({"classes": np.array([1, 2, 3])}, ("a list of strings",)),
    ],
)
def test_npz_with_contradictions(tmp_path, changed, words):
    path = save(tmp_path / "bad.npz", **changed)
    refused(lambda: data.load(str(path)), *words)


def test_npz_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, **{**parts(), "x_train": np.array([{"a": 1}], dtype=object)})
    refused(lambda: data.load(str(path)), "pickled Python objects, which could run code")


def npy_bytes(shape, dtype="|u1", body=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


def with_member(path, content):
    save(path)
    with zipfile.ZipFile(path) as archive:
        others = {n: archive.read(n) for n in archive.namelist() if n != "x_train.npy"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in others.items():
            archive.writestr(name, body)
        archive.writestr("x_train.npy", content)
    return path


@pytest.mark.parametrize("shape", [(1 << 40, 32, 32), (1 << 32, 1 << 32, 1), (9, 6, 5), (-8, 6, 5)])
def test_npz_header_that_lies_about_its_size(tmp_path, shape):
    path = with_member(tmp_path / "lie.npz", npy_bytes(shape, body=bytes(8 * 30)))
    refused(lambda: data.load(str(path)), "lie.npz")


def test_npz_that_unpacks_to_too_much(tmp_path):
    path = save(tmp_path / "bomb.npz", x_train=np.zeros((8, 1000, 1000), np.uint8))
    assert path.stat().st_size < 100_000
    refused(lambda: arrays.read_npz(path, ("x_train",), max_bytes=1_000_000), "8,000,128 bytes unpacked", "1,000,000")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.98])
def test_npz_cut_short(tmp_path, share):
    path = save(tmp_path / "cut.npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(lambda: data.load(str(path)), "is not a readable .npz file")


def test_npz_with_flipped_bytes_never_gives_another_error(tmp_path):
    path = save(tmp_path / "flip.npz")
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            data.load(str(path))


# --- IDX -----------------------------------------------------------------------------------------------------


def idx_bytes(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


def write_idx(folder, end=".gz"):
    folder.mkdir(parents=True)
    content = parts(shape=(28, 28))
    for name, key in zip(idx.FILES, ("x_train", "y_train", "x_test", "y_test"), strict=True):
        raw = idx_bytes(content[key].astype(np.uint8))
        (folder / (name + end)).write_bytes(gzip.compress(raw) if end else raw)
    return content


@pytest.mark.parametrize("end", [".gz", ""])
@pytest.mark.parametrize("direct", [True, False])
def test_idx_files(tmp_path, end, direct):
    content = write_idx(tmp_path / "d" if direct else tmp_path / "d" / "fashion-mnist", end)
    d = data.load("fashion-mnist", tmp_path / "d", fetch=False)
    assert np.array_equal(d.x_test[..., 0], content["x_test"]) and d.classes[8] == "Bag"


def test_idx_files_in_a_shared_folder_are_not_mistaken(tmp_path, monkeypatch):
    write_idx(tmp_path / "all")
    monkeypatch.setenv("MCUQ_DATA", str(tmp_path / "all"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    refused(lambda: data.load("mnist", fetch=False), "mnist was not found in", "Put mnist.npz, or mnist/ with")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", ("starts with nothing",)),
        (b"\x89PNG1234", ("starts with 89504e47", "Download it again")),
        (idx_bytes(np.zeros((4, 5), np.uint8))[:-3], ("[4, 5] = 20 bytes, only 17 follow",)),
        (idx_bytes(np.zeros((4, 5), np.uint8)) + b"x", ("20 bytes, more follow",)),
        (b"\0\0\x08\x03" + b"\xff" * 12, ("its header claims",)),
        (b"\0\0\x08\x05\0\0", ("its header claims []",)),
    ],
)
def test_damaged_idx(tmp_path, content, words):
    path = tmp_path / "x-ubyte"
    path.write_bytes(content)
    refused(lambda: idx.read_idx(path), *words)


def test_gzip_cut_short(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8)))[:-20])
    refused(lambda: idx.read_idx(path), "cannot be read", "Download it again")


# --- CIFAR-10 ------------------------------------------------------------------------------------------------


def records(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 10, count).astype(np.uint8), rng.integers(0, 256, (count, 3072)).astype(np.uint8)


def binary_batch(count, seed):
    labels, pixels = records(count, seed)
    return np.concatenate([labels[:, None], pixels], axis=1).tobytes()


def python_batch(count, seed):
    labels, pixels = records(count, seed)
    return pickle.dumps({b"data": pixels, b"labels": [int(n) for n in labels]}, protocol=2)


@pytest.mark.parametrize("kind", ["bin", "py", "archive"])
def test_cifar10_batches(tmp_path, kind):
    make, names = (python_batch, cifar.PYTHON) if kind == "py" else (binary_batch, cifar.BINARY)
    batches = {name: make(3, seed) for seed, name in enumerate(names)}
    if kind == "archive":
        with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
            for name, content in batches.items():
                entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    else:
        (tmp_path / f"cifar-10-batches-{kind}").mkdir()
        for name, content in batches.items():
            (tmp_path / f"cifar-10-batches-{kind}" / name).write_bytes(content)
    d = data.load("cifar10", tmp_path, fetch=False)
    labels, pixels = records(3, 5)
    assert d.x_train.shape == (15, 32, 32, 3) and d.y_test.tolist() == labels.tolist()
    # Planes of red, green, blue: pixel (row 2, column 7), green.
    assert d.x_test[1, 2, 7, 1] == pixels[1, 1024 + 2 * 32 + 7]


class _Shell:
    def __reduce__(self):
        import os

        return os.system, ("echo pwned > pwned",)


@pytest.mark.parametrize(
    "content, words",
    [
        (pickle.dumps(_Shell()), ("it calls posix.system",)),
        (pickle.dumps({b"data": np.zeros((1, 3072), object), b"labels": [1]}, protocol=2), ("it holds an array of",)),
        (pickle.dumps({b"data": np.zeros((1, 5), np.uint8), b"labels": [1]}, protocol=2), ("not uint8 [N, 3072]",)),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2), ("2 images, labels",)),
        (b"garbage", ("is not a CIFAR-10 batch", "cifar-10-binary.tar.gz")),
    ],
)
def test_hostile_python_batches(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    refused(lambda: cifar.parse_python(io.BytesIO(content), "data_batch_1"), *words)
    assert not (tmp_path / "pwned").exists()


def test_cifar10_batch_of_the_wrong_length():
    refused(lambda: cifar.parse_binary(bytes(3072), "test_batch.bin"), "3,072 bytes", "multiple of 3073")


# --- folders -------------------------------------------------------------------------------------------------


def picture(path, size=(20, 14), color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def test_imagenet_style_folder(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for index, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(tmp_path / part / name / f"{i}.png", (20 + i, 14), (100 * index, 20, 30))
    d = data.load(str(tmp_path), resolution=8)
    assert d.x_train.shape == (6, 8, 8, 3) and d.x_test.shape == (4, 8, 8, 3)
    assert d.classes == ("cat", "dog") and d.y_test.tolist() == [0, 0, 1, 1]
    assert d.x_test[2, 4, 4].tolist() == [100, 20, 30] and d.augmentation.flip


def test_plain_folder_is_split_the_same_way_every_time(tmp_path):
    for name in ("a", "b"):
        for i in range(8):
            picture(tmp_path / name / f"{i}.png", (6, 6), (i, 0, 0))
    first, second = load_folder(tmp_path), load_folder(tmp_path)
    assert np.array_equal(first.x_test, second.x_test)
    assert first.y_test.tolist() == [0, 0, 1, 1] and len(first.x_train) == 12


def test_the_middle_of_an_image_is_kept(tmp_path):
    wide = Image.new("RGB", (64, 16), (0, 0, 0))
    wide.paste((255, 255, 255), (24, 0, 40, 16))
    for i in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        wide.save(tmp_path / "a" / f"{i}.png")
    d = load_folder(tmp_path, resolution=8)
    assert d.x_train[0, 4, 2:6].min() > 200


def test_folder_errors(tmp_path):
    refused(lambda: load_folder(tmp_path), "has no folders with images", "train/<class>/*.jpg")
    picture(tmp_path / "a" / "0.png", (6, 6))
    picture(tmp_path / "a" / "1.png", (7, 6))
    refused(lambda: load_folder(tmp_path), "1.png is 6x7", "give a resolution")
    (tmp_path / "a" / "1.png").write_bytes(b"no picture")
    refused(lambda: load_folder(tmp_path, 4), "1.png is not a readable image", "Remove or replace it")


def test_a_class_only_the_test_part_has(tmp_path):
    picture(tmp_path / "train" / "a" / "0.png")
    picture(tmp_path / "val" / "a" / "0.png")
    picture(tmp_path / "val" / "b" / "0.png")
    refused(lambda: data.load(str(tmp_path)), "has classes that", "lacks: b")


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"no data set 'cifar11'; known are digits, mnist"):
        data.load("cifar11")
    (tmp_path / "notes.txt").write_text("x")
    refused(lambda: data.load(str(tmp_path / "notes.txt")), "is neither an .npz file nor a folder")
    refused(lambda: data.load("mnist", tmp_path / "missing"), "does not exist; create it")
