"""`make verify` looks at what ships alone, and finds what was tampered with."""
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from helpers import datasets, networks
from helpers.artifacts import paths, store
from helpers.statistics import intervals
from helpers.study import accuracy, under_attack, verify
from helpers.tests import forgery

LENET, ADVERSARIAL = networks.RECIPES["mnist", "lenet"], networks.ADVERSARIAL["mnist", "lenet"]


@pytest.fixture
def both(made, monkeypatch):
    """The shipped LeNets of MNIST, natural and adversarial, in an otherwise empty store."""
    made.mkdir()
    return forgery.ship(monkeypatch, LENET, ADVERSARIAL)


def test_every_shipped_file_is_as_recorded_and_every_kind_has_its_function():
    found = verify.files()
    assert {verify.kind(path) for path, _ in found} - {"network"} <= set(verify.KINDS)
    read = set(itertools.chain(*verify.READS.values()))
    assert read <= set(verify.KINDS)
    weights = verify.weights(verify.KINDS)
    assert sum(weights.values()) == pytest.approx(1) and all(weight > 0 for weight in weights.values())


@pytest.mark.parametrize("change, told", [
    (lambda path: path.write_bytes(path.read_bytes() + b" "), "is not the file"),
    (lambda path: path.unlink(), "is not there"),
    (lambda path: store.record_path(path).unlink(), "has no record"),
    (lambda path: path.with_suffix(".txt").write_text("x"), "no artifact"),
    (lambda path: [p.rename(p.with_name("answers-0" + p.name[9:])) for p in (store.record_path(path), path)],
     "other parameters"),
], ids=["changed", "lost", "without a record", "strange", "renamed"])
def test_files_that_are_not_as_recorded_are_named(both, change, told):
    under_attack.answers(LENET, "noise", norm=np.inf, n=4)
    path, = forgery.shipped("answers")
    change(path)
    with store.shipped_alone(), pytest.raises(ValueError, match=told):
        verify.files()


@pytest.mark.parametrize("minutes", [0, -1, math.inf, math.nan, "abc", True])
def test_minutes_that_cannot_be_are_refused_by_name(minutes):
    with pytest.raises(ValueError, match=f"MINUTES.*{minutes}"):
        verify.main([str(minutes)])


def test_what_ships_is_read_alone(both, made, monkeypatch, capsys):
    under_attack.answers(LENET, "noise", norm=np.inf, n=20)
    path, = forgery.shipped("answers")
    # These are one's own, and other ones.
    for part in (path, store.record_path(path), *paths.SHIPPED.rglob("network-*")):
        forgery.copied(part, made)
    forgery.arrays(paths.place(made, path.name),
                   lambda arrays: arrays.update(answer=(arrays["answer"] + 1) % 10))
    for name in (LENET.filename, ADVERSARIAL.filename):
        paths.place(made, name).write_bytes(b"another network")
    monkeypatch.setenv("FRESH", "1")
    assert verify.verify(minutes=0.05, seed=1) == 0
    assert capsys.readouterr().out.split("network")[-1].split()[:5] == ["2", "2", "2", "0", "0"]
    assert sorted(p.name for p in forgery.kept_files(made)) == sorted(
        p.name for p in forgery.kept_files(paths.SHIPPED))


def test_nothing_compared_is_no_success(both, capsys):
    for path in paths.SHIPPED.rglob("network-*"):
        path.unlink()
    store.cached("thing", {}, lambda: {"a": np.zeros(1)})
    forgery.shipped("thing")
    assert verify.verify(minutes=0.01) == 1
    said = capsys.readouterr().out
    assert "0 entries were compared" in said and "thing, 1 ×: no function computes this kind again" in said


def test_a_network_that_does_not_ship_is_said(both):
    under_attack.answers(LENET, "noise", norm=np.inf, n=4)
    path, = forgery.shipped("answers")
    for network in paths.SHIPPED.rglob("network-*"):
        network.unlink()
    (what, _, why, agrees), = forgery.units(path, 3)
    assert agrees is None and LENET.filename in why


def test_the_weights_of_another_network_are_found(both, capsys):
    first, second = (paths.place(paths.SHIPPED, recipe.filename) for recipe in (LENET, ADVERSARIAL))
    moved = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(moved)
    forgery.seal(first), forgery.seal(second)
    assert verify.verify(minutes=0.01) == 1
    assert LENET.filename in capsys.readouterr().out


SHORT = datasets.record("mnist")._replace(ladders={np.inf: (0, 0.1, 0.3), 2: (0, 1, 4)})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with a table of accuracies under attack, the answers that it comes from and the network."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.RECORDS, "mnist", SHORT)
        patch.setattr(paths, "MADE", folder)
        patch.delenv("FRESH", raising=False)
        under_attack.robust_accuracy_table([LENET], n=40)
    for path in paths.SHIPPED.rglob(LENET.filename + "*"):
        forgery.copied(path, folder)
    return folder


@pytest.fixture
def table(measured, made, monkeypatch):
    """The path of the table, as if it shipped with all of its folder; it is as it was afterwards."""
    monkeypatch.setitem(datasets.RECORDS, "mnist", SHORT)
    monkeypatch.setattr(paths, "SHIPPED", measured)
    path, = measured.rglob("robust_accuracy-*.csv")
    before = path.read_bytes()
    yield path
    path.write_bytes(before)
    forgery.seal(path)


def _half(rows):
    rows["value"] = 0.5
    rows["low"], rows["high"] = intervals.interval(20, 40)


