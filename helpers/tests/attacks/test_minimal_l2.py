"""The smallest L2 perturbation: exact where it is known, within its budget, the same whatever the batch."""
import importlib

import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks, datasets
from helpers.attacks import gradients
from helpers.tests.attacks import known

TOURNAMENT = importlib.import_module("helpers.attacks.minimal_l2")


@pytest.fixture(scope="module")
def lenet():
    """The shipped LeNet of MNIST, eight images that it has right, and images to start from."""
    data = datasets.load("mnist")
    return *known.right_by_lenet(8), (data.x_train[:2000], data.y_train[:2000])


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_it_is_exact_on_a_linear_model(scale):
    model, W = known.linear(scale)
    x = known.images()
    y = gradients.logits(model, x).argmax(axis=1)
    x_adv = attacks.minimal_l2(model, x, y, passes=300)
    assert (gradients.logits(model, x_adv).argmax(axis=1) != y).all()
    exact = known.boundaries(W, x, y, np.inf).min(axis=1)
    np.testing.assert_allclose(attacks.l2(x_adv - x), exact, rtol=0.01)


@pytest.mark.parametrize("passes", [12, 30, 100])
def test_targeted_is_exact_on_a_linear_model_of_two_classes(passes):
    model, W = known.linear()
    two = lambda x: model(x)[:, :2]
    x = known.images()
    y = gradients.logits(two, x).argmax(axis=1)
    x_adv = attacks.minimal_l2(two, x, 1 - y, passes=passes, targeted=True)
    assert (gradients.logits(two, x_adv).argmax(axis=1) == 1 - y).all()
    exact = known.boundaries(W[:, :2], x, y, np.inf).min(axis=1)
    np.testing.assert_allclose(attacks.l2(x_adv - x), exact, rtol=0.01)


def test_at_the_edges_of_the_box_it_still_succeeds_within_it():
    model, _ = known.linear()
    x = np.round(np.random.default_rng(1).random((known.N, *known.SHAPE))).astype(np.float32)
    y = gradients.logits(model, x).argmax(axis=1)
    x_adv = attacks.minimal_l2(model, x, y, passes=100)
    assert (gradients.logits(model, x_adv).argmax(axis=1) != y).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1 and x_adv.dtype == np.float32


def test_it_comes_nearer_than_carlini_wagner_for_the_same_passes(lenet):
    model, x, y, starts = lenet
    x_adv = attacks.minimal_l2(model, x, y, passes=100, starts=starts)
    other = attacks.carlini_wagner(model, x, y, binary_search_steps=1, max_iterations=100)
    assert (gradients.logits(model, x_adv).argmax(axis=1) != y).all()
    assert attacks.l2(x_adv - x).mean() <= attacks.l2(other - x).mean()


@pytest.mark.parametrize("size", [1, 5])
def test_neither_the_batch_nor_the_company_matters(lenet, size):
    model, x, y, starts = lenet
    whole = attacks.minimal_l2(model, x, y, passes=60)
    apart = attacks.minimal_l2(model, x, y, passes=60, batch_size=size)
    np.testing.assert_allclose(attacks.l2(apart - x), attacks.l2(whole - x), rtol=1e-3)
    part = attacks.minimal_l2(model, x[2:4], y[2:4], passes=60, positions=[2, 3])
    np.testing.assert_allclose(attacks.l2(part - x[2:4]), attacks.l2(whole - x)[2:4], rtol=1e-3)


