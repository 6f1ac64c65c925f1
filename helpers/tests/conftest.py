import pytest

from helpers import store


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An empty place for artifacts: nothing is read from, or written to, the project's own."""
    monkeypatch.setattr(store, "MADE", tmp_path / "made")
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(store, "_ledger", [])
    monkeypatch.delenv("FRESH", raising=False)
    return store.MADE
