"""Artifacts: atomic, keyed by all their parameters, checked when loaded."""
import json
import os

import numpy as np
import pandas as pd
import pytest

from helpers import store


def _counter(value):
    calls = []

    def make():
        calls.append(1)
        return value
    return make, calls


def test_made_once_and_loaded_afterwards(made):
    make, calls = _counter({"a": np.arange(5, dtype=np.float32)})
    first = store.cached("thing", {"eps": 0.1}, make)
    second = store.cached("thing", {"eps": 0.1}, make)
    assert len(calls) == 1
    assert np.array_equal(first["a"], second["a"]) and second["a"].dtype == np.float32
    store.cached("thing", {"eps": 0.2}, make)
    assert len(calls) == 2
    assert store.ledger().action.tolist() == ["computed", "computed"]


def test_a_table_comes_back_as_it_was(made):
    table = pd.DataFrame({"dataset": ["mnist"], "value": [1 / 3], "n": [7]})
    make, calls = _counter(table)
    for _ in range(2):
        pd.testing.assert_frame_equal(store.cached("table", {}, make), table)
    assert len(calls) == 1


def test_the_record_tells_parameters_time_processor_and_versions(made):
    store.cached("thing", {"eps": 0.1, "norm": 2}, _counter({"a": np.zeros(1)})[0])
    record = json.loads(next(made.glob("*.npz.json")).read_text())
    assert record["parameters"] == {"eps": 0.1, "norm": 2}
    assert record["seconds"] >= 0 and record["versions"]["numpy"] == np.__version__
    assert record["processor"] == store.processor() != ""


def test_an_interrupted_write_leaves_no_artifact(made, monkeypatch):
    def killed(*args, **kwargs):
        args[0].write_bytes(b"half")
        raise KeyboardInterrupt
    with monkeypatch.context() as patched:
        patched.setattr(store.np, "savez_compressed", killed)
        with pytest.raises(KeyboardInterrupt):
            store.cached("thing", {}, lambda: {"a": np.zeros(3)})
    assert not list(made.iterdir())
    make, calls = _counter({"a": np.zeros(3)})
    store.cached("thing", {}, make)
    assert len(calls) == 1


def test_killed_between_file_and_record_means_not_made(made):
    make, calls = _counter({"a": np.zeros(3)})
    store.cached("thing", {}, make)
    next(made.glob("*.json")).unlink()
    store.cached("thing", {}, make)
    assert len(calls) == 2


def test_atomic_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        with store.atomic(path) as partial:
            partial.write_text("new, but half")
            raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_damaged_artifacts_are_refused_and_named(made):
    store.cached("thing", {}, lambda: {"a": np.zeros(3)})
    path = next(made.glob("*.npz"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=path.name):
        store.cached("thing", {}, lambda: {"a": np.zeros(3)})
    store.record_path(path).write_text("{")
    with pytest.raises(ValueError, match=path.name):
        store.cached("thing", {}, lambda: {"a": np.zeros(3)})


def test_what_is_loaded_is_checked(made):
    def check(value):
        if value["a"].sum() != 3:
            raise ValueError("not adversarial")
    store.cached("thing", {}, lambda: {"a": np.zeros(3)}, check=check)  # just made: not yet loaded
    with pytest.raises(ValueError, match="not adversarial"):
        store.cached("thing", {}, lambda: {"a": np.zeros(3)}, check=check)


def test_fresh_recomputes_what_is_older(made, monkeypatch):
    make, calls = _counter({"a": np.zeros(3)})
    store.cached("thing", {}, make)
    made_at = store.read_record(next(made.glob("*.npz")))["made"]
    monkeypatch.setenv("FRESH", str(made_at + 1))
    store.cached("thing", {}, make)
    assert len(calls) == 2
    monkeypatch.setenv("FRESH", str(made_at - 1))
    store.cached("thing", {}, make)
    assert len(calls) == 2
    monkeypatch.setenv("FRESH", "soon")
    with pytest.raises(ValueError, match="soon"):
        store.cached("thing", {}, make)


def test_shipped_artifacts_are_read_and_never_written(made):
    store.cached("thing", {}, lambda: {"a": np.ones(3)})
    made.rename(store.SHIPPED)
    before = {path: path.stat().st_mtime_ns for path in store.SHIPPED.iterdir()}
    make, calls = _counter({"a": np.zeros(3)})
    assert store.cached("thing", {}, make)["a"].sum() == 3 and not calls
    assert {path: path.stat().st_mtime_ns for path in store.SHIPPED.iterdir()} == before
