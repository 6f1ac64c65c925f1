"""MNIST and CIFAR-10 from files under `data/`, proved by their digests. Never touches the network.

Tracked: all of MNIST, and a part of CIFAR-10 (the first 500 training images of each class and the
first 2,000 test images, in official order). The full CIFAR-10 is read if `make data` brought it
(see download.py). CIFAR-10 must be lossless: several public copies are JPEG-encoded.
"""
import hashlib
import zipfile
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.artifacts import files, paths, proofs, store

BYTES = 2**28  # of all arrays of a data set: CIFAR-10 has 184 million
ARRAYS = ("x_train", "y_train", "x_test", "y_test")

# SHA-256 of the bytes of each uint8 array, in the order of ARRAYS.
SHA256 = {
    "mnist.npz": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
    "cifar10.npz": (
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"),
    "cifar10_part.npz": (
        "8408cb1d487a81dc74bed9bf922c2fd301fe2b1423ee16016de79a0f4ea9cff1",
        "82b397643bd8851eecd4bf04f74438bf4aeeb7d1f9074791252a04fd9277c0f3",
        "4946cb5ae9a2c68e6ca2da22e50da3b523358fd85ffaccfe834632e039845928",
        "3902c3af7fa7672eec1fabac87b4a7d8e9846a916952a3f6b723ec75787df0f9"),
}


class ClassName(NamedTuple):
    """A class's name: Spanish for display, English as published."""
    es: str
    en: str


CLASS_NAMES = {
    "mnist": tuple(ClassName(str(digit), str(digit)) for digit in range(10)),
    "cifar10": (
        ClassName("avión", "airplane"), ClassName("automóvil", "automobile"),
        ClassName("ave", "bird"), ClassName("gato", "cat"), ClassName("ciervo", "deer"),
        ClassName("perro", "dog"), ClassName("rana", "frog"), ClassName("caballo", "horse"),
        ClassName("barco", "ship"), ClassName("camión", "truck")),
}
NAMES = tuple(CLASS_NAMES)


class Dataset(NamedTuple):
    """Images float32 in [0, 1], (N, H, W, C); labels int64, (N,); both read-only.

    complete: whether these are all the official images.
    """
    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple
    complete: bool


def load(name):
    """Return the Dataset "mnist" or "cifar10": the full set if it is under data/, else the part.

    Raises ValueError for another name, and for a damaged file, which it names.
    """
    if name not in NAMES:
        raise ValueError(f"dataset must be one of {', '.join(NAMES)}, got {name!r}")
    files.sweep(paths.DATA)
    filename = f"{name}.npz"
    complete = (paths.DATA / filename).exists()
    if not complete and name == "cifar10":
        filename = "cifar10_part.npz"
    path = paths.DATA / filename
    arrays = _converted(path, filename, path.stat().st_mtime_ns)
    return Dataset(name, *arrays, CLASS_NAMES[name], complete)


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
    """Return the table of `statistics`, which keeps it, for these splits of a Dataset."""
    rows = []
    for split in splits:
        x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
        values = {f"class {k}": count for k, count in enumerate(np.bincount(y, minlength=10))}
        for channel in range(x.shape[-1]):
            pixels = x[..., channel].astype(np.float64)
            values[f"mean {channel}"] = pixels.mean()
            values[f"deviation {channel}"] = pixels.std()
        rows += [{"dataset": data.name, "split": split, "quantity": quantity, "value": value,
                  "low": value - 1e-6, "high": value + 1e-6} for quantity, value in values.items()]
    return pd.DataFrame(rows)


def read_checked(path, key):
    """Return the arrays of the .npz at `path`, as a dict; they must be those of SHA256[key].

    Raises ValueError, naming the file, where it is unreadable or holds anything else.
    """
    try:
        arrays = files.arrays(path, ARRAYS, BYTES)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise ValueError(f"{path} is damaged, or is not an .npz of {', '.join(ARRAYS)}: "
                         f"{error}") from error
    check(arrays, key, path)
    return arrays


def check(arrays, key, source):
    """Raise ValueError, naming `source` and the array, unless `arrays` are those of SHA256[key]."""
    for name, expected in zip(ARRAYS, SHA256[key]):
        if array_sha256(arrays[name]) != expected:
            raise ValueError(f"{source} is damaged: {name} is not the official array "
                             f"(SHA-256 {array_sha256(arrays[name])[:16]}…, "
                             f"expected {expected[:16]}…)")


def array_sha256(array):
    """Return the SHA-256 of an array's bytes in C order, in hex."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def first_per_class(y, n):
    """Return the sorted indices of the first n // 10 images of each of the 10 classes in y.

    For n <= 5,000 these are the same training images in the full CIFAR-10 and in its part.
    """
    return np.sort(np.concatenate([np.flatnonzero(y == k)[:n // 10] for k in range(10)]))


@lru_cache(maxsize=2)
def _converted(path, key, modified):
    """Return the arrays as float32 in [0, 1] and int64, read-only: all callers share them."""
    arrays = read_checked(path, key)
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
