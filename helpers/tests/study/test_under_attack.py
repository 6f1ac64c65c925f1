"""What is kept of the attacks is proved by the networks, and computed again to the same."""
import dataclasses

import numpy as np
import pytest

from helpers import attacks, datasets, networks
from helpers.artifacts import paths, proofs, store
from helpers.attacks import gradients
from helpers.statistics import intervals
from helpers.study import accuracy, under_attack
from helpers.tests import forgery

LENET, ADVERSARIAL = networks.RECIPES["mnist", "lenet"], networks.ADVERSARIAL["mnist", "lenet"]


def _tamper(made, name, change):
    """Change an artifact's arrays, and its record's digest so that only the content tells."""
    path, = made.rglob(f"{name}-*.npz")
    forgery.arrays(path, change)


@pytest.fixture
def both(made, monkeypatch):
    """The shipped LeNets of MNIST, natural and adversarial, in an otherwise empty store; the first."""
    return forgery.ship(monkeypatch, LENET, ADVERSARIAL)[0]


def _in_record(monkeypatch, **fields):
    """Let the record of MNIST have these fields."""
    monkeypatch.setitem(datasets.RECORDS, "mnist", datasets.record("mnist")._replace(**fields))


def _clean(index):
    """Return what a set holds of images that have hardly been touched."""
    x = datasets.load("mnist").x_test[index]
    x_adv = np.clip(x + np.float32(1e-3), 0, 1)
    return {"x_adv": x_adv, "l2": attacks.l2(x_adv - x)}


def _images(kept):
    return datasets.load("mnist").x_test[kept["index"]]


def _stretched(kept, factor):
    """Return what the set holds with its perturbations so many times as long."""
    x = _images(kept)
    x_adv = np.clip(x + np.float32(factor) * (kept["x_adv"] - x), 0, 1)
    return {"x_adv": x_adv, "l2": attacks.l2(x_adv - x)}


@pytest.mark.parametrize("change", [
    lambda kept: kept.update(x_adv=kept["x_adv"] * 0),
    lambda kept: kept.update(l2=kept["l2"] + 1),
    lambda kept: kept.update(index=kept["index"] + 1),
    lambda kept: kept.update(x_adv=kept["x_adv"] + np.float32(2)),
    lambda kept: kept.update({name: values[:1] for name, values in kept.items()}),
    lambda kept: kept.update(_clean(kept["index"]), y=(kept["y"] + 1) % 10),
    lambda kept: kept.update(x_adv=_images(kept), l2=kept["l2"] * 0),
    lambda kept: kept.update(_stretched(kept, 3)),
    lambda kept: kept.update(_stretched(kept, 1.05)),
    lambda kept: kept.update(_stretched(kept, 0.5)),
], ids=["black", "distance", "other images", "out of the box", "fewer", "clean, of other classes",
        "clean, with no distance", "tripled", "a little longer", "halved"])
def test_tampered_adversarial_images_are_refused(both, made, change):
    first = under_attack.untargeted_set(LENET, n=3)
    again = under_attack.untargeted_set(LENET, n=3)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    _tamper(made, "carlini_wagner", change)
    with pytest.raises(ValueError, match=LENET.filename):
        under_attack.untargeted_set(LENET, n=3)


def _refused(make, what):
    """Assert that what is kept is refused in one of a few loads: the samples are random."""
    with pytest.raises(ValueError, match=f"{what}.*{LENET.filename}"):
        for _ in range(40):
            make()


def _later(answer, y):
    """Return answers of PGD that break each image one radius later, as if the defence were better."""
    return np.concatenate([answer[:1], answer[:1], answer[1:-1]])


FORGED = {
    "nothing breaks": lambda answer, y: np.repeat(answer[:1], len(answer), axis=0),
    "all that an attack leaves right": lambda answer, y: np.where(np.arange(len(answer))[:, None] > 0, y,
                                                                  answer),
    "a radius later": _later,
    "all broken at once": lambda answer, y: np.where(np.arange(len(answer))[:, None] > 0, (y + 1) % 10,
                                                     answer),
    "other answers": lambda answer, y: (answer + 1) % 10,
    "mended by more": lambda answer, y: np.concatenate([answer[:-1], answer[:1]]),
    "no class": lambda answer, y: np.where(answer == y, answer, 11),
    "a radius less": lambda answer, y: answer[:-1],
}


