"""Artifacts: atomic, keyed by all their parameters, checked when loaded."""
import json
import os

import numpy as np
import pandas as pd
import pytest

from helpers.artifacts import files, paths, store
from helpers.tests import forgery


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
    record = json.loads(next(made.rglob("*.npz.json")).read_text())
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
    assert not list(forgery.kept_files(made))
    make, calls = _counter({"a": np.zeros(3)})
    store.cached("thing", {}, make)
    assert len(calls) == 1


def test_killed_between_file_and_record_means_not_made(made):
    make, calls = _counter({"a": np.zeros(3)})
    store.cached("thing", {}, make)
    next(made.rglob("*.json")).unlink()
    store.cached("thing", {}, make)
    assert len(calls) == 2


def test_atomic_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        with files.atomic(path) as partial:
            partial.write_text("new, but half")
            raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_damaged_artifacts_are_refused_and_named(made):
    store.cached("thing", {}, lambda: {"a": np.zeros(3)})
    path = next(made.rglob("*.npz"))
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
    made_at = store.read_record(next(made.rglob("*.npz")))["made"]
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
    made.rename(paths.SHIPPED)
    before = {path: path.stat().st_mtime_ns for path in forgery.kept_files(paths.SHIPPED)}
    make, calls = _counter({"a": np.zeros(3)})
    assert store.cached("thing", {}, make)["a"].sum() == 3 and not calls
    assert {path: path.stat().st_mtime_ns for path in forgery.kept_files(paths.SHIPPED)} == before


def _kept(value=np.arange(3.0)):
    """Keep an artifact; return its path and record."""
    store.cached("thing", {}, lambda: {"a": value})
    path = next(paths.MADE.rglob("*.npz"))
    return path, json.loads(store.record_path(path).read_text())


@pytest.mark.parametrize("field, value", [
    ("made", "yesterday"), ("made", None), ("made", 1e30), ("made", float("nan")), ("made", -1),
    ("made", True), ("made", 10**400), ("seconds", "3"), ("seconds", -0.1), ("seconds", None),
    ("seconds", float("inf")),
    ("versions", None), ("versions", ["2.21"]), ("versions", {"tensorflow": 2}), ("parameters", "{}"),
    ("parameters", []), ("sha256", None), ("sha256", "abc")])
def test_a_record_that_is_none_is_refused_by_name(made, field, value):
    path, record = _kept()
    for content in ({**record, field: value}, {key: record[key] for key in record if key != field}):
        store.record_path(path).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"record of .*{path.name} is damaged: its {field} is .*Delete"):
            store.cached("thing", {}, lambda: None)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"made"', "", "{", "[" * 100_000, "\xff"])
def test_what_is_no_record_is_refused_by_name(made, text):
    path, _ = _kept()
    store.record_path(path).write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=f"record of .*{path.name} is damaged"):
        store.cached("thing", {}, lambda: None)


def test_a_folder_in_a_files_place_is_refused_by_name(made):
    path, _ = _kept()
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{path.name} is damaged: it is a folder"):
        store.cached("thing", {}, lambda: None)
    store.record_path(path).unlink()
    store.record_path(path).mkdir()
    with pytest.raises(ValueError, match=f"record of .*{path.name} is damaged"):
        store.cached("thing", {}, lambda: None)


def test_only_what_was_made_here_is_said_to_be_deleted(made):
    path, _ = _kept()
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match="Delete it"):
        store.cached("thing", {}, lambda: None)
    made.rename(paths.SHIPPED)
    with pytest.raises(ValueError, match="git checkout"):
        store.cached("thing", {}, lambda: None)
    assert "elete" not in str(store.damaged(paths.ROOT / "mine.keras", "cut"))
    assert "elete" not in str(store.damaged(paths.MADE / "mine.keras", "cut"))  # it has no name of ours


def test_an_artifact_of_gigabytes_is_refused_before_it_is_read(made, monkeypatch):
    _kept(np.zeros(1000))
    monkeypatch.setattr(store.files, "BYTES", 7999)
    monkeypatch.setattr(store.files.arrays, "__defaults__", (None, 7999))
    with pytest.raises(ValueError, match="npz is damaged: its arrays would take 8,000 bytes"):
        store.cached("thing", {}, lambda: None)


def test_all_that_ships_has_a_sound_record():
    records = [path for path in forgery.kept_files(paths.SHIPPED) if path.suffix == ".json"]
    assert len(records) > 100
    for path in records:
        assert store.read_record(path.with_suffix(""))["made"] < 1.9e9


def _first(value, number):
    return {"a": value["a"][:number]}


def test_fewer_are_cut_from_the_next_larger_that_is_kept(made):
    for n in (50, 20, 30):
        store.cached("thing", {"n": n, "eps": [0.1]}, lambda: {"a": 100 * n + np.arange(n)})
    store.cached("thing", {"n": 25, "eps": [0.2]}, lambda: {"a": np.zeros(25)})  # of another radius
    store.cached("thing_too", {"n": 25, "eps": [0.1]}, lambda: {"a": np.zeros(25)})  # of another name
    make, calls = _counter({"a": np.zeros(1)})
    seen = []
    for n, expected in ((20, 2000), (21, 3000), (30, 3000), (31, 5000)):
        value = store.cached("thing", {"n": n, "eps": (0.1,)}, make, check=seen.append, sized=("n", _first))
        assert np.array_equal(value["a"], expected + np.arange(n)) and seen[-1] is value and not calls
        assert store.has("thing", {"n": n, "eps": [0.1]}, sized=("n", _first))
    assert not store.has("thing", {"n": 21, "eps": [0.1]})  # of this very number
    assert not store.has("thing", {"n": 51, "eps": [0.1]}, sized=("n", _first))
    store.cached("thing", {"n": 51, "eps": [0.1]}, make, sized=("n", _first))
    assert len(calls) == 1


def test_what_is_cut_is_checked_and_no_stale_or_damaged_one_is(made, monkeypatch):
    def refuse(value):
        raise ValueError(f"{len(value['a'])} of them")
    make, calls = _counter({"a": np.zeros(2)})
    store.cached("thing", {"n": 4}, lambda: {"a": np.zeros(4)})
    with pytest.raises(ValueError, match="2 of them"):
        store.cached("thing", {"n": 2}, make, check=refuse, sized=("n", _first))
    path = next(made.rglob("*.npz"))
    with monkeypatch.context() as patched:
        patched.setenv("FRESH", str(store.read_record(path)["made"] + 1))
        assert not store.has("thing", {"n": 2}, sized=("n", _first))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=path.name):
        store.cached("thing", {"n": 2}, make, sized=("n", _first))
    assert not calls


def test_what_ships_is_read_alone_and_nothing_is_made(made, monkeypatch):
    store.cached("thing", {"n": 1}, lambda: {"a": np.ones(3)})
    record, = made.rglob("*.json")
    files.write_json(record, json.loads(record.read_text("utf8")) | {"made": 1e9})
    made.rename(paths.SHIPPED)
    monkeypatch.setenv("FRESH", "1")
    make, calls = _counter({"a": np.zeros(3)})
    assert store.cached("thing", {"n": 1}, make)["a"].sum() == 0 and len(calls) == 1  # FRESH
    store.cached("thing", {"n": 2}, make)
    with store.shipped_alone():
        assert store.cached("thing", {"n": 1}, make)["a"].sum() == 3
        with pytest.raises(store.NotHere, match="thing-.*does not ship"):
            store.cached("thing", {"n": 2}, make)
    store.cached("thing", {"n": 2}, make)  # what is made here counts again
    assert len(calls) == 2
