"""FGSM, PGD and the control, against NumPy on models that can be solved by hand."""
import functools
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks
from helpers.attacks import gradients
from helpers.networks import models

# The door of the room hands on the function of this name, not the module.
SEARCH = importlib.import_module("helpers.attacks.carlini_wagner")
N, SHAPE, CLASSES = 20, (6, 6, 3), 4
NORMS, LOSSES = attacks.NORMS, ("cross_entropy", "margin")
PGD = {"eps": 0.2, "eps_iter": 0.05, "nb_iter": 8}
CALLS = {"fgsm": functools.partial(attacks.fgsm, eps=0.2), "pgd": functools.partial(attacks.pgd, **PGD),
         "carlini_wagner": functools.partial(attacks.carlini_wagner, max_iterations=20,
                                             binary_search_steps=2)}


def _linear(classes=CLASSES, scale=1.0, seed=0, shape=SHAPE):
    """Return (model, W): logits are `scale` times the sums of W (H, W, C, classes) times the image."""
    weights = np.random.default_rng(seed).normal(0, 0.1, (*shape, classes)).astype(np.float32)
    return lambda x: scale * tf.tensordot(x, tf.constant(weights), 3), weights.astype(np.float64)


def _curved(seed=0):
    """Return a model with a hidden layer."""
    rng = np.random.default_rng(seed)
    first = tf.constant(rng.normal(0, 0.4, (np.prod(SHAPE), 16)), tf.float32)
    second = tf.constant(rng.normal(0, 1, (16, CLASSES)), tf.float32)
    return lambda x: tf.tanh((tf.reshape(x, (-1, first.shape[0])) - 0.5) @ first) @ second


