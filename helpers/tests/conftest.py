import shutil

import pytest

from helpers.artifacts import store
from helpers.networks import training


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An empty place for artifacts: nothing is read from, or written to, the project's own."""
    monkeypatch.setattr(store, "MADE", tmp_path / "made")
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(store, "_ledger", [])
    monkeypatch.delenv("FRESH", raising=False)
    return store.MADE


@pytest.fixture
def lenet(made):
    """The shipped LeNet of MNIST in an otherwise empty store."""
    recipe = training.RECIPES["mnist", "lenet"]
    store.SHIPPED.mkdir(parents=True)
    for path in (store.ROOT / "data" / "shipped").glob(recipe.filename + "*"):
        shutil.copy(path, store.SHIPPED)
    return training.load_or_train(recipe)[0]
