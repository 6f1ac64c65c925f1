"""`make verify` finds what was tampered with."""
import json
import shutil

import pandas as pd
import pytest

from helpers import store, verify


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of the shipped tables, to tamper with."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for path in store.SHIPPED.glob("*.csv*"):
        shutil.copy(path, folder)
    assert list(folder.glob("*.csv"))
    monkeypatch.setattr(store, "SHIPPED", folder)
    return folder


def test_every_shipped_file_is_as_recorded():
    assert len(verify.files()) >= 4


def test_every_shipped_table_can_be_computed_again():
    for name, row, recompute in verify.entries(verify.files()):
        assert callable(recompute) and row["low"] <= row["value"] <= row["high"], name


def test_a_changed_byte_is_found(shipped):
    path = next(shipped.glob("statistics*.csv"))
    path.write_text(path.read_text().replace("class 3", "class 4", 1))
    with pytest.raises(ValueError, match=path.name):
        verify.files()


def test_a_changed_entry_is_found_even_if_its_record_was_changed_too(shipped, capsys):
    mnist = [path for path in shipped.glob("statistics*.csv") if "mnist" in path.read_text()]
    path, = mnist
    for other in set(shipped.glob("*.csv")) - {path}:
        other.unlink()
    table = pd.read_csv(path)
    table[["value", "low", "high"]] += 1
    table.to_csv(path, index=False)
    record = json.loads((store.SHIPPED / f"{path.name}.json").read_text())
    store.write_json(store.record_path(path), {**record, "sha256": store.file_sha256(path)})
    assert verify.verify(minutes=1) == 1
    assert "disagree" in capsys.readouterr().out
