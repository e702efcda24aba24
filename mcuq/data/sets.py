"""The data sets known by name, and ``load``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mcuq.data import cifar
from mcuq.data.arrays import load_npz, read_npz, to_labels, to_pixels
from mcuq.data.dataset import Augmentation, Dataset, check, stratified_split
from mcuq.data.fetch import Progress, RemoteFile, cache_folder, download, search_folders
from mcuq.data.folders import load_folder, looks_like_images
from mcuq.data.idx import FILES, find_idx, read_idx
from mcuq.errors import DataError, UsageError
from mcuq.ir.graph import Normalization

DIGITS_SPLIT_SEED = 1797
_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_KEYWORDS = (
    "down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown",
)  # fmt: skip
# Zero stays 0 for pictures on black: what a convolution pads with is then the background.
_DARK = Normalization(scale=1 / 128, zero_point=0)


@dataclass(frozen=True, slots=True)
class DataCard:
    """A data set ``load`` knows by name. ``files``: where it can be downloaded from, if it can."""

    name: str
    summary: str
    expected: str
    files: tuple[RemoteFile, ...] = ()


def _idx_files(base: str, sums: tuple[str, ...]) -> tuple[RemoteFile, ...]:
    # The largest of the eight published files has 26,421,880 bytes.
    return tuple(RemoteFile(f"{n}.gz", f"{base}/{n}.gz", md5, 30_000_000) for n, md5 in zip(FILES, sums, strict=True))


CARDS: tuple[DataCard, ...] = (
    DataCard("digits", "1,797 handwritten digits, 8x8 gray, 17 levels; comes with scikit-learn", ""),
    DataCard(
        "mnist",
        "70,000 handwritten digits, 28x28 gray",
        f"mnist.npz, or mnist/ with {', '.join(f'{n}.gz' for n in FILES)}",
        _idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
    ),
    DataCard(
        "fashion-mnist",
        "70,000 articles of clothing, 28x28 gray",
        f"fashion_mnist.npz, or fashion-mnist/ with {', '.join(f'{n}.gz' for n in FILES)}",
        _idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
    ),
    DataCard(
        "cifar10",
        "60,000 photographs in 10 classes, 32x32 color",
        "cifar10*.npz, cifar-10-binary.tar.gz, cifar-10-batches-bin/ or cifar-10-batches-py/",
        (
            RemoteFile(
                "cifar-10-binary.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
                170_052_171,
            ),
        ),
    ),
    DataCard(
        "kws",
        "spoken keywords as 49x10 MFCC codes (MLPerf Tiny), 12 classes",
        "kws_speech_commands*.npz with mfcc_int8 [N, 49, 10, 1] and y [N]",
    ),
)


def datasets() -> tuple[DataCard, ...]:
    """The cards of the data sets known by name."""
    return CARDS


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    resolution: int | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """A data set by name, or from a path to an ``.npz`` file or a folder of images.

    Looked for in ``data_dir``, ``$MCUQ_DATA`` and ``~/.cache/mcuq``; downloaded into ``data_dir`` or the cache if
    ``fetch`` allows and it is published for download. ``digits`` comes with scikit-learn.

    Args:
        resolution: for folders of images: the size all are brought to. Other sets keep theirs (see ``resize``).

    Raises:
        DataError: missing (the text says which files go where), damaged or contradictory data.
        UsageError: no data set of that name and no such path.
    """
    key = name.lower().replace("_", "-")
    entry = next((c for c in CARDS if c.name == {"fmnist": "fashion-mnist", "cifar-10": "cifar10"}.get(key, key)), None)
    if entry is None:
        return _from_path(name, data_dir, resolution)
    if entry.name == "digits":
        return load_digits()
    finder = _FINDERS[entry.name]
    given = Path(data_dir).expanduser() if data_dir is not None else None
    for folder in search_folders(data_dir):
        # Only a folder named for this one set may hold IDX files directly: MNIST and Fashion-MNIST call them alike.
        found = finder(folder, folder == given)
        if found is not None:
            return check(found)
    target = (given or cache_folder()) / entry.name
    where = f"Put {entry.expected} into {given or cache_folder()}, or give another folder with --data-dir."
    if not entry.files or not fetch:
        raise DataError(f"{entry.name} was not found in {_searched(data_dir)}. {where}")
    try:
        download(entry.files, target, progress)
    except DataError as error:
        raise DataError(f"{entry.name} was not found in {_searched(data_dir)}, and {error}. {where}") from error
    found = finder(target.parent, False)
    if found is None:
        raise DataError(f"{target} does not hold {entry.name} although its download succeeded. {where}")
    return check(found)


def _searched(data_dir: Path | str | None) -> str:
    return ", ".join(str(f) for f in search_folders(data_dir)) or f"{cache_folder()} (does not exist)"


def _from_path(name: str, data_dir: Path | str | None, resolution: int | None) -> Dataset:
    names = ", ".join(c.name for c in CARDS)
    candidates = [Path(name).expanduser(), *(f / name for f in search_folders(data_dir))]
    for path in candidates:
        if path.is_file() and path.suffix == ".npz":
            return load_npz(path)
        if path.is_dir() and looks_like_images(path):
            return load_folder(path, resolution)
    if candidates[0].exists():
        raise DataError(
            f"{name} is neither an .npz file nor a folder of class folders with images "
            "(train/<class>/*.jpg and val/<class>/*.jpg, or <class>/*.jpg)"
        )
    if name.endswith(".npz") or "/" in name:
        raise UsageError(f"no file or folder {name}, neither here nor in {_searched(data_dir)}")
    raise UsageError(f"no data set {name!r}; known are {names}, a path to an .npz file, or to a folder of images")


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits: 8x8, levels 0..16 as round(255 v / 16), a fixed stratified split 3:1.

    Only the file is read: importing the package takes a second.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("the digits come with scikit-learn: pip install 'mcuq[train]'")
    file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, np.int64, delimiter=",")
    levels = rows[:, :-1].reshape(-1, 8, 8)
    # round half up, in integers: 255 v / 16 has ties at v = 8.
    x = ((levels * 510 + 16) // 32).astype(np.uint8)[..., None]
    y = rows[:, -1]
    train, test = stratified_split(y, 0.25, DIGITS_SPLIT_SEED)
    return check(
        Dataset("digits", x[train], y[train], x[test], y[test], _DIGITS, _DARK, Augmentation(flip=False, shift=1))
    )


def _gray(name: str, stem: str, classes: tuple[str, ...], flip: bool) -> Callable[[Path, bool], Dataset | None]:
    augmentation = Augmentation(flip=flip, shift=2)

    def find(folder: Path, direct: bool) -> Dataset | None:
        npz = folder / f"{stem}.npz"
        if npz.is_file():
            return replace(load_npz(npz, name), classes=classes, normalization=_DARK, augmentation=augmentation)
        places = [folder / name, folder / stem, *([folder] if direct else [])]
        for place in places:
            files = find_idx(place) if place.is_dir() else None
            if files is not None:
                x_train, y_train, x_test, y_test = (read_idx(f) for f in files)
                return Dataset(
                    name,
                    to_pixels(x_train, str(files[0])),
                    to_labels(y_train, str(files[1])),
                    to_pixels(x_test, str(files[2])),
                    to_labels(y_test, str(files[3])),
                    classes,
                    _DARK,
                    augmentation,
                )
        return None

    return find


def _cifar10(folder: Path, direct: bool) -> Dataset | None:
    normalization = Normalization(scale=1 / 63, zero_point=121)  # mean 120.7, deviation 64.1 over the training set
    augmentation = Augmentation(flip=True, shift=4)
    for npz in sorted(folder.glob("cifar10*.npz")):
        loaded = load_npz(npz, "cifar10")
        return replace(loaded, classes=cifar.CLASSES, normalization=normalization, augmentation=augmentation)
    for base in (folder, folder / "cifar10"):
        for place in (base / "cifar-10-batches-bin", base / "cifar-10-batches-py", *([base] if direct else [])):
            arrays = cifar.read_folder(place) if place.is_dir() else None
            if arrays is not None:
                return Dataset("cifar10", *arrays, cifar.CLASSES, normalization, augmentation)
        for archive in (base / "cifar-10-binary.tar.gz", base / "cifar-10-python.tar.gz"):
            if archive.is_file():
                arrays = cifar.read_archive(archive)
                return Dataset("cifar10", *arrays, cifar.CLASSES, normalization, augmentation)
    return None


def _kws(folder: Path, direct: bool) -> Dataset | None:
    for npz in sorted(folder.glob("kws_speech_commands*.npz")):
        arrays = read_npz(npz, ("mfcc_int8", "y"))
        if set(arrays) != {"mfcc_int8", "y"}:
            found = ", ".join(arrays) or "none of them"
            raise DataError(f"{npz} should hold mfcc_int8 [N, 49, 10, 1] and y [N]; found {found}")
        codes = arrays["mfcc_int8"]
        if codes.dtype != np.int8 or codes.ndim != 4:
            raise DataError(f"{npz}: mfcc_int8 is {codes.dtype} {list(codes.shape)}; int8 [N, 49, 10, 1] is needed")
        x, y = (codes.astype(np.int16) + 128).astype(np.uint8), to_labels(arrays["y"], f"{npz}: y")
        train, test = stratified_split(y, 0.25, DIGITS_SPLIT_SEED)
        # Codes stand for 0.5847029 * (q - 83); as pixels q + 128.
        normalization = Normalization(scale=0.5847029, zero_point=83 + 128)
        return Dataset("kws", x[train], y[train], x[test], y[test], _KEYWORDS, normalization)
    return None


_FINDERS: dict[str, Callable[[Path, bool], Dataset | None]] = {
    "mnist": _gray("mnist", "mnist", _DIGITS, flip=False),
    "fashion-mnist": _gray("fashion-mnist", "fashion_mnist", _FASHION, flip=True),
    "cifar10": _cifar10,
    "kws": _kws,
}