@pytest.mark.parametrize("passes", [1, 2, 15, 16, 17, 60, 100, 250, 601, 3000])
def test_the_rounds_take_no_more_than_there_is(passes):
    plan = TOURNAMENT.rounds(passes)
    asked = 1 + TOURNAMENT.PROBES * (plan[0][0] // 2)
    took = sum(count * steps for count, steps in plan) + TOURNAMENT.FORWARD * asked
    assert took <= passes
    assert passes < 15 or took > passes - TOURNAMENT.FORWARD * TOURNAMENT.HALVINGS - 1


@pytest.mark.parametrize("passes", [16, 100])
@pytest.mark.filterwarnings("error")
def test_the_model_is_asked_as_often_as_is_told(passes):
    linear, _ = known.linear()
    asked = tf.Variable(0)

    def counting(x):
        with tf.control_dependencies([asked.assign_add(tf.shape(x)[0])]):
            return linear(tf.identity(x))

    x = known.images(16)  # a number to which no batch is filled up
    y = gradients.logits(linear, x).argmax(axis=1)

    def rows(budget):
        before = int(asked)
        _, used = attacks.minimal_l2(counting, x, y, passes=budget, return_passes=True)
        return int(asked) - before, used

    rows(1)  # so that it has been compiled
    rows(passes)
    (few, _), (many, used) = rows(1), rows(passes)
    steps = sum(a * b for a, b in TOURNAMENT.rounds(passes))
    forward = 2 * (used[0] - steps)  # each of which counts half; one of them is asked for at any budget
    assert (many - few) / 16 == steps + forward - 1
    assert (used <= passes).all() and (used > passes - 1).all()


def test_targets_and_confidence_are_reached(lenet):
    model, x, y, starts = lenet
    targets = (y + 1) % 10
    x_adv = attacks.minimal_l2(model, x, targets, passes=200, targeted=True, starts=starts)
    assert (gradients.logits(model, x_adv).argmax(axis=1) == targets).all()
    free = attacks.minimal_l2(model, x, y, passes=200, starts=starts)
    sure = attacks.minimal_l2(model, x, y, passes=200, confidence=3, starts=starts)
    assert (gradients.margins(gradients.logits(model, sure), y) <= -3).all()
    assert (attacks.l2(free - x) < attacks.l2(sure - x)).all()
    assert attacks.l2(free - x).mean() < attacks.l2(x_adv - x).mean()


def test_starts_that_fool_the_model_serve_where_the_gradient_is_zero():
    x = np.full((known.N, *known.SHAPE), 0.2, np.float32)

    def masked(images):
        bright = tf.cast(tf.reduce_mean(images, (1, 2, 3)) > 0.5, tf.float32)
        return tf.stack([2 + 0 * images[:, 0, 0, 0], 4 * bright], axis=1)

    starts = np.full((1, *known.SHAPE), 0.9, np.float32), np.array([1])
    x_adv = attacks.minimal_l2(masked, x, np.zeros(known.N, int), passes=30, starts=starts)
    l2 = attacks.l2(x_adv - x)
    exact = 0.3 * np.sqrt(np.prod(known.SHAPE))  # where the mean passes 0.5 on the line to the start
    assert (masked(x_adv).numpy().argmax(axis=1) == 1).all()
    assert (l2 >= exact * 0.999).all() and (l2 <= 0.35 * np.sqrt(np.prod(known.SHAPE))).all()


def test_what_cannot_be_broken_and_what_is_broken_come_back_as_they_were():
    model, _ = known.linear()
    constant = lambda x: 0 * model(x) + tf.constant([2.0, 0, 0, 0])
    x = known.images()
    with pytest.warns(gradients.ZeroGradient, match="100 % of 12"):
        assert np.array_equal(attacks.minimal_l2(constant, x, np.zeros(known.N, int), passes=30), x)
    y = gradients.logits(model, x).argmin(axis=1)  # wrong already
    x_adv, used = attacks.minimal_l2(model, x, y, passes=30, return_passes=True)
    assert np.array_equal(x_adv, x) and (used == TOURNAMENT.FORWARD).all()


@pytest.mark.parametrize("name, value", [
    ("passes", 0), ("passes", 2.5), ("batch_size", 0), ("seed", -1), ("confidence", -1), ("confidence", "1"),
    ("return_passes", 1), ("starts", 3), ("positions", [0])])
def test_bad_settings_are_named(name, value):
    model, _ = known.linear()
    with pytest.raises(ValueError, match=f"{name} must"):
        attacks.minimal_l2(model, known.images(), np.zeros(known.N, int), **{name: value})


@pytest.mark.parametrize("starts, told", [
    ((np.zeros((2, 5, 5, 3)), np.array([0, 1])), r"shape \(6, 6, 3\), got \(5, 5, 3\)"),
    ((np.zeros((2, *known.SHAPE)), np.array([0.0, 1])), "2 integers, got float64"),
    ((np.zeros((2, *known.SHAPE)), np.array([0, 0])), "classes other than 0, got classes 0")])
def test_starts_that_do_not_serve_are_refused(starts, told):
    model, _ = known.linear()
    first = lambda x: model(x) + tf.constant([100.0, 0, 0, 0])
    with pytest.raises(ValueError, match=told):
        attacks.minimal_l2(first, known.images(), np.zeros(known.N, int), starts=starts, passes=30)
