"""Maps before and after attacks: recomputed by hand, with noise of equal norm, and proved on loading."""
import itertools

import numpy as np
import pytest

from helpers import attacks, datasets, networks, saliency
from helpers.artifacts import files, store
from helpers.attacks import gradients
from helpers.networks import batches
from helpers.study import maps

RECIPE = networks.RECIPES["mnist", "lenet"]


@pytest.mark.parametrize("attack", maps.ATTACKS)
def test_changes_are_those_of_the_maps(lenet, made, attack):
    kept = maps.changes(RECIPE, attack, n=5)
    data = datasets.load("mnist")
    x, y = data.x_test[kept["index"]], data.y_test[kept["index"]]
    assert np.array_equal(kept["y"], y) and len(y) == 5
    x_adv, x_noise = maps.attacked_images(lenet, x, y, attack, "mnist")
    assert np.array_equal(kept["answer"], gradients.logits(lenet, x_adv).argmax(axis=1))
    np.testing.assert_allclose(kept["l2"], attacks.l2(x_adv - x), rtol=1e-5)
    if attack == "carlini_wagner":
        assert (kept["answer"] != y).all()
    before, after = saliency.grad_cam(lenet, x, y), saliency.grad_cam(lenet, x_adv, kept["answer"])
    np.testing.assert_allclose(kept["grad_cam seen spearman"], saliency.spearman(before, after), atol=1e-4)
    slope = saliency.magnitude(saliency.input_gradient(lenet, x, y))
    np.testing.assert_allclose(kept["gradient energy 0.1"], saliency.energy_share(x_adv - x, slope, 0.1),
                               atol=1e-4)
    again = maps.changes(RECIPE, attack, n=5)
    assert all(np.array_equal(kept[name], again[name], equal_nan=True) for name in kept)
    fewer = maps.changes(RECIPE, attack, n=4)
    path, = made.rglob("map_changes*.npz")  # nothing else was computed
    assert all(np.array_equal(fewer[name], kept[name][:4], equal_nan=True) for name in kept)
    # Each of these is a measure by itself.
    for column in ("grad_cam true spearman", "gradient seen divergence", "grad_cam energy 0.1"):
        _, outcomes = _forged(path, maps.recompute_map_changes, kept,
                              kept | {column: 0.01 + 0 * kept[column]})
        assert not all(outcomes[1])
    forged = {name: value if name in ("index", "y", "x_adv", "x_noise")
              else np.concatenate([value[:3], value[3:] * 0 + 1])
              for name, value in kept.items()}  # but for the three whose images are kept
    parameters, outcomes = _forged(path, maps.recompute_map_changes, kept, forged)
    assert all(outcomes[0]) and not all(outcomes[1])
    if attack == "fgsm":
        _forged(path, maps.recompute_map_changes, kept, {
            name: value if name == "index" else value[::-1] for name, value in kept.items()})
        with pytest.raises(ValueError, match="changes of maps of .* are not those that it computes"):
            maps.changes(RECIPE, attack, n=5)


def _forged(path, recompute, kept, forged):
    """Keep forged arrays with a record that says so; return the parameters, and what recompute says."""
    np.savez(path, **forged)
    record = store.read_record(path)
    files.write_json(store.record_path(path), record | {"sha256": store.file_sha256(path)})
    return record["parameters"], [[agrees for *_, agrees in itertools.islice(
        recompute(record["parameters"], arrays, np.random.default_rng(0)), 20)] for arrays in (kept, forged)]


def test_the_noise_is_as_long_as_the_attack(lenet):
    data = datasets.load("mnist")
    x, y = 0.3 + 0.4 * data.x_test[:6], data.y_test[:6]
    x_adv, x_noise = maps.attacked_images(lenet, x, y, "fgsm", "mnist")
    np.testing.assert_allclose(attacks.l2(x_noise - x), attacks.l2(x_adv - x), rtol=0.02)
    with pytest.raises(ValueError,
                       match="attack must be one of fgsm, pgd_margin, carlini_wagner, got 'noise'"):
        maps.attacked_images(lenet, x, y, "noise", "mnist")


def test_the_cascade_starts_at_one(lenet, made):
    kept = maps.cascade(RECIPE, n=4, points=3)
    assert kept["count"].tolist() == [0, 2, 5]
    for method in maps.METHODS:
        np.testing.assert_allclose(kept[method][0], 1, atol=1e-3)
        if method != "integrated":  # which is zero where the image is black, whatever the network
            assert np.nanmean(kept[method][2]) < 0.9
    path, = made.rglob("map_cascade*.npz")
    assert np.array_equal(maps.cascade(RECIPE, n=3, points=3)["smooth"], kept["smooth"][:, :3])
    for method in ("gradient", "smooth"):
        _, outcomes = _forged(path, maps.recompute_map_cascade, kept, kept | {method: 1 - kept[method]})
        assert all(outcomes[0]) and not all(outcomes[1])
    _forged(path, maps.recompute_map_cascade, kept, kept | {"gradient": kept["gradient"] - 0.5})
    with pytest.raises(ValueError, match="maps of random networks of .* are not those that it computes"):
        maps.cascade(RECIPE, n=4, points=3)