@pytest.mark.parametrize("forged, attack", [  # noise breaks so little that some of them change nothing
    (forged, attack) for forged in FORGED for attack in ("fgsm_margin", "pgd_margin", "noise")
    if attack != "noise" or forged in ("all broken at once", "other answers", "a radius less")])
def test_forged_answers_are_refused(both, made, attack, forged):
    make = lambda: under_attack.answers(LENET, attack, norm=2, n=60)
    make()
    make()  # what has not been changed passes
    _tamper(made, "answers", lambda kept: kept.update(answer=FORGED[forged](kept["answer"], kept["y"])))
    _refused(make, "answers")


def test_answers_swapped_between_two_attacks_are_refused_and_found(both, made):
    makes = [lambda name=name: under_attack.answers(LENET, name, norm=2, n=60)
             for name in ("fgsm_margin", "pgd_margin")]
    one, other = (make() for make in makes)
    keys = [under_attack.answers_key(LENET, name, norm=2, n=60, seed=0)
            for name in ("fgsm_margin", "pgd_margin")]
    first, second = (paths.place(made, f"answers-{store.digest(key)}.npz") for key in keys)
    forgery.arrays(first, lambda kept: kept.update(other))
    forgery.arrays(second, lambda kept: kept.update(one))
    for make in makes:
        _refused(make, "answers")
    forgery.shipped("answers")
    for path in (first, second):
        assert forgery.disagrees(paths.place(paths.SHIPPED, path.name), 12)


def test_a_few_forged_answers_are_found_by_verify(both, made):
    under_attack.answers(LENET, "pgd_margin", norm=np.inf, n=60)

    def change(kept):  # a tenth of those that are broken are not
        rows = np.flatnonzero(kept["answer"][-1] != kept["y"])[::10]
        kept["answer"][:, rows] = kept["y"][rows]
    path, = forgery.shipped("answers")
    assert all(agrees for *_, agrees in forgery.units(path, 12))
    forgery.arrays(path, change)
    assert forgery.disagrees(path, 60)


def test_pgd_is_made_anew_as_it_was(both, made):
    kept = under_attack.answers(LENET, "pgd", norm=np.inf, n=200)
    x = datasets.load("mnist").x_test[:200]
    for k in (2, 3, 4):  # each image starts by its place among those that the smaller radii have left
        left = np.flatnonzero(kept["answer"][k - 1] == kept["y"])
        rows = left[::3]
        again = under_attack.answers_anew(both, x, kept, "pgd", k, rows, norm=np.inf, seed=0)
        assert np.array_equal(again.argmax(axis=1), kept["answer"][k, rows])


def test_targeted_sets_have_every_other_class(both, made):
    kept = under_attack.targeted_set(LENET, per_class=1)
    assert kept["x_adv"].shape == (10, 9, 28, 28, 1) and kept["y"].tolist() == list(range(10))
    answer = gradients.logits(both, kept["x_adv"].reshape(-1, 28, 28, 1)).argmax(axis=1)
    assert np.array_equal(answer.reshape(10, 9), kept["target"])
    assert all(set(row) == set(range(10)) - {y} for row, y in zip(kept["target"], kept["y"]))


def test_tampered_targets_are_refused(both, made, monkeypatch):
    def quick(model, x, y, *, targeted, **more):
        return attacks.pgd(model, x, y, eps=20, eps_iter=1, nb_iter=30, norm=2, targeted=targeted)
    monkeypatch.setattr(attacks, "carlini_wagner", quick)
    under_attack.targeted_set(LENET, per_class=1)

    def change(kept):  # every target is what the network answers already
        clean = _clean(np.repeat(kept["index"], 9))
        kept.update(target=np.repeat(kept["y"][:, None], 9, axis=1), l2=clean["l2"].reshape(-1, 9),
                    x_adv=clean["x_adv"].reshape(kept["x_adv"].shape))
    _tamper(made, "carlini_wagner", change)
    with pytest.raises(ValueError, match=LENET.filename):
        under_attack.targeted_set(LENET, per_class=1)


def test_networks_that_one_name_would_confuse_are_refused(both, made):
    other = dataclasses.replace(LENET, epochs=1, train_size=100, seed=1)
    with pytest.raises(ValueError, match="model.*'lenet', 'lenet'"):
        under_attack.transfer(LENET, [other], n=5)


