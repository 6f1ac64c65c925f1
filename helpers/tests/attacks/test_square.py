"""The Square attack against what a linear model allows, and against its own promises."""
import importlib

import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks
from helpers.attacks import gradients

# The door of the room hands on the function of this name, not the module.
SQUARE = importlib.import_module("helpers.attacks.square")
SIZE, CHANNELS, CLASSES, N = 8, 3, 4, 32


def _linear(size=SIZE, channels=CHANNELS, classes=CLASSES, seed=0):
    """Return (model, W): logits are the sum over pixels of W (H, W, C, classes) times the image."""
    weights = np.random.default_rng(seed).normal(0, 1, (size, size, channels, classes))
    weights = tf.constant(weights, tf.float32)
    return lambda x: tf.tensordot(x, weights, 3), weights.numpy()


@pytest.fixture(scope="module")
def case():
    model, weights = _linear()
    x = np.random.default_rng(1).uniform(0, 1, (N, SIZE, SIZE, CHANNELS)).astype(np.float32)
    x[:4] = np.round(x[:4])  # pixels at the edges of the box, as in MNIST
    return model, weights, x, gradients.logits(model, x).argmax(axis=1)


def _margins(model, x, y):
    return gradients.margins(gradients.logits(model, x), y)


@pytest.mark.parametrize("eps", [0.0, 8 / 255, 0.3, 1.0])
def test_within_ball_and_box(case, eps):
    model, _, x, y = case
    x_adv = attacks.square(model, x, y, eps=eps, nb_iter=20)
    assert x_adv.shape == x.shape and x_adv.dtype == np.float32
    assert attacks.linf(x_adv - x).max() <= eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_more_queries_never_leave_a_larger_margin(case):
    """Of two searches the longer has larger squares for longer, so only the start is common."""
    model, _, x, y = case
    start = attacks.square(model, x, y, eps=0.01, nb_iter=1)
    later = attacks.square(model, x, y, eps=0.01, nb_iter=50)
    assert (_margins(model, later, y) <= _margins(model, start, y) + 1e-5).all()
    assert _margins(model, later, y).mean() < _margins(model, start, y).mean() - 0.1


def test_the_start_is_of_vertical_stripes(case):
    model, _, x, y = case
    inside = x * 0.5 + 0.25  # so that nothing is clipped
    y = gradients.logits(model, inside).argmax(axis=1)
    delta = attacks.square(model, inside, y, eps=0.125, nb_iter=1) - inside
    np.testing.assert_allclose(np.abs(delta), 0.125, atol=1e-6)
    np.testing.assert_allclose(delta, np.broadcast_to(delta[:, :1], delta.shape), atol=1e-6)
    assert 0.4 < (delta[:, 0] > 0).mean() < 0.6


def test_a_linear_model_is_broken_where_the_bound_allows_and_only_there(case):
    """The margin falls by at most the sum of |w| times the room of each pixel: exact, by hand."""
    model, weights, x, y = case
    eps = 0.1
    room_up, room_down = np.minimum(1 - x, eps), np.minimum(x, eps)
    least = np.full(N, np.inf)
    for j in range(CLASSES):
        w = np.moveaxis(weights[..., y] - weights[..., [j] * N], -1, 0)
        fall = (np.where(w > 0, w * room_down, -w * room_up)).sum(axis=(1, 2, 3))
        F = (w * x).sum(axis=(1, 2, 3)) - fall
        least = np.where(y == j, least, np.minimum(least, F))
    broken = _margins(model, attacks.square(model, x, y, eps=eps, nb_iter=300), y) < 0
    clearly = least < -0.25 * np.abs(weights).sum(axis=(0, 1, 2)).mean() * eps
    assert clearly.sum() > N / 2 and broken[clearly].all()
    assert not broken[least > 1e-4].any()


def test_one_pixel_squares_find_the_worst_corner_of_the_ball():
    model, weights = _linear(size=4, channels=1, classes=2)
    x = np.full((2, 4, 4, 1), 0.5, np.float32)
    y = gradients.logits(model, x).argmax(axis=1)
    shifted = lambda images: model(images) + tf.one_hot(y[0], 2) * 100.0  # never broken
    x_adv = attacks.square(shifted, x, y, eps=0.25, nb_iter=600, p=0.05)
    w = weights[..., y[0]] - weights[..., 1 - y[0]]
    np.testing.assert_allclose(x_adv - x, np.broadcast_to(-0.25 * np.sign(w), x.shape), atol=1e-6)


