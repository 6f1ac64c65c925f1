"""What is kept of networks behind JPEG is what they answer."""
import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks, datasets, defense, evaluation, gradients, jpeg, robustness, store, training

RECIPE = training.RECIPES["mnist", "lenet"]
N = 20


@pytest.fixture
def case(lenet):
    data = datasets.load("mnist")
    return lenet, data.x_test[:N], data.y_test[:N]


@pytest.fixture
def short(monkeypatch):
    """Shorter ladders and attacks; everything goes to the test's own folder."""
    monkeypatch.setattr(robustness, "NB_ITER", 5)
    monkeypatch.setitem(robustness.LADDERS, ("mnist", np.inf), (0, 0.1, 0.3))
    monkeypatch.setitem(defense.LADDERS, "mnist", (0, 0.1, 0.3))
    monkeypatch.setitem(defense.RADII, "mnist", (0, 0.1, 0.3))
    monkeypatch.setattr(defense, "DRAWS", 2)
    monkeypatch.setattr(defense, "NB_ITER", 10)


def _behind(model, x, quality):
    return gradients.logits(model, jpeg.compress(x, quality) if quality else x).argmax(axis=1)


def test_clean_and_blind_answers_are_those_behind_the_real_codec(short, case):
    model, x, y = case
    kept = defense.clean(RECIPE, n=N)
    for quality, answer in zip(kept["quality"], kept["answer"], strict=True):
        assert np.array_equal(answer, _behind(model, x, int(quality)))
    kept = defense.blind(RECIPE, "fgsm", norm=np.inf, n=N)
    x_adv = robustness.attacked(model, x, y, "fgsm", eps=0.3)
    for quality, answer in zip(kept["quality"], kept["answer"][2], strict=True):
        assert np.array_equal(answer, _behind(model, x_adv, int(quality)))
    assert np.array_equal(kept["answer"][0, 0], _behind(model, x, 0))


@pytest.mark.parametrize("how", defense.AWARE)
def test_what_the_aware_attacker_broke_stays_broken(short, case, how):
    model, x, y = case
    kept = defense.aware(RECIPE, how, 50, n=N)
    right = kept["answer"] == y
    assert np.array_equal(kept["answer"][0], _behind(model, x, 50))
    assert (right[1:] <= right[:-1]).all() and right[-1].mean() < right[0].mean()
    blind = defense.blind(RECIPE, "pgd_margin", norm=np.inf, n=N)["answer"]
    column = defense.QUALITIES.index(50)
    assert right[-1].sum() <= (blind[-1, column] == y).sum()


@pytest.mark.parametrize("attacker", ["blind", "one identity", "mixed differentiable"])
def test_draws_differ_and_repeat(short, case, attacker):
    model, x, y = case
    kept = defense.drawn(RECIPE, attacker, n=N)
    assert kept["image"].shape == kept["block"].shape == (3, 2, N)
    assert np.mean(kept["image"][0] == y) > 0.9 and np.mean(kept["block"][0] == y) > 0.9
    assert np.mean(kept["image"][2] == y) < 0.9
    again = defense.drawn(RECIPE, attacker, n=N)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    with pytest.raises(ValueError, match="attacker must be one of blind, one identity, .*, got 'all'"):
        defense.drawn(RECIPE, "all", n=N)


def test_distances_are_found_where_the_network_behind_jpeg_is_right(case):
    few = defense.distances(RECIPE, 25, n=4)
    assert np.array_equal(few["answer"], few["y"]) and (few["l2"] > 0).all() and np.isfinite(few["l2"]).all()


def test_quality_0_is_the_network_alone(short, case):
    model, x, y = case
    kept = defense.aware(RECIPE, "identity", 0, n=N)
    assert np.array_equal(kept["answer"][0], gradients.logits(model, x).argmax(axis=1))
    x_adv = defense.pgd(model, x, y, eps=0.1, seed=0)
    broken = (gradients.logits(model, x_adv).argmax(axis=1) != y) & (kept["answer"][0] == y)
    assert np.array_equal(kept["answer"][1] != y, broken | (kept["answer"][0] != y))


def test_a_perturbation_is_lengthened_until_the_real_codec_lets_it_through(case):
    model, x, y = case
    short = x + np.float32(0.5) * (attacks.pgd(model, x, y, eps=0.3, eps_iter=0.02, nb_iter=20, seed=0) - x)
    l2 = defense._reach(model, x, short, y, 25)
    found = np.isfinite(l2)
    assert found.any() and (l2[found] >= attacks.l2(short - x)[found] - 1e-4).all()
    longest = np.clip(x + 4 * (short - x), 0, 1)
    assert (_behind(model, longest, 25)[~found] == y[~found]).all()
    assert np.isinf(defense._reach(model, x, x, y, 25)).all()


def test_an_artifact_of_another_network_is_refused(made, short, case):
    kept = defense.clean(RECIPE, n=N)
    path, = made.glob("jpeg_clean*.npz")
    record = store.read_record(path)
    wrong = kept | {"answer": (kept["answer"] + 1) % 10}
    store.write(path, lambda partial: np.savez_compressed(partial, **wrong), record["parameters"], 1.0)
    with pytest.raises(ValueError, match="are not those that it gives: delete the artifact"):
        defense.clean(RECIPE, n=N)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_confined_step_has_its_norm_and_keeps_to_its_coefficients(name):
    x = (0.25 + 0.5 * datasets.load(name).x_test[:5]).astype(np.float32)
    weights = np.random.default_rng(0).normal(0, 1, (x[0].size, 10)).astype(np.float32)
    model = lambda images: tf.reshape(images, (-1, len(weights))) @ weights
    y = gradients.logits(model, x).argmax(axis=1)
    passing = [np.zeros((8, 8), np.float32) for _ in range(1 if name == "mnist" else 3)]
    passing[0][:2, :2] = 1
    x_adv = defense.confined(model, x, y, passing, eps=0.05)
    np.testing.assert_allclose(attacks.l2(x_adv - x), 0.05, rtol=1e-3)
    luma = jpeg.coefficients(x_adv - x)[0][:, :3, :3]
    assert np.abs(luma[..., 2:, :]).max() < 1e-3 * np.abs(luma[..., :2, :2]).max()
    before, after = (evaluation.margins(gradients.logits(model, images), y) for images in (x, x_adv))
    assert (after < before).all()