def test_a_table_counts_the_kept_answers_and_what_breaks_stays_broken(both, made, monkeypatch):
    _in_record(monkeypatch, ladders={np.inf: (0, 0.1, 0.3), 2: (0, 1, 4)})
    table = under_attack.robust_accuracy_table([LENET], n=40)
    for (attack, norm), rows in table.groupby(["attack", "norm"]):
        kept = under_attack.answers(LENET, attack, norm={"L2": 2, "Linf": np.inf}[norm], n=40)
        np.testing.assert_allclose(rows.value, (kept["answer"] == kept["y"]).mean(axis=1), atol=1e-12)
        assert rows.value.is_monotonic_decreasing or not attack.startswith("pgd")
    assert accuracy.intervals_follow(table)


def _clean_logits(kept):
    kept.update({name: kept["none " + name.split(maxsplit=1)[1]] for name in kept if name != "y"})


def _swapped(one, other):
    return lambda kept: kept.update({f"{a} {name}": kept[f"{b} {name}"] for name in ("lenet", "lenet-adv")
                                     for a, b in ((one, other),)})


@pytest.mark.parametrize("change", [
    _clean_logits, _swapped("pgd_margin", "fgsm"), _swapped("fgsm", "noise"), _swapped("noise", "none"),
    lambda kept: kept.update({"pgd_margin lenet-adv": kept["none lenet-adv"]}),
    lambda kept: kept.update({"fgsm lenet": np.full_like(kept["fgsm lenet"], np.nan)}),
    lambda kept: kept.pop("noise lenet"),
], ids=["clean logits", "PGD as FGSM", "FGSM as noise", "noise as nothing", "clean on the other", "NaN",
        "one less"])
def test_forged_transfer_is_refused_and_found(both, made, change):
    make = lambda: under_attack.transfer(LENET, [ADVERSARIAL], n=48)
    make(), make()
    path, = made.rglob("transfer-*.npz")
    forgery.arrays(path, change)
    _refused(make, "transfer")
    assert forgery.disagrees(forgery.shipped("transfer")[0], 12)


@pytest.fixture
def quick(monkeypatch):
    """Searches of few iterations: enough for what is proved of them."""
    monkeypatch.setattr(under_attack, "CARLINI_WAGNER", under_attack.CARLINI_WAGNER | {
        "max_iterations": 60, "binary_search_steps": 2})


@pytest.mark.parametrize("change", [
    lambda kept: kept.update(l2=3 * kept["l2"]), lambda kept: kept.update(l2=0 * kept["l2"]),
    lambda kept: kept.update(l2=np.inf * kept["l2"]),
    lambda kept: kept.update(l2=np.inf * kept["l2"], transferred=np.nan * kept["transferred"]),
    lambda kept: kept.update(l2=kept["l2"][::-1]),
    lambda kept: kept.update(transferred=np.where(np.isnan(kept["transferred"]), 0, np.nan)),
    lambda kept: kept.update(confidence=kept["confidence"][::-1]),
], ids=["tripled", "zero", "never found", "never found nor asked", "shorter for more", "who knew",
        "confidences"])
def test_forged_growth_with_confidence_is_refused(both, made, quick, change):
    make = lambda: under_attack.confidence_growth(LENET, ADVERSARIAL, confidences=[0, 5], n=8)
    make(), make()
    _tamper(made, "confidence", change)
    _refused(make, "distances by confidence")


def test_halved_distances_of_confidence_are_found_by_a_search(both, made, quick):
    under_attack.confidence_growth(LENET, ADVERSARIAL, confidences=[0, 5], n=8)
    path, = forgery.shipped("confidence")
    assert all(agrees for *_, agrees in forgery.units(path, 3))
    forgery.arrays(path, lambda kept: kept.update(l2=kept["l2"] / 2))
    assert forgery.disagrees(path, 3)


def test_longer_perturbations_that_end_at_the_boundary_are_found_by_a_search(both, made, quick):
    kept = under_attack.untargeted_set(LENET, n=4)
    path, = forgery.shipped("carlini_wagner")
    assert all(agrees for *_, agrees in forgery.units(path, 3))
    x, low, high = _images(kept), np.zeros((4, 1, 1, 1), np.float32), np.ones((4, 1, 1, 1), np.float32)
    for _ in range(16):  # towards an image of another class
        middle = (low + high) / 2
        wrong = gradients.logits(both, x + middle * (x[[1, 2, 3, 0]] - x)).argmax(axis=1) != kept["y"]
        low, high = (np.where(wrong[:, None, None, None] == more, side, middle)
                     for more, side in ((True, low), (False, high)))
    x_adv = x + high * (x[[1, 2, 3, 0]] - x)
    assert (attacks.l2(x_adv - x) > 1.2 * kept["l2"]).all()
    forgery.arrays(path, lambda held: held.update(x_adv=x_adv, l2=attacks.l2(x_adv - x)))
    under_attack.untargeted_set(LENET, n=4)  # they are what they claim to be, but no search's
    assert forgery.disagrees(path, 4)


