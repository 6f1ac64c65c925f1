"""Maps before and after attacks: recomputed by hand, with noise of equal norm, and proved on loading."""
import numpy as np
import pytest

from helpers import attacks, datasets, explained, gradients, saliency, store, training

RECIPE = training.RECIPES["mnist", "lenet"]


@pytest.mark.parametrize("attack", explained.ATTACKS)
def test_changes_are_those_of_the_maps(lenet, made, attack):
    kept = explained.changes(RECIPE, attack, n=5)
    data = datasets.load("mnist")
    x, y = data.x_test[kept["index"]], data.y_test[kept["index"]]
    assert np.array_equal(kept["y"], y) and len(y) == 5
    x_adv, x_noise = explained.attacked(lenet, x, y, attack, "mnist")
    assert np.array_equal(kept["answer"], gradients.logits(lenet, x_adv).argmax(axis=1))
    np.testing.assert_allclose(kept["l2"], attacks.l2(x_adv - x), rtol=1e-5)
    if attack == "carlini_wagner":
        assert (kept["answer"] != y).all()
    before, after = saliency.grad_cam(lenet, x, y), saliency.grad_cam(lenet, x_adv, kept["answer"])
    np.testing.assert_allclose(kept["grad_cam seen spearman"], saliency.spearman(before, after), atol=1e-4)
    slope = saliency.magnitude(saliency.input_gradient(lenet, x, y))
    np.testing.assert_allclose(kept["gradient energy 0.1"], saliency.energy_share(x_adv - x, slope, 0.1), atol=1e-4)
    again = explained.changes(RECIPE, attack, n=5)
    assert all(np.array_equal(kept[name], again[name], equal_nan=True) for name in kept)
    path, = made.glob("map_changes*.npz")
    np.savez(path, **{name: (value if name == "index" else value[::-1]) for name, value in kept.items()})
    store.write_json(store.record_path(path), store.read_record(path) | {"sha256": store.file_sha256(path)})
    with pytest.raises(ValueError, match="changes of maps of .* are not those that it computes"):
        explained.changes(RECIPE, attack, n=5)


def test_the_noise_is_as_long_as_the_attack(lenet):
    data = datasets.load("mnist")
    x, y = 0.3 + 0.4 * data.x_test[:6], data.y_test[:6]
    x_adv, x_noise = explained.attacked(lenet, x, y, "fgsm", "mnist")
    np.testing.assert_allclose(attacks.l2(x_noise - x), attacks.l2(x_adv - x), rtol=0.02)
    with pytest.raises(ValueError, match="attack must be one of fgsm, pgd_margin, carlini_wagner, got 'noise'"):
        explained.attacked(lenet, x, y, "noise", "mnist")


def test_the_cascade_starts_at_one(lenet):
    kept = explained.cascade(RECIPE, n=4, points=3)
    assert kept["count"].tolist() == [0, 2, 5]
    for method in explained.METHODS:
        np.testing.assert_allclose(kept[method][0], 1, atol=1e-3)
        if method != "integrated":  # which is zero where the image is black, whatever the network
            assert np.nanmean(kept[method][2]) < 0.9
