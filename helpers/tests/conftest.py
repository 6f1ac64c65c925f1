import pytest

from helpers import networks
from helpers.artifacts import paths, store
from helpers.study import states
from helpers.tests import forgery
from helpers.tests.shown import RECIPES


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An empty place for artifacts: nothing is read from, or written to, the project's own."""
    monkeypatch.setattr(paths, "MADE", tmp_path / "made")
    monkeypatch.setattr(paths, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(store, "_ledger", [])
    monkeypatch.delenv("FRESH", raising=False)
    return paths.MADE


@pytest.fixture
def lenet(made):
    """The shipped LeNet of MNIST in an otherwise empty store."""
    recipe = networks.RECIPES["mnist", "lenet"]
    for path in (paths.ROOT / "data" / "shipped" / "networks").glob(recipe.filename + "*"):
        forgery.copied(path, paths.SHIPPED)
    return networks.load_or_train(recipe)[0]


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """(folder, states): what the explorer shows of the networks of shown.RECIPES, kept in that folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MADE", tmp_path_factory.mktemp("made"))
        patch.delenv("FRESH", raising=False)
        return paths.MADE, {recipe: states.states(recipe) for recipe in RECIPES}