def test_a_failure_that_is_none_is_refused(both, made, quick):
    under_attack.untargeted_set(LENET, n=3)

    def change(kept):
        kept["x_adv"][1], kept["l2"][1] = _images(kept)[1], 0
    _tamper(made, "carlini_wagner", change)
    _refused(lambda: under_attack.untargeted_set(LENET, n=3), "failures of the attack")


def _never(*args, **kwargs):
    raise AssertionError("it was computed again")


def test_fewer_images_are_the_first_of_what_is_kept(both, made, quick, monkeypatch):
    def all_of(n, n_cw, per_class):
        return [*(under_attack.answers(LENET, attack, norm=2, n=n) for attack in ("fgsm", "pgd", "noise")),
                under_attack.transfer(LENET, [ADVERSARIAL], n=n), under_attack.untargeted_set(LENET, n=n_cw),
                under_attack.targeted_set(LENET, per_class=per_class),
                under_attack.confidence_growth(LENET, ADVERSARIAL, confidences=[0], n=n_cw),
                dict(zip(("logits", "y"), accuracy.test_logits(LENET, n)))]
    direct = all_of(20, 2, 1)
    for path in forgery.kept_files(made):
        path.unlink()
    all_of(30, 4, 2)
    monkeypatch.setattr(store, "keep", _never)
    for cut, whole in zip(all_of(20, 2, 1), direct, strict=True):
        assert cut.keys() == whole.keys()
        assert all(np.array_equal(cut[name], whole[name], equal_nan=True) for name in cut)
    with pytest.raises(AssertionError, match="computed again"):  # more than there are
        under_attack.answers(LENET, "noise", norm=2, n=31)


def _keys():
    """Return the keys of all kinds, of one seed and number of images."""
    return {"answers": under_attack.answers_key(LENET, "pgd", norm=2, n=5, seed=0),
            "fgsm": under_attack.answers_key(LENET, "fgsm", norm=2, n=5, seed=0),
            "table": under_attack.robust_accuracy_key([LENET], n=5, seed=0),
            "transfer": under_attack.transfer_key(LENET, [ADVERSARIAL], n=5, seed=0),
            "untargeted": under_attack.untargeted_key(LENET, n=5, confidence=0.0),
            "targeted": under_attack.targeted_key(LENET, per_class=5),
            "confidence": under_attack.confidence_key(LENET, ADVERSARIAL, confidences=[0, 1], n=5),
            "accuracy": accuracy.accuracy_key({LENET: 5})}


@pytest.mark.parametrize("name, value, changes", [
    ("NB_ITER", 41, {"answers", "table", "transfer"}), ("STRIDE", 2.0, {"answers", "table", "transfer"}),
    ("ATTACKS", ("fgsm", "noise"), {"table"}), ("TRANSFERRED", ("fgsm",), {"transfer"}),
    ("LOSSES", under_attack.LOSSES | {"pgd": "margin"}, {"answers", "table"}),
    ("ladders", datasets.record("mnist").ladders | {2: (0, 1)}, {"answers", "fgsm", "table"}),
    ("reference", 0.1, {"transfer"}),
    ("CARLINI_WAGNER", under_attack.CARLINI_WAGNER | {"max_iterations": 10},
     {"untargeted", "targeted", "confidence"}),
    ("AMONG", 1000, {"targeted"}), ("PART", 100, {"accuracy"}),
])
def test_all_that_decides_a_result_is_in_its_key(name, value, changes, monkeypatch):
    before = {kind: store.digest(key) for kind, key in _keys().items()}
    if name in datasets.DataSet._fields:
        _in_record(monkeypatch, **{name: value})
    else:
        monkeypatch.setattr(accuracy if name == "PART" else under_attack, name, value)
    assert {kind for kind, key in _keys().items() if store.digest(key) != before[kind]} == changes


