"""Registered data sets, from files under `data/`, proved by their digests. Never touches the network.

Tracked: all of MNIST, and a part of CIFAR-10 (the first 500 training images of each class and the
first 2,000 test images, in official order). The full CIFAR-10 is read if `make data` brought it
(see download.py). CIFAR-10 must be lossless: several public copies are JPEG-encoded.
"""
import hashlib
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.artifacts import files, paths, proofs, store
from helpers.datasets import records

BYTES = 2**28  # of all arrays of a data set: CIFAR-10 has 184 million
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Images(NamedTuple):
    """What is loaded: images float32 in [0, 1], (N, H, W, C); labels int64, (N,); both read-only.

    complete: whether these are all the official images.
    """
    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple
    complete: bool

    @property
    def record(self):
        """The data set's record."""
        return records.record(self.name)


def load(name):
    """Return the Images of a registered data set: the full set if it is under data/, else the part.

    Raises ValueError for another name, and for a damaged file, or one of other images, which it names.
    """
    record, file = records.record(name), at_hand(name)
    files.sweep(paths.DATA)
    path = paths.DATA / file.name
    arrays = _converted(path, file.sha256, path.stat().st_mtime_ns)
    if arrays[0].shape[1:] != record.shape:
        raise ValueError(f"{path} must hold images of shape {record.shape}, got {arrays[0].shape[1:]}")
    return Images(name, *arrays, record.class_names, file == record.full)


def at_hand(name):
    """Return the ImageFile of a data set that is read: of all images if it is under data/, else the part."""
    record = records.record(name)
    return record.full if record.part is None or (paths.DATA / record.full.name).exists() else record.part


def image_file(path):
    """Return the ImageFile of an .npz of uint8 ARRAYS at `path`, for a record of one's own.

    Raises ValueError where the file holds anything else.
    """
    arrays = _arrays(path)
    for name, array in arrays.items():
        if array.dtype != np.uint8:
            raise ValueError(f"{path} must hold arrays of uint8, got {name} of {array.dtype}")
    return records.ImageFile(str(Path(path).resolve()), tuple(array_sha256(arrays[name]) for name in ARRAYS),
                             len(arrays["y_train"]), len(arrays["y_test"]),
                             int(np.unique(arrays["y_train"], return_counts=True)[1].min()))


def statistics(name):
    """Return a table of the whole data set: rows (dataset, split, quantity, value, low, high).

    Quantities: "class 0" … (counts), "mean 0" … and "deviation 0" … (of each channel, over pixels in
    [0, 1]). Exact, so low and high only leave room for rounding. Kept as an artifact: it holds for
    the full set where that is at hand or the artifact ships, else for the part. On loading, what the
    test images say is computed again where those that it is of are at hand.
    """
    parameters = {"dataset": name, "complete": True}
    if not store.has("statistics", parameters):
        parameters["complete"] = load(name).complete

    def check(kept):
        data = load(name)
        if data.complete == parameters["complete"] and not proofs.same_rows(
                kept[kept.split == "test"], statistics_of(data, ("test",))):
            raise ValueError(f"the kept statistics of {name} are not those of its images")

    return store.cached("statistics", parameters, lambda: statistics_of(load(name)), check=check)


def statistics_of(data, splits=("train", "test")):
    """Return the table of `statistics`, which keeps it, for these splits of Images."""
    rows = []
    for split in splits:
        x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
        counts = np.bincount(y, minlength=data.record.classes)
        values = {f"class {k}": count for k, count in enumerate(counts)}
        for channel in range(x.shape[-1]):
            pixels = x[..., channel].astype(np.float64)
            values[f"mean {channel}"] = pixels.mean()
            values[f"deviation {channel}"] = pixels.std()
        rows += [{"dataset": data.name, "split": split, "quantity": quantity, "value": value,
                  "low": value - 1e-6, "high": value + 1e-6} for quantity, value in values.items()]
    return pd.DataFrame(rows)


def read_checked(path, sha256):
    """Return the arrays of the .npz at `path`, as a dict; their digests must be these (ImageFile.sha256).

    Raises ValueError, naming the file, where it is unreadable or holds anything else.
    """
    arrays = _arrays(path)
    check_arrays(arrays, sha256, path)
    return arrays


def _arrays(path):
    try:
        return files.arrays(path, ARRAYS, BYTES)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile,
            zipfile.zlib.error) as error:
        raise ValueError(f"{path} is damaged, or is not an .npz of {', '.join(ARRAYS)}: "
                         f"{error}") from error


def check_arrays(arrays, sha256, source):
    """Raise ValueError, naming `source` and the array, unless `arrays` have these digests, as ARRAYS."""
    for name, expected in zip(ARRAYS, sha256, strict=True):
        if array_sha256(arrays[name]) != expected:
            raise ValueError(f"{source} is damaged: {name} is not the official array "
                             f"(SHA-256 {array_sha256(arrays[name])[:16]}…, "
                             f"expected {expected[:16]}…)")


def array_sha256(array):
    """Return the SHA-256 of an array's bytes in C order, in hex."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def first_per_class(y, n):
    """Return the sorted indices of the first images of each class in y, n in all: n // classes of each.

    Of CIFAR-10, for n <= 5,000, these are the same training images in the full set and in its part.
    """
    classes = np.unique(y)
    return np.sort(np.concatenate([np.flatnonzero(y == k)[:n // len(classes)] for k in classes]))


@lru_cache(maxsize=2)
def _converted(path, sha256, modified):
    """Return the arrays as float32 in [0, 1] and int64, read-only: all callers share them."""
    arrays = read_checked(path, sha256)
    converted = []
    for name in ARRAYS:
        array = arrays[name]
        if name.startswith("x"):
            array = array.astype(np.float32) / np.float32(255)
            array = array[..., np.newaxis] if array.ndim == 3 else array
        else:
            array = array.astype(np.int64)
        array.flags.writeable = False
        converted.append(array)
    return tuple(converted)