@pytest.mark.parametrize("dataset", datasets.NAMES)
def test_maps_of_other_labels_are_those_of_the_networks(made, dataset):
    small = {"epochs": 1, "train_size": 200}
    kept = maps.learnt_labels(dataset, n=4, **small)
    data = datasets.load(dataset)
    told, other = (networks.load_or_train(maps.memorising_recipe(dataset, label_noise=noise, **small))[0]
                   for noise in (0.0, 0.9))
    computed = [saliency.grad_cam(model, data.x_test[:4], data.y_test[:4]) for model in (told, other)]
    np.testing.assert_allclose(kept["grad_cam"][1], saliency.spearman(*computed), atol=1e-4)
    assert kept["train_accuracy"].shape == (3,) and len(list(made.rglob("network-*.keras"))) == 3
    assert maps.learnt_labels(dataset, n=4, **small)["gradient"].tolist() == kept["gradient"].tolist()
    path, = made.rglob("map_labels*.npz")
    assert np.array_equal(maps.learnt_labels(dataset, n=3, **small)["smooth"], kept["smooth"][:, :3])
    for name in ("train_accuracy", "gradient"):
        _, outcomes = _forged(path, maps.recompute_map_labels, kept, kept | {name: kept[name] + 0.1})
        assert all(outcomes[0]) and not all(outcomes[1])
        with pytest.raises(ValueError, match="maps of learnt labels of .* are not those that it computes"):
            maps.learnt_labels(dataset, n=4, **small)


def test_random_labels_say_nothing():
    y = np.repeat(np.arange(10), 2000)
    told = batches.mislabelled(y, maps.random_share("mnist"), 0)
    for k in range(10):
        assert np.allclose(np.bincount(told[y == k], minlength=10) / 2000, 0.1, atol=0.03)


def test_readable_gradients(lenet):
    kept = maps.gradient_likeness(RECIPE, n=6)
    data = datasets.load("mnist")
    x, y = data.x_test[:6], data.y_test[:6]
    g = saliency.input_gradient(lenet, x, y)
    for i in range(6):
        assert kept["cosine"][i] == pytest.approx(abs(np.corrcoef(x[i].ravel(), g[i].ravel())[0, 1]),
                                                  abs=1e-5)
        power = np.abs(np.fft.fftshift(np.fft.fft2(g[i, :, :, 0]))) ** 2
        at = np.fft.fftshift(np.fft.fftfreq(28))
        assert kept["high"][i] == pytest.approx(power[np.hypot(at[:, None], at) > 0.25].sum() / power.sum(),
                                                abs=1e-5)


def test_a_tale_turns_one_class_into_another_and_draws_its_way(lenet, made):
    kept = maps.made_into(RECIPE, 3, 8, n=4)
    data = datasets.load("mnist")
    x = data.x_test[kept["index"]]
    assert (data.y_test[kept["index"]] == 3).all() and (gradients.logits(lenet, x).argmax(axis=1) == 3).all()
    assert (gradients.logits(lenet, kept["near"]).argmax(axis=1) == 8).all()
    assert attacks.linf(kept["step"] - x).max() <= data.record.small + 1e-6
    assert attacks.l2(kept["near"] - x).max() < attacks.l2(data.x_test[data.y_test == 8][:1] - x).min()
    cosines = maps.cosine_to_classes(RECIPE, 3, 8, n=4)
    mean = data.x_train[data.y_train == 8].mean(axis=0)
    one, two = (kept["near"] - x)[1].ravel(), (mean - x[1]).ravel()
    np.testing.assert_allclose(cosines[1, 8], one @ two / np.linalg.norm(one) / np.linalg.norm(two),
                               atol=1e-5)
    assert cosines.shape == (4, 10) and np.nanmax(np.abs(cosines)) <= 1
    path, = made.rglob("made_into*.npz")
    assert np.array_equal(maps.made_into(RECIPE, 3, 8, n=3)["near"], kept["near"][:3])
    other = data.x_test[data.y_test == 8][:4]  # images of the target class: but not the nearest
    for forged in ({"near": np.clip(x + 1e-3, 0, 1)}, {"near": other}, {"step": x}):
        _, outcomes = _forged(path, maps.recompute_made_into, kept, kept | forged)
        assert all(outcomes[0]) and not all(outcomes[1])
        with pytest.raises(ValueError, match="targeted images of .* are not those"):
            maps.made_into(RECIPE, 3, 8, n=4)


def test_all_that_decides_maps_is_in_their_keys(made, lenet, monkeypatch):
    def count():
        maps.changes(RECIPE, "fgsm", n=3)
        maps.cascade(RECIPE, n=2, points=2)
        return len(list(made.rglob("map_changes-*.npz"))), len(list(made.rglob("map_cascade-*.npz")))

    assert count() == (1, 1)
    monkeypatch.setitem(maps.SETTINGS, "smooth", {"draws": 2})
    assert count() == (1, 2)
    monkeypatch.setattr(maps, "SHOWN", ("gradient",))
    assert count() == (2, 2)
    monkeypatch.setitem(datasets.RECORDS, "mnist", datasets.record("mnist")._replace(small=0.05))
    assert count() == (3, 2)
    monkeypatch.setattr(maps, "MEASURES", {"ssim": saliency.ssim})
    assert count() == (4, 2)
