"""Artifacts: where they lie, how they are written, and what was loaded or computed.

The one module that knows paths. An artifact is a file whose name carries a digest of the
parameters that made it; beside it stands a record (JSON). `data/shipped` holds those that
come with the project and is only read; what is made here goes to `data/made`.
"""
import datetime
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import time
import zipfile
from contextlib import contextmanager

import numpy as np
import pandas as pd

from helpers.artifacts import files, paths
from helpers.artifacts.files import atomic, write_json

YEAR_5000 = 95_617_584_000  # in seconds since 1970: no record is younger
_PROCESS_START = time.time()
_ledger = []
_alone = False  # whether only what ships is read


class NotHere(Exception):
    """What is asked for cannot be computed here; its text says why."""


def digest(parameters):
    """Return 12 hex digits that identify `parameters`, a dict that JSON can hold."""
    text = json.dumps(parameters, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_sha256(path):
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions():
    """Return the versions of the packages that numbers depend on, by name."""
    names = ("tensorflow", "keras", "cleverhans", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def processor():
    """Return the name of this machine's processor, beside which alone seconds mean something."""
    try:
        with open("/proc/cpuinfo", encoding="utf8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def fresh_since():
    """Return the time before which artifacts count as stale, in seconds since 1970.

    FRESH unset, empty or 0: 0, all count. FRESH=1: the start of this process. A larger number
    is a time; `make` passes the start of its run, so that notebooks share what that run made. What
    ships counts always where it is read alone.
    """
    if _alone:
        return 0.0
    text = os.environ.get("FRESH", "") or "0"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < 0:
        raise ValueError(f"FRESH must be 0, 1 or a time in seconds since 1970, got {text!r}")
    return _PROCESS_START if value == 1 else value


@contextmanager
def shipped_alone():
    """Within it only data/shipped is read, whatever lies in data/made and FRESH says.

    What does not ship raises NotHere, instead of being made.
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def check_making(name):
    """Raise NotHere, naming it, where only what ships is read: nothing may be made there."""
    if _alone:
        raise NotHere(f"{name} does not ship")


def find(filename):
    """Return (path, record) of the artifact `filename`, or None where there is none.

    Looks in data/made, then in data/shipped; passes over what is older than `fresh_since()`.
    Raises ValueError, naming the file, where its bytes are not those recorded.
    """
    files.sweep(paths.place(paths.MADE, filename).parent)
    for folder in _folders():
        path = paths.place(folder, filename)
        if not (path.exists() and record_path(path).exists()):
            continue
        record = read_record(path)
        if record["made"] < fresh_since():
            continue
        if not path.is_file() or file_sha256(path) != record["sha256"]:
            raise damaged(path, "its SHA-256 is not the recorded one" if path.is_file() else "it is a folder")
        return path, record
    return None


def record_path(path):
    """Return the path of the record beside the artifact `path`."""
    return path.with_name(path.name + ".json")


def read_record(path):
    """Return the record beside the artifact `path`; raises ValueError, naming it, where it is damaged."""
    try:
        record = json.loads(record_path(path).read_text("utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(record_path(path), repr(error), f"the record of {path}") from error
    wrong = _wrong_in(record)
    if wrong:
        raise damaged(record_path(path), wrong, f"the record of {path}")
    return record


def _wrong_in(record):
    """Return what keeps `record` from being one, in words, or None."""
    if not isinstance(record, dict):
        return f"it is no record but {str(record)[:40]}"
    texts = record.get("versions")
    fits = {"parameters": isinstance(record.get("parameters"), dict),
            "sha256": re.fullmatch("[0-9a-f]{64}", str(record.get("sha256"))),
            "versions": isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()),
            **{name: type(record.get(name)) in (int, float) and 0 <= record[name] <= YEAR_5000
               for name in ("made", "seconds")}}
    return next((f"its {name} is {str(record.get(name, 'missing'))[:40]}" for name, right in fits.items()
                 if not right), None)


def damaged(path, why, what=None):
    """Return the ValueError that says that a file (or `what`, which it holds) is damaged, and what to do.

    Only what the project made in data/made is said to be deleted.
    """
    todo = {paths.MADE: "Delete it to have it made again.",
            paths.SHIPPED: f"It came with the project: bring it back with `git checkout {path}`."}
    own = re.search(r"-[0-9a-f]{12}\.", path.name)
    advice = todo.get(path.parent.parent, "") if own else ""
    return ValueError(f"{what or path} is damaged: {why}. {advice}".rstrip())


def write(path, save, parameters, seconds, **more):
    """Write an artifact by `save(partial path)`, then its record; return the record.

    The record comes last, and an old one goes first: an artifact without one does not count as
    made, so that an interruption at any point leaves nothing that looks finished.
    """
    record_path(path).unlink(missing_ok=True)
    with atomic(path) as partial:
        save(partial)
    record = {"parameters": parameters, "seconds": round(seconds, 3), "made": time.time(),
              "versions": versions(), "processor": processor(), "sha256": file_sha256(path), **more}
    write_json(record_path(path), record)
    return record


def cached(name, parameters, make, *, check=None, sized=None):
    """Return the artifact `name` of these very parameters: loaded if there, else made and kept.

    name: what it is, in words joined by underscores. parameters: dict that JSON can hold; it must
    name everything that the result depends on. make(): returns a DataFrame (kept as CSV) or a dict
    of arrays (kept as .npz). check(value): run on a *loaded* value, raises if it does not hold, so
    that nothing is taken on faith. sized: (key, cut), where parameters[key] is a number of images and
    what is kept of an image does not depend on the others: then cut(value, number) of an artifact of
    more images, and otherwise the same parameters, serves too; it is checked as cut.
    """
    found = _find_either(_stem(name, parameters))
    larger = None if found or not sized else _find_larger(name, parameters, sized[0])
    if found or larger:
        path, record = found or larger
        if found and record["parameters"] != as_kept(parameters):
            raise ValueError(f"{path} was made with other parameters than its name says")
        value = read(path)
        if larger:
            value = sized[1](value, parameters[sized[0]])
        if check:
            check(value)
        note(path.name, "loaded", record)
        return value
    check_making(_stem(name, parameters))
    start = time.perf_counter()
    value = make()
    return keep(name, parameters, value, time.perf_counter() - start)


def keep(name, parameters, value, seconds, **more):
    """Write the artifact `name` of these parameters; return it as read again.

    So what was computed and what will be loaded are the same value. more: further words of the record.
    Raises ValueError, before anything is written, for a value that its file would not give back.
    """
    _require_lasting(name, value)
    path = paths.place(paths.MADE,
                       _stem(name, parameters) + (".csv" if isinstance(value, pd.DataFrame) else ".npz"))
    record = write(path, lambda partial: _save(partial, value), parameters, seconds, **more)
    note(path.name, "computed", record)
    return read(path)


def has(name, parameters, *, sized=None):
    """Return whether `cached` would find the artifact `name` of these parameters; sized: as there."""
    return bool(_find_either(_stem(name, parameters))
                or sized and _find_larger(name, parameters, sized[0]))


def as_kept(parameters):
    """Return parameters as a record holds them: tuples are lists there, and keys text."""
    return json.loads(json.dumps(parameters))


def note(filename, action, record):
    """Add to the ledger that the artifact `filename` was "loaded" or "computed"."""
    made = datetime.datetime.fromtimestamp(record["made"], datetime.timezone.utc)
    _ledger.append({"artifact": filename, "action": action, "seconds": record["seconds"],
                    "made": made.strftime("%Y-%m-%d"),
                    "tensorflow": record["versions"].get("tensorflow", "")})


def ledger():
    """Return a table of what this process loaded and computed: one row an artifact, in order."""
    columns = ["artifact", "action", "seconds", "made", "tensorflow"]
    return pd.DataFrame(_ledger, columns=columns).drop_duplicates("artifact", ignore_index=True)


def _stem(name, parameters):
    return f"{name}-{digest(parameters)}"


def _folders():
    return (paths.SHIPPED,) if _alone else (paths.MADE, paths.SHIPPED)


def _find_either(stem):
    return find(stem + ".csv") or find(stem + ".npz")


def _find_larger(name, parameters, key):
    """Return (path, record) of the artifact with the next larger parameters[key], all else equal, or None."""
    wanted, larger = as_kept(parameters), []
    if not isinstance(wanted[key], int):
        return None
    for path in (path for folder in _folders()
                 for path in paths.place(folder, name).parent.glob(f"{name}-*.json")):
        kept = read_record(path.with_suffix(""))["parameters"]
        if (kept.keys() == wanted.keys() and isinstance(kept[key], int) and kept[key] > wanted[key]
                and kept | {key: wanted[key]} == wanted):
            larger.append((kept[key], path.with_suffix("").name))
    return next(filter(None, map(find, (filename for _, filename in sorted(larger)))), None)


def read(path):
    """Return the artifact at `path`: a DataFrame of a .csv, a dict of arrays of an .npz.

    Raises ValueError, naming it, where it holds anything else, or more than files.BYTES.
    """
    try:
        if path.suffix == ".csv":
            if path.stat().st_size > files.BYTES:
                raise ValueError(f"it has more than the {files.BYTES:,} bytes that are read")
            return pd.read_csv(path)
        return files.arrays(path)
    except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise damaged(path, str(error)) from error


def _require_lasting(name, value):
    """Raise ValueError unless the file of `value` gives it back without pickle; in tables, None for ""."""
    blank = lambda table: table.astype(object).mask(table.isna() | (table == ""), None)
    try:
        if isinstance(value, pd.DataFrame):
            again = pd.read_csv(io.StringIO(value.to_csv(index=False)))
            pd.testing.assert_frame_equal(blank(again), blank(value.reset_index(drop=True)), rtol=1e-6)
            return
        kept = {key: np.asarray(entry).dtype for key, entry in value.items()}
        lost = [key for key, dtype in kept.items() if dtype.hasobject or dtype.kind not in "biufcSUmMV"
                # np.savez takes the last two for itself.
                or type(key) is not str or key in ("file", "allow_pickle")]
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a table or a dict of arrays that its file gives back, got "
                         f"{type(value).__name__}: {' '.join(str(error).split())[:300]}") from error
    if lost:
        raise ValueError(f"{name} must hold arrays of numbers or texts, by names, got others at {lost}")


def _save(path, value):
    if isinstance(value, pd.DataFrame):
        value.to_csv(path, index=False)
    else:
        np.savez_compressed(path, **value)