def test_what_is_asked_for_is_in_its_key():
    other = dataclasses.replace(LENET, seed=1)
    keys = [under_attack.answers_key(LENET, "pgd", norm=2, n=5, seed=0),
            under_attack.answers_key(other, "pgd", norm=2, n=5, seed=0),
            under_attack.answers_key(LENET, "pgd_margin", norm=2, n=5, seed=0),
            under_attack.answers_key(LENET, "pgd", norm=np.inf, n=5, seed=0),
            under_attack.answers_key(LENET, "pgd", norm=2, n=6, seed=0),
            under_attack.answers_key(LENET, "pgd", norm=2, n=5, seed=1),
            under_attack.transfer_key(LENET, [ADVERSARIAL], n=5, seed=0),
            under_attack.transfer_key(LENET, [other], n=5, seed=0),
            under_attack.untargeted_key(LENET, n=5, confidence=0.0),
            under_attack.untargeted_key(LENET, n=5, confidence=1.0),
            under_attack.targeted_key(LENET, per_class=5),
            under_attack.robust_accuracy_key([LENET], n=5, seed=0),
            under_attack.robust_accuracy_key([LENET, ADVERSARIAL], n=5, seed=0),
            under_attack.confidence_key(LENET, ADVERSARIAL, confidences=[0], n=5),
            under_attack.confidence_key(LENET, other, confidences=[0], n=5),
            under_attack.confidence_key(LENET, ADVERSARIAL, confidences=[1], n=5)]
    assert len({store.digest(key) for key in keys}) == len(keys)


def test_what_ships_is_found_by_its_key():
    for recipe in (LENET, ADVERSARIAL):
        assert all(store.has("answers", under_attack.answers_key(recipe, attack, norm=norm, n=1000, seed=0))
                   for attack in under_attack.ATTACKS for norm in attacks.NORMS)
        assert store.has("carlini_wagner", under_attack.untargeted_key(recipe, n=200, confidence=0.0))
        assert store.has("carlini_wagner", under_attack.targeted_key(recipe, per_class=5))


def test_rounding_is_no_forgery_and_an_error_is():
    logits = np.float32([[5, 4.995, 0], [5, 4, 0], [0, 9, 8]])
    assert proofs.same_answers([1, 0, 1], logits).tolist() == [True, True, True]
    assert proofs.same_answers([1, 1, 2], logits).tolist() == [True, False, False]
    assert proofs.same_answers([0, 0, 2], logits, attacked=True).tolist() == [True, True, False]
    assert not proofs.same_answers([0, -1, 1], logits).any() and not proofs.same_answers([0], logits).any()
    assert proofs.same_logits(logits + np.float32(0.005), logits).all()
    assert proofs.same_logits(np.where(np.eye(3), np.nan, logits), logits).tolist() == [False] * 3
    assert proofs.agree([True] * 14 + [False] * 2) and not proofs.agree([True] * 13 + [False] * 3)
    assert proofs.agree([]) and not proofs.agree([False])


def test_transfer_counts_only_what_the_victim_had_right():
    logits = np.eye(10, dtype=np.float32)
    y = np.array([0, 1, 2, 4])  # the victim has the first three right
    shared = {"y": y, "none v": logits[[0, 1, 2, 3]], "fgsm v": logits[[1, 1, 3, 5]]}
    share, low, high, n = under_attack.success(shared, "fgsm", "v")
    assert (share, n) == (2 / 3, 3) and (low, high) == intervals.interval(2, 3)


def test_an_unknown_attack_is_named(both):
    data = datasets.load("mnist")
    with pytest.raises(ValueError, match="'deepfool'"):
        under_attack.attacked(both, data.x_test[:2], data.y_test[:2], "deepfool", eps=0.1)
    x_adv = under_attack.attacked(both, data.x_test[:2], data.y_test[:2], "pgd", eps=0.1)
    assert attacks.linf(x_adv - data.x_test[:2]).max() <= 0.1 + 1e-6


def test_what_breaks_stays_broken_and_is_not_attacked_again():
    y, asked = np.arange(6), []

    def hit(rows, eps):
        asked.append((eps, rows.tolist()))
        return np.where((rows < 2 * eps) | (rows == 5), 9, y[rows]) if eps != 2 else y[rows]
    answer = under_attack.nested(hit, (0, 1, 2, 3), y)
    assert answer.dtype == np.int8
    assert asked == [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 1, 2, 3, 4]), (2, [2, 3, 4]), (3, [2, 3, 4])]
    assert answer.tolist() == [[0, 1, 2, 3, 4, 9], [9, 9, 2, 3, 4, 9], [9, 9, 2, 3, 4, 9], [9] * 6]
