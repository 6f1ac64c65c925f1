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
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
SHIPPED = DATA / "shipped"
MADE = DATA / "made"

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


@contextmanager
def atomic(path):
    """Yield a partial path beside `path`, renamed to `path` only if the block succeeds.

    The partial name keeps the suffix of `path`, since Keras and NumPy look at it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, content):
    """Write `content` as readable JSON, atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf8")


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
    for folder in _folders():
        path = folder / filename
        if not (path.exists() and record_path(path).exists()):
            continue
        record = read_record(path)
        if record["made"] < fresh_since():
            continue
        if file_sha256(path) != record["sha256"]:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the recorded one. "
                             "Delete it to have it made again.")
        return path, record
    return None


def record_path(path):
    """Return the path of the record beside the artifact `path`."""
    return path.with_name(path.name + ".json")


def read_record(path):
    """Return the record beside the artifact `path`; raises ValueError if it is not readable."""
    try:
        record = json.loads(record_path(path).read_text("utf8"))
        record["made"], record["sha256"], record["parameters"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{record_path(path)} is damaged ({error!r}). "
                         "Delete it to have it made again.") from error
    return record


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
    path = MADE / (_stem(name, parameters) + (".csv" if isinstance(value, pd.DataFrame) else ".npz"))
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
    return (SHIPPED,) if _alone else (MADE, SHIPPED)


def _find_either(stem):
    return find(stem + ".csv") or find(stem + ".npz")


def _find_larger(name, parameters, key):
    """Return (path, record) of the artifact with the next larger parameters[key], all else equal, or None."""
    wanted, larger = as_kept(parameters), []
    if not isinstance(wanted[key], int):
        return None
    for path in (path for folder in _folders() for path in folder.glob(f"{name}-*.json")):
        kept = read_record(path.with_suffix(""))["parameters"]
        if (kept.keys() == wanted.keys() and isinstance(kept[key], int) and kept[key] > wanted[key]
                and kept | {key: wanted[key]} == wanted):
            larger.append((kept[key], path.with_suffix("").name))
    return next(filter(None, map(find, (filename for _, filename in sorted(larger)))), None)


def read(path):
    """Return the artifact at `path`: a DataFrame of a .csv, a dict of arrays of an .npz."""
    if path.suffix == ".csv":
        return pd.read_csv(path)
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _require_lasting(name, value):
    """Raise ValueError unless the file of `value` gives it back, without pickle; in tables, nothing for ""."""
    blank = lambda table: table.astype(object).mask(table.isna() | (table == ""), None)
    try:
        if isinstance(value, pd.DataFrame):
            again = pd.read_csv(io.StringIO(value.to_csv(index=False)))
            pd.testing.assert_frame_equal(blank(again), blank(value.reset_index(drop=True)), rtol=1e-6)
            return
        kept = {key: np.asarray(entry).dtype for key, entry in value.items()}
        lost = [key for key, dtype in kept.items() if dtype.hasobject or dtype.kind not in "biufcSUmMV"
                or type(key) is not str or key in ("file", "allow_pickle")]  # np.savez takes these two for itself
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
