"""Networks in files of Keras: looked at before they are built, and refused by name for what they are."""
import contextlib
import json
import math
import random
import re
import zipfile
from pathlib import Path

import h5py
import keras

from helpers import datasets
from helpers.artifacts import files, store

WEIGHTS = 2**28  # that a network may have: a gigabyte in float32
CONFIG = 2**26  # bytes of a network's description
OWN = "load it where that code is (keras.models.load_model) and pass the model itself to helpers' functions"


def load_model(path, *, compiled=False):
    """Return the Keras model in a .keras or .h5 file, read in safe mode: no code in it is run.

    compiled: with its optimiser, to go on training it. Raises ValueError, naming the file, where there is
    none, where it is no whole network, needs code of its own, has more than WEIGHTS weights, or is damaged.
    """
    path = Path(path)
    _require_whole(path)
    try:
        _require_small(path)
        with untouched_seeds():
            return keras.models.load_model(path, compile=compiled, safe_mode=True)
    except Exception as error:  # of any kind: a damaged file leads Keras anywhere
        raise _refusal(path, error) from error


@contextlib.contextmanager
def untouched_seeds():
    """Leave Python's random numbers as they were: Keras draws a seed from them for each layer it builds."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


class TooLarge(Exception):
    """A network has more weights than are read; its text says how many."""


def _require_whole(path):
    """Raise ValueError unless `path` is a file that may hold a whole network of Keras."""
    if path.is_dir():
        what = "of a SavedModel" if (path / "saved_model.pb").exists() else "and not a file"
        raise ValueError(f"{path} is a folder {what}: a network is read from a .keras file (model.save)")
    if not path.is_file():
        raise ValueError(f"there is no network at {str(path)!r}: give the path of a .keras file")
    if path.suffix not in files.NETWORKS:
        raise ValueError(f"{path}: the name of a network's file must end in .keras")
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
        if missing:
            raise ValueError(f"{path} is a zip file, but not one of Keras: "
                             f"without {', '.join(sorted(missing))}")
    if path.suffix != ".keras" and h5py.is_hdf5(path):
        with h5py.File(path) as file:
            if "model_config" not in file.attrs:
                raise ValueError(f"{path} holds weights alone: build the network, load them into it "
                                 "(model.load_weights) and keep it whole (model.save, as .keras)")


def _require_small(path):
    """Raise TooLarge where a network's file, or the network that it describes, has too many weights."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > 3 * 4 * WEIGHTS:  # Adam keeps two numbers a weight besides
                raise TooLarge(f"{size:,} bytes")
            if archive.getinfo("config.json").file_size > CONFIG:
                raise TooLarge("a description that is longer than any")
            config = json.loads(archive.read("config.json"))
    else:
        with h5py.File(path) as file:
            config = json.loads(file.attrs["model_config"])
    count = _least_weights(config)
    if count > WEIGHTS:
        raise TooLarge(f"at least {count:,} weights")


def _least_weights(config):
    """Return how many weights this configuration has at least: those of dense kernels and convolutions."""
    if isinstance(config, list):
        return sum(map(_least_weights, config))
    if not isinstance(config, dict):
        return 0
    own, built, count = config.get("config"), config.get("build_config"), 0
    if isinstance(own, dict):
        size = next((own[key] for key in ("units", "filters", "output_dim") if type(own.get(key)) is int), 0)
        shape = isinstance(built, dict) and built.get("input_shape") or [1]
        channels = shape[-1] if type(shape[-1]) is int else 1
        count = size * math.prod(own.get("kernel_size") or [1]) * max(1, channels // (own.get("groups") or 1))
    return count + sum(map(_least_weights, config.values()))


def _refusal(path, error):
    """Return the ValueError for a file that could not be read: what it needs, or that it is damaged."""
    words = str(error)
    if isinstance(error, TooLarge):
        return ValueError(f"{path} describes a network of {words}; at most {WEIGHTS:,} weights are read")
    if "Lambda" in words and "disallowed" in words:
        return ValueError(f"{path} has a Lambda layer, whose code would be run: make it of Keras's own "
                          f"layers, or, if you trust it, {OWN}")
    missing = re.search(r"(?:Could not locate \w+|Unknown \w+:?) '([^']+)'", words)
    if missing:
        return ValueError(f"{path} needs {missing[1]}, which is not Keras's: {OWN}")
    reason = words.splitlines()[0][:200] if words else ""
    return store.damaged(path, f"{type(error).__name__}: {reason}")


def read_checkpoint(path):
    """Return (model, dataset) of a network saved by Keras, not necessarily by this project.

    The data set is that whose images the network takes. Raises ValueError where there is no such file, where
    it is no network that can be read (keras_files.load), takes other images, or does not answer with a logit
    for each class.
    """
    if not str(path):
        raise ValueError(f"the path of a network must not be empty, got {path!r}: give that of a .keras file")
    model = load_model(path)
    if not model.built or not model.inputs:
        raise ValueError(f"{path} does not say what images it takes: it needs a keras.Input as it is saved")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs: a network "
                         "must take images alone, and answer with logits alone")
    taken, given = (tuple(part[0].shape[1:]) for part in (model.inputs, model.outputs))
    for name, record in datasets.RECORDS.items():
        if len(taken) == 3 and all(side in (None, own) for side, own in zip(taken, record.shape)):
            if given != (record.classes,):
                raise ValueError(f"{path} answers with shape {given}: {name} needs {record.classes} logits "
                                 "an image")
            return model, name
    raise ValueError(f"{path} takes images of shape {taken}: those of no data set here")