def _images(n=N, low=0.0, high=1.0):
    x = np.random.default_rng(1).uniform(low, high, (n, *SHAPE)).astype(np.float32)
    if (low, high) == (0, 1):
        x[:n // 4] = np.round(x[:n // 4])  # at the edges of the box, as in MNIST
    return x


def _answers(model, x):
    return gradients.logits(model, x).argmax(axis=1)


def _F(model, x, y):
    return gradients.margins(gradients.logits(model, x), y)


def _norms(x_adv, x, norm):
    return np.linalg.norm((x_adv.astype(np.float64) - x).reshape(len(x), -1), norm, axis=1)


def _slope(W, x, y, loss):
    """Return the gradient of the loss by x on the linear model W, by hand, in float64."""
    z, rows = np.einsum("nhwc,hwck->nk", x.astype(np.float64), W), np.arange(len(y))
    if loss == "cross_entropy":
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        p[rows, y] -= 1
        return np.einsum("hwck,nk->nhwc", W, p)
    z[rows, y] = -np.inf
    return np.moveaxis(W[..., z.argmax(axis=1)] - W[..., y], -1, 0)


class _Counting:
    """A model that counts how often Python runs it, and how many images pass through it.

    `during` leaves out the door's own look at it (gradients.checked).
    """

    def __init__(self, model):
        self.model, self.runs, self.images = model, 0, tf.Variable(0)

    def __call__(self, x):
        self.runs += 1
        self.images.assign_add(tf.shape(x)[0])
        return self.model(x)

    def during(self, attack, doors=1):
        """Return (result, runs, images) of attack(), which passes so many doors."""
        runs, images = self.runs + doors, self.images.numpy() + gradients.ROWS * doors
        return attack(), self.runs - runs, self.images.numpy() - images


# FGSM

@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_exact_on_a_linear_model(norm, loss, targeted):
    model, W = _linear()
    x = _images()
    y = (_answers(model, x) + targeted) % CLASSES
    g = (-1 if targeted else 1) * _slope(W, x, y, loss)
    unit = np.sign(g) if norm == np.inf else g / np.linalg.norm(g.reshape(N, -1), axis=1)[:, None, None, None]
    for eps in (0.01, 0.3, 1.0):
        x_adv = attacks.fgsm(model, x, y, eps=eps, norm=norm, loss=loss, targeted=targeted)
        assert x_adv.dtype == np.float32
        np.testing.assert_allclose(x_adv, np.clip(x + eps * unit, 0, 1), atol=2e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_sequence_of_eps_is_as_each_by_itself_and_costs_one_gradient(norm):
    model, x, eps = _Counting(_curved()), _images(32), [0, 0.05, 0.3, 1.0]
    y = _answers(model, x)
    single = [attacks.fgsm(model, x, y, eps=value, norm=norm) for value in eps]
    for sequence in (eps, tuple(eps), np.array(eps)):
        together, runs, images = model.during(lambda: attacks.fgsm(model, x, y, eps=sequence, norm=norm))
        assert together.shape == (4, *x.shape) and np.array_equal(together, single)
        assert (runs, images) == (0, 32)
    assert attacks.fgsm(model, x, y, eps=[0.1], norm=norm).shape == (1, *x.shape)


def test_other_settings_and_sizes_trace_nothing_anew():
    model, x = _Counting(_curved()), _images(64)
    y = _answers(model, x)
    for size in (16, 32):  # of the batch: the second is generalised to all
        attacks.fgsm(model, x[:size], y[:size], eps=0.1)
        attacks.pgd(model, x[:size], y[:size], **PGD)
    for size, eps in ((64, 0.2), (5, 1.0), (48, 0.0)):
        def both():
            attacks.fgsm(model, x[:size], y[:size], eps=eps)
            attacks.pgd(model, x[:size], y[:size], eps=eps, eps_iter=eps / 3, nb_iter=3, seed=size)
        _, runs, images = model.during(both, doors=2)
        filled = -(-size // 16) * 16
        assert (runs, images) == (0, filled + 4 * filled)


@pytest.mark.parametrize("scale", [1e-9, 1e-17])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_tiny_gradient_does_not_shorten_the_l2_step(loss, scale):
    """cleverhans takes |g|² for at least 1e-12, and a step of norm eps · |g| · 1e6 below that."""
    x = _images(low=0.4, high=0.6)
    tiny, (model, _) = _linear(scale=scale)[0], _linear(scale=1e-3)
    y = _answers(model, x)
    for call in (functools.partial(attacks.fgsm, eps=0.1),
                 functools.partial(attacks.pgd, eps=0.1, eps_iter=0.1, nb_iter=20)):
        x_adv = call(tiny, x, y, norm=2, loss=loss)
        np.testing.assert_allclose(_norms(x_adv, x, 2), 0.1, atol=1e-6)
        np.testing.assert_allclose(x_adv, call(model, x, y, norm=2, loss=loss), atol=1e-3)


@pytest.mark.filterwarnings("ignore::helpers.attacks.gradients.ZeroGradient")  # which is what is shown
@pytest.mark.parametrize("norm", NORMS)
def test_a_masked_model_hides_the_cross_entropy_and_not_the_margin(norm):
    """Logits times 100 change no answer, but in float32 the softmax of a margin above 104 is exact."""
    model, _ = _linear()
    masked = lambda x: 100 * model(x)
    x, y = _clear(model, 1.1)
    fgsm = functools.partial(attacks.fgsm, x=x, y=y, eps=0.1, norm=norm)
    assert np.array_equal(fgsm(masked), x) and not np.array_equal(fgsm(model), x)
    np.testing.assert_allclose(fgsm(masked, loss="margin"), fgsm(model, loss="margin"), atol=1e-6)
    pgd = functools.partial(attacks.pgd, x=x, y=y, eps=0.5 if norm == 2 else 0.05, eps_iter=0.05,
                            nb_iter=20, norm=norm, loss="margin")
    np.testing.assert_allclose(_F(model, pgd(masked), y), _F(model, pgd(model), y), atol=1e-4)


def _clear(model, least):
    x = _images(400)
    y = _answers(model, x)
    clear = np.flatnonzero(_F(model, x, y) > least)[:N]
    assert len(clear) == N
    return x[clear], y[clear]


# PGD

@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm, eps",
                         [*((norm, eps) for norm in NORMS for eps in (0.0, 1e-3, 0.1, 1.0)), (2, 5.0)])
def test_pgd_stays_in_ball_and_box(norm, eps, targeted):
    model, x = _CURVED, np.concatenate([_images(), _images(low=0.45, high=0.55)])
    y = (_answers(model, x) + targeted) % CLASSES
    for nb_iter, loss in ((1, "cross_entropy"), (10, "margin")):
        x_adv = attacks.pgd(model, x, y, eps=eps, eps_iter=eps / 2, nb_iter=nb_iter, norm=norm,
                            targeted=targeted, loss=loss)
        assert x_adv.dtype == np.float32 and x_adv.min() >= 0 and x_adv.max() <= 1
        assert _norms(x_adv, x, norm).max() <= eps + 1e-6


_CURVED = _curved()  # one, so that it is compiled once


def _lowest(w, x, eps, norm):
    """Return the smallest sum of w · delta with delta in the ball and x + delta in the box, by hand."""
    w = w.reshape(len(x), -1)
    low, high = -x.reshape(len(x), -1).astype(np.float64), 1 - x.reshape(len(x), -1).astype(np.float64)
    if norm == np.inf:
        return (w * np.clip(-eps * np.sign(w), low, high)).sum(axis=1)
    small, large = np.zeros((len(x), 1)), np.full((len(x), 1), 1e6)
    for _ in range(100):  # the optimum is -t · w, clipped, for the t that makes its norm eps
        t = (small + large) / 2
        inside = np.linalg.norm(np.clip(-t * w, low, high), axis=1, keepdims=True) <= eps
        small, large = np.where(inside, t, small), np.where(inside, large, t)
    return (w * np.clip(-small * w, low, high)).sum(axis=1)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm, eps", [(np.inf, 0.05), (np.inf, 0.4), (2, 0.3), (2, 2.0)])
def test_pgd_reaches_the_optimum_of_a_linear_model(norm, eps, box):
    model, W = _linear(classes=2)
    x = _images() if box else _images(low=0.45, high=0.55)
    y = _answers(model, x)
    F = _F(model, x, y)
    lowest = F + _lowest(np.moveaxis(W[..., y] - W[..., 1 - y], -1, 0), x, eps, norm)
    for loss in LOSSES:
        x_adv = attacks.pgd(model, x, y, eps=eps, eps_iter=eps / 10, nb_iter=100, norm=norm, loss=loss)
        found = _F(model, x_adv, y)
        assert (found >= lowest - 1e-5).all()
        np.testing.assert_allclose(found, lowest, atol=(1e-5 if norm == np.inf else 0.01 * (F - lowest)).max()
                                   if norm == 2 else 1e-5)


@pytest.mark.parametrize("norm, eps", [(np.inf, 0.1), (2, 1.0)])
def test_targeted_pgd_brings_the_target_up(norm, eps):
    model, x = _CURVED, _images()
    y = (_answers(model, x) + 1) % CLASSES
    before, step = _F(model, x, y), attacks.fgsm(model, x, y, eps=eps, norm=norm, targeted=True)
    x_adv = attacks.pgd(model, x, y, eps=eps, eps_iter=eps / 5, nb_iter=20, norm=norm, targeted=True)
    after = _F(model, x_adv, y)
    assert (after > before).all() and np.mean(after >= _F(model, step, y) - 1e-5) >= 0.95


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm, eps", [(np.inf, 0.1), (2, 1.0)])
def test_pgd_leaves_no_larger_margin_than_fgsm(norm, eps, loss):
    model, x = _CURVED, _images(200)
    y = _answers(model, x)
    step = attacks.fgsm(model, x, y, eps=eps, norm=norm, loss=loss)
    x_adv = attacks.pgd(model, x, y, eps=eps, eps_iter=eps / 10, nb_iter=40, norm=norm, loss=loss)
    assert np.mean(_F(model, x_adv, y) <= _F(model, step, y) + 1e-5) >= 0.99


def test_pgd_returns_the_best_iterate_not_the_last():
    """On z = (0, |x - 1/2| - 1/4) long steps jump over the minimum; the start is as good as any."""
    model = lambda x: tf.stack([0 * x[:, 0, 0, 0], 0.25 - tf.abs(x[:, 0, 0, 0] - 0.5)], axis=1)
    x, y = np.full((16, 1, 1, 1), 0.5, np.float32), np.ones(16, int)
    start = attacks.pgd(model, x, y, eps=0.1, eps_iter=0.0, nb_iter=1)
    scores = [_F(model, attacks.pgd(model, x, y, eps=0.1, eps_iter=0.15, nb_iter=k), y) for k in (1, 2, 5)]
    assert (scores[0] <= _F(model, start, y)).all()
    assert all((later <= earlier).all() for earlier, later in zip(scores, scores[1:]))
    other = np.zeros(16, int)  # whose margin the iterates of large |x - 1/2| would raise
    found = attacks.pgd(model, x, other, eps=0.2, eps_iter=0.15, nb_iter=4)
    assert (_F(model, found, other) <= _F(model, attacks.pgd(
        model, x, other, eps=0.2, eps_iter=0.0, nb_iter=1), other)).all()


def test_more_restarts_never_leave_more_images_right():
    model, x = _CURVED, _images(200)
    y = _answers(model, x)
    once, *more = (attacks.pgd(model, x, y, eps=0.05, eps_iter=0.03, nb_iter=2, restarts=restarts)
                   for restarts in (1, 2, 5))
    broken = _F(model, once, y) < 0
    assert 0.1 < broken.mean() < 0.9
    F = _F(model, once, y)
    for x_adv in more:
        assert np.array_equal(x_adv[broken], once[broken])
        assert (_F(model, x_adv, y) <= F + 1e-6).all()
        F = _F(model, x_adv, y)
    assert F.mean() < _F(model, once, y).mean() - 0.01


@pytest.mark.filterwarnings("ignore::helpers.attacks.gradients.ZeroGradient")  # of the first 32
def test_a_restart_runs_only_on_the_images_left():
    """The first 32 have a margin that no eps breaks; the other 96 are broken at once."""
    plain, _ = _linear(classes=2)
    model = _Counting(lambda x: plain(x) + tf.stack([1e3 * tf.round(x[:, 0, 0, 0]), 0 * x[:, 0, 0, 0]], 1))
    x = _images(128, low=0.45, high=0.49)
    x[:32, 0, 0, 0] = 1.0
    y = np.where(np.arange(128) < 32, 0, _answers(plain, x))
    attack = functools.partial(attacks.pgd, model, x, y, eps=0.4, eps_iter=0.1, nb_iter=9)
    attack()
    images = [model.during(functools.partial(attack, restarts=k))[2] for k in (1, 2, 4)]
    assert images == [10 * 128, 10 * (128 + 32), 10 * (128 + 3 * 32)]
    done = x[32:], y[32:]
    assert model.during(lambda: attacks.pgd(model, *done, eps=0.4, eps_iter=0.1, nb_iter=9,
                                            restarts=9))[2] == 10 * 96


@pytest.mark.parametrize("norm", NORMS)
def test_seeds_matter_and_are_reproducible(norm):
    model, x = _CURVED, _images()
    y = _answers(model, x)
    attack = functools.partial(attacks.pgd, model, x, y, norm=norm, **PGD)
    assert np.array_equal(attack(seed=3), attack(seed=3))
    assert np.array_equal(attack(), attack(seed=0))
    assert not np.array_equal(attack(seed=3), attack(seed=4))


@pytest.mark.parametrize("norm", NORMS)
def test_the_start_is_uniform_in_the_ball_and_of_each_image_alone(norm):
    """eps_iter=0 shows it. In D dimensions the radius to the power D is uniform."""
    shape = (2, 2, 1)
    model = _linear(classes=2, shape=shape)[0]
    x, y = np.full((4000, *shape), 0.5, np.float32), np.zeros(4000, int)
    attack = functools.partial(attacks.pgd, model, eps=0.25, eps_iter=0.0, nb_iter=1, norm=norm)
    delta = (attack(x, y) - x) / 0.25
    radius = _norms(delta, 0 * delta, norm) ** 4
    assert np.abs(np.quantile(radius, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.03
    assert np.abs(delta.mean(axis=0)).max() < 0.03 and 0.97 < radius.max() <= 1 + 1e-5
    assert np.abs(np.corrcoef(delta.reshape(4000, -1).T) - np.eye(4)).max() < 0.06
    assert np.array_equal(attack(x[:50], y[:50]), attack(x, y)[:50])
    assert not np.array_equal(attack(x, y, seed=1), attack(x, y))


POSITIONS = np.array([17, 3, 40, 3])


@pytest.mark.parametrize("norm", NORMS)
def test_some_images_are_attacked_as_among_all(norm):
    model, x = _CURVED, _images(64)
    y, eps = _answers(model, x), 0.05 if norm == np.inf else 0.3
    for attack in (lambda x, y, **more: attacks.noise(x, eps=eps, norm=norm, seed=5, **more),
                   lambda x, y, **more: attacks.pgd(
                       model, x, y, eps=eps, eps_iter=eps / 3, nb_iter=4, norm=norm, restarts=2, seed=5,
                       **more),
                   lambda x, y, **more: attacks.minimal_norm(
                       model, x, y, attack="pgd", high=2 * eps, norm=norm, nb_iter=5, halvings=4, seed=5,
                       **more)[0]):
        some = attack(x[POSITIONS], y[POSITIONS], positions=POSITIONS)
        np.testing.assert_allclose(some, attack(x, y)[POSITIONS], atol=1e-6)
    assert not np.allclose(some, attack(x[POSITIONS], y[POSITIONS]), atol=1e-6)


@pytest.mark.parametrize("positions", [[0, 1], [0.0] * 4, [0, 1, 2, -1]])
def test_bad_positions_are_named(positions):
    x = _images(4)
    for attack in (lambda: attacks.noise(x, eps=0.1, seed=0, positions=positions),
                   lambda: attacks.pgd(_LINEAR, x, _answers(_LINEAR, x), **PGD, positions=positions)):
        with pytest.raises(ValueError, match="positions must be 4 integers >= 0"):
            attack()


# Both

@pytest.mark.parametrize("norm", NORMS)
def test_no_eps_no_change(norm):
    model, x = _CURVED, _images()
    y = _answers(model, x)
    assert np.array_equal(attacks.fgsm(model, x, y, eps=0, norm=norm), x)
    assert np.array_equal(attacks.fgsm(model, x, y, eps=[0.0, 0.1], norm=norm)[0], x)
    assert np.array_equal(attacks.pgd(model, x, y, eps=0, eps_iter=0.1, nb_iter=3, norm=norm), x)
    assert np.array_equal(attacks.noise(x, eps=0, norm=norm, seed=0), x)


@pytest.mark.parametrize("norm, eps", [(np.inf, 0.01), (np.inf, 0.3), (2, 0.01), (2, 1.0), (2, 4.0)])
def test_noise_has_the_norm_eps_and_lies_in_the_box(norm, eps):
    for x in (_images(64), np.zeros((8, *SHAPE), np.float32), np.ones((8, 28, 28, 1), np.float32)):
        noisy = attacks.noise(x, eps=eps, norm=norm, seed=0)
        assert noisy.dtype == np.float32 and noisy.min() >= 0 and noisy.max() <= 1
        np.testing.assert_allclose(_norms(noisy, x, norm), eps, atol=1e-6)
        assert np.array_equal(noisy, attacks.noise(x, eps=eps, norm=norm, seed=0))
        assert not np.array_equal(noisy, attacks.noise(x, eps=eps, norm=norm, seed=1))
        assert not np.array_equal(noisy[0] - x[0], noisy[1] - x[1])


def test_noise_in_the_interior_is_of_random_signs_or_a_gaussian_direction():
    x = np.full((50, 10, 10, 2), 0.5, np.float32)
    signs = (attacks.noise(x, eps=0.25, seed=0) - x) / 0.25
    assert np.array_equal(np.abs(signs), np.ones_like(x)) and abs(signs.mean()) < 0.05
    normal = (attacks.noise(x, eps=1.0, norm=2, seed=0) - x) * np.sqrt(200)
    assert abs(normal.mean()) < 0.05 and abs(np.mean(np.abs(normal) < 1) - 0.683) < 0.02


def test_noise_of_more_than_fits_in_the_box_is_the_most_that_fits():
    x = _images(low=0.4, high=0.6)
    noisy = attacks.noise(x, eps=np.sqrt(x[0].size), norm=2, seed=0)
    assert np.mean((noisy == 0) | (noisy == 1)) > 0.99


@pytest.fixture(scope="module")
def lenet():
    keras.utils.set_random_seed(0)
    model = models.lenet((14, 14, 1))
    x = np.random.default_rng(0).random((34, 14, 14, 1), np.float32)
    models.normalize(model, x)
    return model, x, np.where(np.arange(34) % 5, _answers(model, x), 3)


@pytest.mark.parametrize("call", [
    functools.partial(attacks.fgsm, eps=0.2), functools.partial(attacks.fgsm, eps=1.0, norm=2),
    functools.partial(attacks.pgd, **PGD), functools.partial(attacks.pgd, norm=2, restarts=2, **PGD),
    functools.partial(attacks.carlini_wagner, max_iterations=15, binary_search_steps=2)],
    ids=["fgsm", "fgsm l2", "pgd", "pgd l2", "carlini_wagner"])
@pytest.mark.parametrize("kind", ["lenet", "linear"])
def test_what_an_image_gets_does_not_depend_on_its_batch(lenet, call, kind):
    model, x, y = lenet
    if kind == "linear":  # of as many inputs as CIFAR-10, over which a product may be cut up
        model, x = _WIDE, np.random.default_rng(0).random((34, 32, 32, 3), np.float32)
    descends = "nb_iter" in call.keywords
    # On some processors a product over so many inputs is cut up by its batch, and its last bits then differ.
    same = np.array_equal if kind == "lenet" else lambda one, other: np.mean(
        np.abs(one - other) > 1e-5) < 1e-3
    whole = call(model, x, y, batch_size=64)
    for rows, size in ((slice(0, 34), 17), (slice(0, 8), 1), (slice(0, 5), 128)):
        assert same(whole[rows], call(model, x[rows], y[rows], batch_size=size))
    if not descends:  # PGD's random start goes by the position
        assert same(whole[5:9], call(model, x[5:9], y[5:9]))
    assert not np.array_equal(whole, x)


_WIDE = _linear(classes=10, shape=(32, 32, 3))[0]


def test_the_arguments_are_not_written_to():
    model, x = _CURVED, _images()
    y = _answers(model, x)
    before = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False
    for call in CALLS.values():
        assert not np.shares_memory(call(model, x, y), x)
    assert np.array_equal(x, before[0]) and np.array_equal(y, before[1])
    wide = x.astype(np.float64)
    for call in CALLS.values():
        assert call(model, wide.tolist(), y.tolist()).dtype == np.float32
        assert np.array_equal(call(model, wide, y.astype(np.uint8)), call(model, x, y))


# The smallest radius

@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("norm, high", [(np.inf, 0.2), (2, 1.0)])
def test_the_smallest_radius_is_exact_on_a_linear_model(attack, norm, high):
    model, W = _linear(classes=2)
    x = _images(low=0.4, high=0.6)
    y = _answers(model, x)
    y[:3] = 1 - y[:3]  # wrong from the first
    dual = np.linalg.norm((W[..., 0] - W[..., 1]).ravel(), 1 if norm == np.inf else 2)
    exact = np.maximum(0, _F(model, x, y) / dual)
    x_adv, eps = attacks.minimal_norm(model, x, y, attack=attack, high=high, norm=norm)
    within = np.isfinite(eps)
    assert within.sum() > N / 2 and (exact[~within] > high * 0.99).all()
    assert np.array_equal(x_adv[~within], x[~within]) and (eps[:3] == 0).all()
    assert np.array_equal(x_adv[:3], x[:3])
    found, exact = eps[within], exact[within]
    assert (found >= exact - 1e-6).all() and (found <= exact * 1.02 + high / 1000).all()
    assert (_F(model, x_adv, y)[within] < 0).all()
    assert (_norms(x_adv, x, norm)[within] <= found + 1e-6).all()
    assert (x_adv.min(), x_adv.max()) >= (0, 0) and x_adv.max() <= 1


@pytest.mark.parametrize("more, message", [
    ({"attack": "cw"}, "attack must be .*'cw'"), ({"high": -1}, "high must be .*-1"),
    ({"high": np.inf}, "high must be .*inf"), ({"halvings": -1}, "halvings must be .*-1"),
    ({"halvings": 1.5}, "halvings must be .*1.5"), ({"nb_iter": 0}, "nb_iter must be .*0"),
    ({"norm": 1}, "norm must be .*1"), ({"loss": "hinge"}, "loss must be .*'hinge'"),
    ({"batch_size": 0}, "batch_size must be .*0")])
def test_bad_arguments_of_the_smallest_radius_are_named(more, message):
    model, x = _CURVED, _images()
    with pytest.raises(ValueError, match=message):
        attacks.minimal_norm(model, x, _answers(model, x), **{"attack": "pgd", "high": 0.1} | more)


# What does not fit

def _raises(call, model, x, y, message, **more):
    """Check the error, and that it comes before any long work."""
    model = _Counting(model)
    with pytest.raises(ValueError, match=message):
        call(model, x, y, **more)
    assert model.images.numpy() <= 8 * N


BAD_X = {"three axes": (lambda x: x[0], r"x must have shape .*\(6, 6, 3\)"),
         "none": (lambda x: x[:0], r"x must have shape .*\(0, 6, 6, 3\)"),
         "below 0": (lambda x: x - 0.25, r"x must lie in \[0, 1\].*-0.25"),
         "above 1": (lambda x: 255 * x, r"x must lie in \[0, 1\].*255.0"),
         "uint8": (lambda x: (255 * x).astype(np.uint8), r"x must lie in \[0, 1\].*255"),
         "NaN": (lambda x: np.where(x == x[3, 1, 1, 1], np.nan, x), r"x must lie in \[0, 1\].*nan"),
         "infinite": (lambda x: np.where(x == x[3, 1, 1, 1], np.inf, x), r"x must lie in \[0, 1\].*inf"),
         "another size": (lambda x: x[:, :5], r"does not take images of shape \(5, 6, 3\)")}
BAD_Y = {"too few": (lambda y: y[1:], r"y must have shape \(20,\).*\(19,\)"),
         "a column": (lambda y: y[:, None], r"y must have shape \(20,\).*\(20, 1\)"),
         "one hot": (lambda y: np.eye(4)[y], r"y must have shape \(20,\).*\(20, 4\)"),
         "fractions": (lambda y: y + 0.5, "y must hold integers, got dtype float64"),
         "truths": (lambda y: y > 0, "y must hold integers, got dtype bool"),
         "negative": (lambda y: np.where(np.arange(N) == 4, -1, y), r"labels must be in 0\.\.3, got -1"),
         "too large": (lambda y: np.where(np.arange(N) == 4, 4, y), r"labels must be in 0\.\.3, got 4")}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("change, message", BAD_X.values(), ids=BAD_X)
def test_bad_images_are_named(call, change, message):
    model, x = _linear()[0], _images()
    _raises(call, model, change(x), _answers(model, x), message)


@pytest.mark.parametrize("change, message", [BAD_X[key] for key in list(BAD_X)[:-1]])
def test_bad_images_of_the_noise_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        attacks.noise(change(_images()), eps=0.1, seed=0)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("change, message", BAD_Y.values(), ids=BAD_Y)
def test_bad_labels_are_named(call, change, message):
    model, x = _linear()[0], _images()
    _raises(call, model, x, change(_answers(model, x)), message)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bad_targets_are_named(call):
    model, x = _linear()[0], _images()
    y = _answers(model, x)
    target = np.where(np.arange(N) == 5, y, (y + 1) % CLASSES)
    _raises(call, model, x, target, f"image 5 is of class {y[5]} already \\(1 such of 20\\)", targeted=True)


BAD_MODELS = {"probabilities": (tf.nn.softmax, "sum to one: these are probabilities"),
              "one value": (lambda z: z[:, :1], r"logits of shape .*\(16, 1\)"),
              "no rows": (lambda z: z[0], r"logits of shape .*\(4,\)"),
              "a map": (lambda z: z[:, None], r"logits of shape .*\(16, 1, 4\)")}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("change, message", BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_models_are_named(call, change, message):
    model, x = _linear()[0], _images()
    _raises(call, lambda images: change(model(images)), x, _answers(model, x), message)


def test_a_keras_model_that_ends_in_a_softmax_is_refused():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(),
                              keras.layers.Dense(CLASSES, activation="softmax")])
    for call in CALLS.values():
        with pytest.raises(ValueError, match="Leave out its softmax"):
            call(model, _images(), np.zeros(N, int))


BAD_EPS = [-0.1, np.nan, np.inf, -np.inf, "0.1", None, True, 1j]
BEYOND = {np.inf: 8, 2: 255 * 0.1}  # of levels: more than the whole box [0, 1]
BAD_COUNTS = [0, -1, 1.5, 2.0, True, None, "3", np.nan]


@pytest.mark.parametrize("call, name, value", [
    *((attack, name, value) for attack, name in (("fgsm", "eps"), ("pgd", "eps"), ("pgd", "eps_iter"))
      for value in BAD_EPS),
    *(("pgd", name, value) for name in ("eps", "eps_iter") for value in ([0.1], np.array([0.1, 0.2]))),
    *(("pgd", name, value) for name in ("nb_iter", "restarts") for value in BAD_COUNTS),
    *((attack, "batch_size", value) for attack in CALLS for value in BAD_COUNTS),
    *((attack, "norm", value) for attack in ("fgsm", "pgd")
      for value in (1, 0, "inf", "2", None, True, [2], -np.inf)),
    *((attack, "loss", value) for attack in ("fgsm", "pgd") for value in ("hinge", None, 1, ["margin"]))])
def test_bad_arguments_are_named(call, name, value, monkeypatch):
    monkeypatch.setattr(SEARCH, "_advance", lambda *args: pytest.fail("long work"))
    model, x = _linear()[0], _images()
    text = str(value).strip("[]").split()[0]
    _raises(CALLS[call], model, x, _answers(model, x), f"(?s)^{name} must .*{text}", **{name: value})


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("call", [
    lambda model, x, y, **more: attacks.fgsm(model, x, y, **more),
    lambda model, x, y, eps, **more: attacks.fgsm(model, x, y, eps=[0.1, eps], **more),
    lambda model, x, y, **more: attacks.pgd(model, x, y, eps_iter=0.1, nb_iter=2, **more),
    lambda model, x, y, eps, **more: attacks.minimal_norm(model, x, y, attack="fgsm", high=eps, **more),
    lambda model, x, y, **more: attacks.noise(x, seed=0, **more)])
def test_a_radius_of_levels_is_named(call, norm):
    """An eps of 8, where 8/255 was meant, makes any network look broken."""
    x = _images()
    y = _answers(_LINEAR, x)
    most = 1 if norm == np.inf else 10.39
    with pytest.raises(ValueError, match=f"must be at most {most}, .*{BEYOND[norm]}"):
        call(_LINEAR, x, y, eps=BEYOND[norm], norm=norm)


@pytest.mark.parametrize("value", [-0.1, np.nan, "0.3", True])
def test_every_eps_of_a_sequence_is_checked(value):
    model, x = _linear()[0], _images()
    _raises(attacks.fgsm, model, x, _answers(model, x), f"eps must .*{value}", eps=[0.1, value])


@pytest.mark.parametrize("name, value", [("norm", 1), ("eps", -1), ("eps", "1"), ("eps", np.nan)])
def test_bad_arguments_of_the_noise_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must .*{value}"):
        attacks.noise(_images(), **{"eps": 0.1, "norm": np.inf, "seed": 0, name: value})


# Models of every kind

class _Unhashable:
    def __init__(self, model):
        self.model = model

    def __eq__(self, other):
        return True  # which also takes the hash away

    def __call__(self, x):
        return self.model(x)


class _Module(tf.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.scale = model, tf.Variable(1.0)

    def __call__(self, x):
        return self.scale * self.model(x)


class Layer(keras.layers.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, x):
        return self.model(x)


KINDS = {"function": lambda model: lambda x: model(x), "unhashable": _Unhashable, "method":
         lambda model: _Unhashable(model).__call__, "partial": functools.partial, "module": _Module,
         "layer": Layer, "compiled": tf.function, "of double precision": lambda model:
         lambda x: tf.cast(model(x), tf.float64)}


@pytest.mark.parametrize("call, kind", [*(("fgsm", kind) for kind in KINDS),
                                        ("pgd", "unhashable"), ("carlini_wagner", "unhashable")])
def test_any_callable_is_a_model(call, kind):
    x = _images()
    y, call = _answers(_LINEAR, x), CALLS[call]
    np.testing.assert_allclose(call(KINDS[kind](_LINEAR), x, y), call(_LINEAR, x, y), atol=1e-6)


_LINEAR = _linear()[0]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_keras_model_is_attacked_as_it_answers(call):
    """Without its dropout, and with the averages of its batch normalisation."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dropout(0.9),
                              keras.layers.BatchNormalization(), keras.layers.Dense(CLASSES)])
    weights, bias = model.layers[-1].get_weights()
    model.layers[-2].set_weights([np.full(108, value) for value in (2.0, 0.0, 0.5, 1.0)])
    plain = lambda x: 2 * (tf.reshape(x, (-1, 108)) - 0.5) / np.sqrt(1.001) @ weights + bias
    x = _images()
    y = _answers(plain, x)
    before = model.get_weights()
    np.testing.assert_allclose(call(model, x, y), call(plain, x, y), atol=1e-5)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_defence_in_front_is_attacked_through(call):
    """A blur that leaves of every image its mean: what is added is the same everywhere."""
    plain, x = _linear()[0], _images(low=0.3, high=0.7)
    model = lambda images: plain(tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True) + 0 * images)
    y = (_answers(model, x) + 1) % CLASSES
    x_adv = call(model, x, y) if call is not CALLS["carlini_wagner"] else call(model, x, _answers(model, x))
    if call is CALLS["fgsm"]:
        assert np.ptp((x_adv - x).reshape(N, -1), axis=1).max() < 1e-6
    assert x_adv.shape == x.shape and x_adv.min() >= 0 and x_adv.max() <= 1


def test_weights_that_change_are_seen():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    x, y = _images(), np.zeros(N, int)
    before = attacks.fgsm(model, x, y, eps=0.1)
    model.layers[-1].set_weights([-w for w in model.layers[-1].get_weights()])
    after = attacks.fgsm(model, x, y, eps=0.1, loss="cross_entropy")
    assert not np.array_equal(before, after)


def test_models_are_told_apart_and_forgotten():
    """Each is kept by its identity, which is used again once a model is gone."""
    x = _images(4)
    for seed in range(100):
        model, W = _linear(seed=seed)
        np.testing.assert_allclose(gradients.logits(model, x), np.einsum("nhwc,hwck->nk", x, W), atol=1e-5)
        del model
    assert len(gradients._made) <= 100


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("norm", NORMS)
def test_where_the_gradient_is_zero_nothing_breaks(call, norm):
    model = lambda x: 0 * tf.reduce_sum(x, axis=(2, 3))[:, :CLASSES] + tf.constant([3.0, 0, 1, 2])
    x, y = _images(), np.zeros(N, int)
    more = {} if call is CALLS["carlini_wagner"] else {"norm": norm}
    with pytest.warns(gradients.ZeroGradient, match="zero on 100 % of 20 images"):
        x_adv = call(model, x, y, **more)
    assert np.isfinite(x_adv).all()
    if call is not CALLS["pgd"]:
        assert np.array_equal(x_adv, x)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("model", [lambda x: tf.zeros((tf.shape(x)[0], CLASSES)) + [1.0, 0, 0, 0.5],
                                   lambda x: _CURVED(tf.round(255 * x) / 255)],
                         ids=["constant", "rounds"])
def test_a_model_that_no_gradient_passes_is_named(call, model):
    """Silence would look like robustness."""
    x = _images()
    with pytest.raises(ValueError, match="gradient"):
        call(model, x, _answers(model, x))


def test_norms():
    difference = np.float32([[3, -4], [0, 0]]).reshape(2, 1, 2, 1)
    assert attacks.l2(difference).tolist() == [5, 0] and attacks.linf(difference).tolist() == [4, 0]
