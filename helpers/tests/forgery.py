"""Artifacts changed with all their traces: the record of a forged file has its digest."""
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.artifacts import files, paths, store
from helpers.networks import keras_files, training
from helpers.study import verify


def seal(path):
    """Give a changed file the record of an unchanged one."""
    record = json.loads(store.record_path(path).read_text("utf8"))
    files.write_json(store.record_path(path), record | {"sha256": store.file_sha256(path)})


def arrays(path, change):
    """Change the arrays of an .npz by change(arrays), so that only the content tells."""
    held = store.read(path)
    change(held)
    np.savez_compressed(path, **held)
    seal(path)


def rows(path, change):
    """Change a table by change(table), which returns another or None, so that only the content tells."""
    table = pd.read_csv(path)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, index=False)
    seal(path)


def kept_files(folder):
    """Return the paths of all files in a folder and those within, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copied(path, folder):
    """Copy an artifact or record into a folder of artifacts, where its kind lies; return the new path."""
    target = paths.place(folder, path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(path, target))


def shipped(name):
    """Let what is kept ship; return the paths of the artifacts of this name."""
    for path in kept_files(paths.MADE):
        target = paths.place(paths.SHIPPED, path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return sorted(path for path in paths.SHIPPED.rglob(f"{name}-*") if path.suffix != ".json")


def ship(monkeypatch, *recipes):
    """Let the shipped networks of these recipes ship in the store of a test; return them.

    A network of the same bytes is the same object in all tests, so that what was compiled for it serves
    again.
    """
    def load(path, sha256):
        if sha256 not in _loaded:
            _loaded[sha256] = keras_files.load_model(path)
        return _loaded[sha256]
    paths.SHIPPED.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        for path in (paths.ROOT / "data" / "shipped").rglob(recipe.filename + "*"):
            copied(path, paths.SHIPPED)
    monkeypatch.setattr(training, "_network", load)
    return [training.load_or_train(recipe)[0] for recipe in recipes]


_loaded = {}


def units(path, number, seed=0):
    """Yield at most so many entries of an artifact that ships, computed again: (what, kept, now, agrees)."""
    with store.shipped_alone():
        yield from itertools.islice(verify.units(path, store.read_record(path), np.random.default_rng(seed)),
                                    number)


def disagrees(path, number, seed=0):
    """Return whether any of at most so many entries disagrees."""
    return any(agrees is False for *_, agrees in units(path, number, seed))