def test_the_answer_depends_neither_on_the_batch_nor_on_later_images(case):
    model, _, x, y = case
    whole = attacks.square(model, x[:20], y[:20], eps=0.03, nb_iter=30)
    assert np.array_equal(whole, attacks.square(model, x[:20], y[:20], eps=0.03, nb_iter=30,
                                                batch_size=7))
    assert np.array_equal(whole[:8], attacks.square(model, x[:8], y[:8], eps=0.03, nb_iter=30))
    assert not np.array_equal(whole, attacks.square(model, x[:20], y[:20], eps=0.03, nb_iter=30,
                                                    seed=1))


def test_wrong_images_are_left_alone(case):
    model, _, x, y = case
    assert np.array_equal(attacks.square(model, x, (y + 1) % CLASSES, eps=0.3, nb_iter=5), x)


def test_broken_images_are_asked_no_more(case):
    model, _, x, y = case
    asked = tf.Variable(0)

    def counting(images):
        asked.assign_add(tf.shape(images)[0])
        return model(images)

    x_adv = attacks.square(counting, x, y, eps=0.3, nb_iter=100)
    assert (_margins(model, x_adv, y) < 0).all()
    assert asked.numpy() < 100 * N / 2  # and that with fewer than 16 left, which are filled up


def test_the_squares_are_square_and_always_change_something(case):
    *_, x, _ = case
    low, high = np.clip(x - 0.1, 0, 1), np.clip(x + 0.1, 0, 1)
    for seed, best in enumerate((low, high, np.where(x > 0.5, low, high))):
        numbers = np.random.default_rng(seed).random((N, 3 + CHANNELS))
        changed = SQUARE._squares(low, high, best, 3, numbers) != best
        assert changed.any(axis=(1, 2, 3)).all()
        rows, columns = changed.any(axis=(2, 3)), changed.any(axis=(1, 3))
        for line in (*rows, *columns):
            assert np.ptp(np.flatnonzero(line)) < 3


def test_the_choices_that_change_something_are_equally_likely():
    n = 7000
    low, high = np.zeros((n, 1, 1, 3), np.float32), np.ones((n, 1, 1, 3), np.float32)
    numbers = np.random.default_rng(0).random((n, 6))
    chosen = SQUARE._squares(low, high, low, 1, numbers)[:, 0, 0] @ [1, 2, 4]
    counts = np.bincount(chosen.astype(int), minlength=8)
    assert counts[0] == 0 and np.abs(counts[1:] - 1000).max() < 5 * np.sqrt(1000)


def test_the_schedule_is_the_papers():
    """Side of 28 x 28 images by hand: p = 0.8, 0.4, ..., halved as published for 10,000 queries."""
    expected = {1: 0.8, 10: 0.8, 11: 0.4, 50: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025,
                2001: 0.0125, 4001: 0.00625, 6001: 0.003125, 8001: 0.0015625, 9999: 0.0015625}
    for i, share in expected.items():
        assert SQUARE.side(i, 10_000, 0.8, 28, 28) == max(1, round(28 * share ** 0.5))
    assert [SQUARE.side(i, 1000, 0.8, 28, 28) for i in (1, 2, 5, 6)] == [25, 18, 18, 13]
    assert SQUARE.side(0, 10, 1.0, 8, 20) == 8


@pytest.mark.parametrize("more, message", [
    ({"eps": -0.1}, "eps must be .*-0.1"), ({"eps": np.inf}, "eps must be .*inf"),
    ({"eps": True}, "eps must be .*True"), ({"nb_iter": 0}, "nb_iter must be .*0"),
    ({"nb_iter": 1.5}, "nb_iter must be .*1.5"), ({"p": 0}, "p must be .*0"),
    ({"batch_size": 0}, "batch_size must be .*0")])
def test_bad_arguments_are_named(case, more, message):
    model, _, x, y = case
    with pytest.raises(ValueError, match=message):
        attacks.square(model, x, y, **{"eps": 0.1, **more})


def test_labels_are_checked_as_in_every_attack(case):
    model, _, x, y = case
    with pytest.raises(ValueError, match="labels must be in 0..3, got 9"):
        attacks.square(model, x, np.where(np.arange(N) == 3, 9, y), eps=0.1)
