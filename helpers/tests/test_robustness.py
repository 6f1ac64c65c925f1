"""What is kept of the attacks is proved by the networks, and computed again to the same."""
import dataclasses

import numpy as np
import pytest

from helpers import attacks, datasets, evaluation, gradients, robustness, store, training

LENET = training.RECIPES["mnist", "lenet"]


def _tamper(made, name, change):
    """Change an artifact's arrays, and its record's digest so that only the content tells."""
    path, = made.glob(f"{name}-*.npz")
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    change(arrays)
    record = store.read_record(path)
    np.savez_compressed(path, **arrays)
    store.write_json(store.record_path(path), record | {"sha256": store.file_sha256(path)})


def _clean(index):
    """Return what a set holds of images that have hardly been touched."""
    x = datasets.load("mnist").x_test[index]
    x_adv = np.clip(x + np.float32(1e-3), 0, 1)
    return {"x_adv": x_adv, "l2": attacks.l2(x_adv - x)}


@pytest.mark.parametrize("change", [
    lambda kept: kept.update(x_adv=kept["x_adv"] * 0),
    lambda kept: kept.update(l2=kept["l2"] + 1),
    lambda kept: kept.update(index=kept["index"] + 1),
    lambda kept: kept.update(x_adv=kept["x_adv"] + np.float32(2)),
    lambda kept: kept.update({name: values[:1] for name, values in kept.items()}),
    lambda kept: kept.update(_clean(kept["index"]), y=(kept["y"] + 1) % 10),
], ids=["black", "distance", "other images", "out of the box", "fewer", "clean, of other classes"])
def test_tampered_adversarial_images_are_refused(lenet, made, change):
    first = robustness.untargeted_set(LENET, n=3)
    again = robustness.untargeted_set(LENET, n=3)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    _tamper(made, "carlini_wagner", change)
    with pytest.raises(ValueError, match=LENET.filename):
        robustness.untargeted_set(LENET, n=3)


def test_tampered_answers_are_refused(lenet, made):
    robustness.answers(LENET, "fgsm", norm=np.inf, n=60)
    _tamper(made, "answers", lambda kept: kept.update(answer=(kept["answer"] + 1) % 10))
    with pytest.raises(ValueError, match=LENET.filename):
        robustness.answers(LENET, "fgsm", norm=np.inf, n=60)


def test_targeted_sets_have_every_other_class(lenet, made):
    kept = robustness.targeted_set(LENET, per_class=1)
    assert kept["x_adv"].shape == (10, 9, 28, 28, 1) and kept["y"].tolist() == list(range(10))
    answer = gradients.logits(lenet, kept["x_adv"].reshape(-1, 28, 28, 1)).argmax(axis=1)
    assert np.array_equal(answer.reshape(10, 9), kept["target"])
    assert all(set(row) == set(range(10)) - {y} for row, y in zip(kept["target"], kept["y"]))


def test_tampered_targets_are_refused(lenet, made, monkeypatch):
    def quick(model, x, y, **more):
        return attacks.pgd(model, x, y, eps=20, eps_iter=1, nb_iter=30, norm=2, **more)
    monkeypatch.setattr(attacks, "carlini_wagner", quick)
    robustness.targeted_set(LENET, per_class=1)

    def change(kept):  # every target is what the network answers already
        clean = _clean(np.repeat(kept["index"], 9))
        kept.update(target=np.repeat(kept["y"][:, None], 9, axis=1), l2=clean["l2"].reshape(-1, 9),
                    x_adv=clean["x_adv"].reshape(kept["x_adv"].shape))
    _tamper(made, "carlini_wagner", change)
    with pytest.raises(ValueError, match=LENET.filename):
        robustness.targeted_set(LENET, per_class=1)


def test_networks_that_one_name_would_confuse_are_refused(lenet, made):
    other = dataclasses.replace(LENET, epochs=1, train_size=100, seed=1)
    with pytest.raises(ValueError, match="model.*'lenet', 'lenet'"):
        robustness.transfer(LENET, [other], n=5)


def test_a_row_is_computed_again_and_what_breaks_stays_broken(lenet, made):
    table = robustness.accuracy_table([LENET], n=40)
    for _, rows in table[table.attack.str.startswith("pgd")].groupby(["attack", "norm"]):
        assert rows.value.is_monotonic_decreasing
    for attack in ("fgsm_margin", "pgd_margin", "noise"):
        row = table[(table.attack == attack) & (table.norm == "Linf") & (table.eps == 0.1)].iloc[0]
        again = robustness.recompute_accuracy(row.to_dict())
        assert row.low <= again <= row.high
        if attack != "pgd_margin":  # of which the smaller radii have their share
            assert again == row.value


def test_transfer_counts_only_what_the_victim_had_right():
    logits = np.eye(10, dtype=np.float32)
    y = np.array([0, 1, 2, 4])  # the victim has the first three right
    shared = {"y": y, "none v": logits[[0, 1, 2, 3]], "fgsm v": logits[[1, 1, 3, 5]]}
    share, low, high, n = robustness.success(shared, "fgsm", "v")
    assert (share, n) == (2 / 3, 3) and (low, high) == evaluation.interval(2, 3)


def test_an_unknown_attack_is_named(lenet):
    data = datasets.load("mnist")
    with pytest.raises(ValueError, match="'deepfool'"):
        robustness.attacked(lenet, data.x_test[:2], data.y_test[:2], "deepfool", eps=0.1)
    x_adv = robustness.attacked(lenet, data.x_test[:2], data.y_test[:2], "pgd", eps=0.1)
    assert attacks.linf(x_adv - data.x_test[:2]).max() <= 0.1 + 1e-6


def test_what_breaks_stays_broken_and_is_not_attacked_again():
    y, asked = np.arange(6), []

    def hit(rows, eps):
        asked.append((eps, rows.tolist()))
        return np.where((rows < 2 * eps) | (rows == 5), 9, y[rows]) if eps != 2 else y[rows]
    answer = robustness.nested(hit, (0, 1, 2, 3), y)
    assert answer.dtype == np.int8
    assert asked == [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 1, 2, 3, 4]), (2, [2, 3, 4]), (3, [2, 3, 4])]
    assert answer.tolist() == [[0, 1, 2, 3, 4, 9], [9, 9, 2, 3, 4, 9], [9, 9, 2, 3, 4, 9], [9] * 6]
