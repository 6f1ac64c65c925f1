"""The checks that take minutes: kept by all that decides them, proved as far as they go, made anew."""
import numpy as np
import pandas as pd
import pytest

from helpers import datasets, networks
from helpers.artifacts import store
from helpers.jpeg import attacker
from helpers.study import behind_jpeg, checks, scrutiny, under_attack
from helpers.tests import forgery

LENET, ADVERSARIAL = networks.RECIPES["mnist", "lenet"], networks.ADVERSARIAL["mnist", "lenet"]
SIZES = {"n_check": 4, "few": 1, "seed": 0}


@pytest.fixture
def quick(made, monkeypatch):
    """The shipped LeNets of MNIST in an otherwise empty store, and attacks of few iterations."""
    monkeypatch.setattr(under_attack, "NB_ITER", 3)
    monkeypatch.setattr(under_attack, "CARLINI_WAGNER", under_attack.CARLINI_WAGNER | {"max_iterations": 40})
    monkeypatch.setattr(scrutiny, "SQUARE", 5)
    monkeypatch.setattr(attacker, "NB_ITER", 2)
    forgery.ship(monkeypatch, LENET, ADVERSARIAL)


def _better(found):
    """Every check passes, with the values that it needs for it."""
    best = {"≤": -100.0, "<": 0.0, "≥": 1.0}
    for i, name in enumerate(found["check"]):
        if checks.BOUNDS[name]:
            found["value"][i] = best[checks.BOUNDS[name][0]]
    found["passed"] = np.ones(len(found["passed"]), bool)


@pytest.mark.parametrize("of", [
    lambda **more: scrutiny.of_attacks(LENET, ADVERSARIAL, **SIZES, **more),
    lambda **more: scrutiny.of_jpeg(LENET, n_check=4, seed=0, quality=50, **more)], ids=["attacks", "jpeg"])
def test_checks_are_kept_refused_where_they_do_not_follow_and_made_anew(quick, made, of):
    first = of()
    pd.testing.assert_frame_equal(of(more=checks.monotone([0, 1], [1.0, 0.5])).iloc[:-1], first,
                                  check_dtype=False)
    path, = made.rglob("checks-*.npz")
    kept = store.read(path)
    for change in (lambda found: found.update(passed=~found["passed"]),
                   lambda found: found.update(value=found["value"] + 1e3),
                   lambda found: found.update(threshold=found["threshold"] + 1e3),
                   lambda found: found.update(check=found["check"][::-1]),
                   lambda found: found.update({name: values[:0] for name, values in found.items()})):
        forgery.arrays(path, change)
        with pytest.raises(ValueError, match="do not follow"):
            of()
        forgery.arrays(path, lambda found: found.update(kept))
    path, = forgery.shipped("checks")
    assert all(agrees for *_, agrees in forgery.units(path, 20))
    forgery.arrays(path, _better)
    of()  # these follow from each other
    assert forgery.disagrees(path, 20)
    forgery.arrays(path, lambda found: found.update({name: values[1:] for name, values in kept.items()}))
    assert forgery.disagrees(path, 20)  # one less


def _keys():
    return {"attacks": scrutiny.attacks_key(LENET, ADVERSARIAL, **SIZES),
            "jpeg": scrutiny.jpeg_key(LENET, n_check=4, seed=0, quality=50)}


@pytest.mark.parametrize("module, name, value, changes", [
    (under_attack, "NB_ITER", 41, {"attacks", "jpeg"}), (under_attack, "STRIDE", 2.0, {"attacks", "jpeg"}),
    (under_attack, "ATTACKS", ("fgsm",), {"attacks"}), (datasets, "reference", 0.1, {"attacks"}),
    (under_attack, "CARLINI_WAGNER", {}, {"attacks"}), (scrutiny, "SQUARE", 10, {"attacks"}),
    (datasets, "small", 0.2, {"jpeg"}), (attacker, "NB_ITER", 10, {"jpeg"}),
    (attacker, "STRIDE", 1 / 4, {"jpeg"}), (behind_jpeg, "AWARE", ("identity",), {"jpeg"}),
    (behind_jpeg, "FIXED", (10,), {"jpeg"}),
    (checks, "BOUNDS", checks.BOUNDS | {"masking_loss": ("≤", 9.0)}, {"attacks", "jpeg"}),
])
def test_all_that_decides_checks_is_in_their_keys(monkeypatch, module, name, value, changes):
    before = {kind: store.digest(key) for kind, key in _keys().items()}
    if module is datasets:
        monkeypatch.setitem(datasets.RECORDS, "mnist", datasets.record("mnist")._replace(**{name: value}))
    else:
        monkeypatch.setattr(module, name, value)
    assert {kind for kind, key in _keys().items() if store.digest(key) != before[kind]} == changes


def test_what_ships_is_found_by_its_key():
    rival = networks.RECIPES["mnist", "resnet"]
    assert store.has("checks", scrutiny.attacks_key(LENET, rival, n_check=100, few=scrutiny.FEW, seed=0))
    assert store.has("checks", scrutiny.jpeg_key(LENET, n_check=50, seed=0, quality=50))
