"""Data sets by name, splits, normalization, fitting to a model, downloads."""

from __future__ import annotations

import hashlib
import http.server
import threading

import numpy as np
import pytest

from mcuq import data
from mcuq.data import fetch, images
from mcuq.data.dataset import stratified_split
from mcuq.data.fetch import RemoteFile, download
from mcuq.errors import DataError

pytest.importorskip("PIL")


def test_digits():
    d = data.load("digits")
    assert d.x_train.shape == (1347, 8, 8, 1) and d.x_test.shape == (450, 8, 8, 1)
    levels = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert np.unique(d.x_train).tolist() == levels
    counts = np.bincount(d.y_test)
    assert counts.min() >= 43 and counts.max() <= 46
    # The split is part of published accuracies: it may not change unnoticed.
    split = hashlib.sha256(d.x_test.tobytes() + d.y_test.tobytes()).hexdigest()
    assert split == "d9c38d5f8e1b22d4009194ca394200c56bca6516ea649e48a5b4f0a2c9e4a845"
    both = np.concatenate([d.x_train, d.x_test]).reshape(1797, -1)
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    original = np.floor(bunch.images.reshape(1797, -1) * 255 / 16 + 0.5).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, original))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_stratified_split(share):
    y = np.repeat(np.arange(4), [100, 40, 7, 2]).astype(np.int64)
    train, test = stratified_split(y, share, seed=3)
    assert sorted([*train, *test]) == list(range(len(y)))
    for label, count in enumerate([100, 40, 7, 2]):
        assert (y[test] == label).sum() == max(1, round(share * count))
    again = stratified_split(y, share, seed=3)
    other = stratified_split(y, share, seed=4)
    assert np.array_equal(test, again[1]) and not np.array_equal(test, other[1])


def test_a_class_with_one_image_stays_in_training():
    train, test = stratified_split(np.zeros(1, np.int64), 0.25, seed=0)
    assert train.tolist() == [0] and test.tolist() == []


def test_fitted_normalization():
    x = np.array([[0, 0, 0, 200]], np.uint8).reshape(1, 2, 2, 1)
    normalization = data.fit_normalization(x)
    assert normalization.zero_point == 50
    assert normalization.scale == pytest.approx(1 / np.std([0, 0, 0, 200]))
    assert data.fit_normalization(np.full((1, 2, 2, 1), 255, np.uint8)).scale == 1.0


SETS = {
    "mnist": ((60000, 28, 28, 1), (10000, 28, 28, 1), "mnist.npz"),
    "fashion-mnist": ((60000, 28, 28, 1), (10000, 28, 28, 1), "fashion_mnist.npz"),
    "kws": ((749, 49, 10, 1), (251, 49, 10, 1), "kws_speech_commands_eval.npz"),
}


@pytest.mark.parametrize("name", SETS)
def test_published_sets(name):
    train, test, file = SETS[name]
    folder = data.find_data_dir()
    if folder is None or not (folder / file).is_file():
        pytest.skip(f"{file} is not in $MCUQ_DATA")
    d = data.load(name, folder)
    assert d.x_train.shape == train and d.x_test.shape == test
    assert np.unique(d.y_test).tolist() == list(range(len(d.classes)))


@pytest.mark.parametrize("name", ["digits", "kws"])
def test_all_pixel_codes_stay_distinct(name):
    if name == "kws" and (data.find_data_dir() is None or not list(data.find_data_dir().glob("kws*.npz"))):
        pytest.skip("kws_speech_commands_eval.npz is not in $MCUQ_DATA")
    normalization = data.load(name).normalization
    assert isinstance(normalization.zero_point, int) and 0 <= normalization.zero_point <= 255
    real = normalization.scale * (np.arange(256) - normalization.zero_point)
    codes = np.rint(real / normalization.scale) + normalization.zero_point - 128
    assert codes.tolist() == list(range(-128, 128))


def test_every_card_has_a_loader(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MCUQ_DATA", raising=False)
    for card in data.datasets():
        if card.name == "digits":
            continue
        with pytest.raises(DataError) as caught:
            data.load(card.name, fetch=False)
        assert f"{card.name} was not found" in str(caught.value) and card.expected in str(caught.value)


# --- fitting -------------------------------------------------------------------------------------------------


def test_resize():
    d = data.resize(data.load("digits"), 16)
    assert d.x_train.shape == (1347, 16, 16, 1) and d.x_train.dtype == np.uint8 and d.augmentation.shift == 2
    assert data.resize(d, (4, 6)).input_shape == (4, 6, 1)
    with pytest.raises(DataError, match="resolution 0x0 is outside"):
        data.resize(d, 0)


def test_shrinking_averages_areas():
    x = np.zeros((1, 8, 8, 2), np.uint8)
    x[0, :, ::2, 0] = 200
    x[0, ..., 1] = 77
    small = images.resize_images(x, 4, 4)
    assert np.all(np.abs(small[0, :, 1:3, 0].astype(int) - 100) <= 2) and np.all(small[..., 1] == 77)


def test_channels():
    gray = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    color = images.convert_channels(gray, 3)
    assert color.shape == (1, 8, 8, 3) and np.array_equal(images.convert_channels(color, 1), gray)
    pure = np.zeros((1, 1, 3, 3), np.uint8)
    pure[0, 0, [0, 1, 2], [0, 1, 2]] = 255
    assert images.convert_channels(pure, 1).reshape(-1).tolist() == [76, 150, 29]
    with pytest.raises(DataError, match="images have 3 channels, the model takes 4"):
        images.convert_channels(color, 4)


def test_fit_to_a_model():
    d = data.fit(data.load("digits"), (32, 32, 3))
    assert d.input_shape == (32, 32, 3)
    assert np.array_equal(d.x_test[..., 0], d.x_test[..., 2])


# --- downloads -----------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    files = {"/good": b"pixels" * 1000}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = files.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", files
        httpd.shutdown()


def remote(base, path="/good", body=b"pixels" * 1000, limit=10_000):
    return RemoteFile("file.gz", base + path, hashlib.md5(body).hexdigest(), limit)


def test_download_reports_progress_and_is_not_repeated(server, tmp_path):
    base, files = server
    seen = []
    download((remote(base),), tmp_path / "new", lambda *step: seen.append(step))
    assert (tmp_path / "new" / "file.gz").read_bytes() == files["/good"]
    assert seen[-1] == ("file.gz", 6000, 6000)
    files.clear()
    download((remote(base),), tmp_path / "new")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"path": "/none"}, "HTTP Error 404"),
        ({"body": b"other"}, "the download is damaged or the file was replaced"),
        ({"limit": 100}, "sends more than 100 bytes"),
    ],
)
def test_a_failed_download_leaves_nothing(server, tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        download((remote(server[0], **change),), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_what_to_put_where(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", offline)
    monkeypatch.delenv("MCUQ_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        data.load("mnist", tmp_path)
    text = str(caught.value)
    assert "network is unreachable" in text and "train-images-idx3-ubyte.gz" in text
    assert "Put mnist.npz, or mnist/ with" in text and str(tmp_path) in text and "--data-dir" in text