def _two_images(rows):
    for i in range(len(rows)):
        correct = round(rows.loc[i, "value"] * 40)
        rows.loc[i, "value"] = (correct + (2 if correct < 39 else -2)) / 40
        rows.loc[i, ["low", "high"]] = intervals.interval(round(rows.loc[i, "value"] * 40), 40)


def _swapped(rows):
    one, other = (rows.attack == name for name in ("fgsm", "pgd"))
    columns = ["value", "low", "high"]
    rows.loc[one, columns], rows.loc[other, columns] = (rows.loc[other, columns].to_numpy(),
                                                        rows.loc[one, columns].to_numpy())


@pytest.mark.parametrize("change", [
    lambda rows: rows.__setitem__("value", 0.5), _half, _two_images, _swapped,
    lambda rows: rows.__setitem__("low", rows.low - 0.05), lambda rows: rows.__setitem__("high", 1.0),
    lambda rows: rows.__setitem__("attack", rows.attack.replace({"noise": "pgd", "pgd": "noise"})),
    lambda rows: rows.iloc[:-1],
], ids=["all of .5", ".5 with its interval", "two images off", "attacks swapped", "lower", "higher", "names",
        "a row less"])
def test_a_forged_table_of_accuracies_is_found(table, change):
    assert all(agrees for *_, agrees in forgery.units(table, 5))
    forgery.rows(table, change)
    assert forgery.disagrees(table, 25, seed=3)
    with pytest.raises(ValueError, match="accuracies"):
        for _ in range(20):  # on loading, two of its ten groups are drawn at random
            under_attack.robust_accuracy_table([LENET], n=40)


def test_the_table_of_clean_accuracies_is_found(both):
    measured = {recipe: accuracy.test_logits(recipe, 100) for recipe in (LENET, ADVERSARIAL)}
    accuracy.accuracy_table(measured)
    path, = forgery.shipped("accuracy")
    assert all(agrees for *_, agrees in forgery.units(path, 5))
    forgery.rows(path, lambda rows: rows.__setitem__("value", rows.value - 0.01))
    assert forgery.disagrees(path, 5)


def test_forged_logits_are_found(both):
    accuracy.test_logits(LENET, 200)
    path, = forgery.shipped("logits")
    assert all(agrees for *_, agrees in forgery.units(path, 3))
    forgery.arrays(path, lambda arrays: arrays["logits"].__setitem__(7, -arrays["logits"][7]))
    assert forgery.disagrees(path, 3)


@pytest.fixture
def counted(made):
    """The path of the shipped statistics of MNIST, in an otherwise empty store."""
    paths.SHIPPED.mkdir(parents=True)
    for path in (paths.ROOT / "data" / "shipped").rglob("statistics-*.csv"):
        if "mnist" in path.read_text("utf8"):
            forgery.copied(path, paths.SHIPPED), forgery.copied(store.record_path(path), paths.SHIPPED)
    path, = paths.SHIPPED.rglob("*.csv")
    return path


@pytest.mark.parametrize("split, quantity",
                         [("test", "class 3"), ("test", "mean 0"), ("train", "deviation 0")])
def test_forged_statistics_are_found(counted, split, quantity):
    def change(rows):
        rows.loc[(rows.split == split) & (rows.quantity == quantity), ["value", "low", "high"]] *= 1.01
    datasets.statistics("mnist")
    forgery.rows(counted, change)
    if split == "test":  # on loading, only these
        with pytest.raises(ValueError, match="statistics of mnist"):
            datasets.statistics("mnist")
    assert forgery.disagrees(counted, 2)


def test_intervals_follow_from_values_alone():
    rows = pd.DataFrame({"n": [40, 10], "value": [0.5, 1.0]})
    rows[["low", "high"]] = [intervals.interval(20, 40), intervals.interval(10, 10)]
    assert accuracy.intervals_follow(rows)
    for column, value in (("low", 0.2), ("high", 0.9), ("value", 0.52), ("value", 1.5), ("value", math.nan),
                          ("n", 41)):
        changed = rows.copy()
        changed.loc[0, column] = value
        assert not accuracy.intervals_follow(changed), column


def test_the_chapters_that_read_a_kind_give_it_its_weight(monkeypatch):
    monkeypatch.setattr(verify, "READS", {"1": ("a", "b"), "2": ("b",), "3": ("c",)})
    assert verify.weights(["a", "b", "c"]) == pytest.approx({"a": 0.5 / 3, "b": 1.5 / 3, "c": 1 / 3})
    # No chapter reads z, which counts as a whole one.
    assert verify.weights(["a", "z"]) == pytest.approx({"a": 1 / 3, "z": 2 / 3})


def test_each_kind_has_its_turn_before_any_has_a_second(tmp_path, monkeypatch):
    asked = []

    def function(parameters, kept, rng):
        for turn in itertools.count():
            asked.append(parameters["kind"])
            yield "entry", turn, turn, True
    monkeypatch.setattr(verify, "KINDS", {name: function for name in "abc"})
    monkeypatch.setattr(store, "read", lambda path: None)
    found = [(tmp_path / f"{name}-{i}.npz", {"parameters": {"kind": name}}) for name in "abc"
             for i in range(3)]
    turns = [name for name, _ in itertools.islice(verify.drawn_units(found, np.random.default_rng(0)), 300)]
    assert sorted(turns[:3]) == ["a", "b", "c"] and turns == asked
    assert min(turns.count(name) for name in "abc") > 70
