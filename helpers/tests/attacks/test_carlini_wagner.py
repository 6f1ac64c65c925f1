"""Carlini & Wagner: exact where the answer is known, and the same whatever the batch."""
import importlib

import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks
from helpers.attacks import gradients
from helpers.study import under_attack
from helpers.tests.attacks import known

# The door of the room hands on the function of this name, not the module.
SEARCH = importlib.import_module("helpers.attacks.carlini_wagner")
QUICK = {"max_iterations": 200, "binary_search_steps": 3}


@pytest.fixture(scope="module")
def lenet():
    """The shipped LeNet of MNIST with six images that it has right."""
    return known.right_by_lenet(6)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_untargeted_is_exact_on_a_linear_model(scale):
    model, W = known.linear(scale)
    x = known.images()
    y = gradients.logits(model, x).argmax(axis=1)
    distances = known.boundaries(W, x, y, np.inf)
    x_adv = attacks.carlini_wagner(model, x, y)
    z = gradients.logits(model, x_adv)
    assert (z.argmax(axis=1) != y).all()
    l2 = attacks.l2(x_adv - x)
    np.testing.assert_allclose(l2, distances.min(axis=1), rtol=0.02)  # of the nearest class


@pytest.mark.parametrize("const", [None, 1e-3, 1.0, 100.0])
def test_targeted_is_exact_on_a_linear_model_of_two_classes(const):
    model, W = known.linear()
    two = lambda x: model(x)[:, :2]
    x = known.images()
    y = gradients.logits(two, x).argmax(axis=1)
    x_adv = attacks.carlini_wagner(two, x, 1 - y, targeted=True, initial_const=const)
    assert (gradients.logits(two, x_adv).argmax(axis=1) == 1 - y).all()
    exact = known.boundaries(W[:, :2], x, y, 0).max(axis=1)
    np.testing.assert_allclose(attacks.l2(x_adv - x), exact, rtol=0.02)


def test_at_the_edges_of_the_box_it_still_succeeds_within_it():
    model, _ = known.linear()
    x = np.round(known.images(low=0, high=1))
    y = gradients.logits(model, x).argmax(axis=1)
    x_adv = attacks.carlini_wagner(model, x, y)
    assert (gradients.logits(model, x_adv).argmax(axis=1) != y).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1 and x_adv.dtype == np.float32


def test_confidence_is_the_gap_and_costs_distance(lenet):
    model, x, y = lenet
    before = np.zeros(len(x))
    for confidence in (0, 2, 8.0):
        x_adv = attacks.carlini_wagner(model, x, y, confidence=confidence, **QUICK)
        assert (gradients.margins(gradients.logits(model, x_adv), y) <= -confidence).all()
        assert (attacks.l2(x_adv - x) > before).all()
        before = attacks.l2(x_adv - x)


def test_what_cannot_be_broken_and_what_is_broken_come_back_as_they_were():
    model, _ = known.linear()
    stubborn = lambda x: model(x) * 0.01 + tf.constant([1e3, 0, 0, 0])
    x = known.images()
    assert np.array_equal(attacks.carlini_wagner(stubborn, x, np.zeros(known.N, int), **QUICK), x)
    y = gradients.logits(model, x).argmin(axis=1)  # wrong already
    assert np.array_equal(attacks.carlini_wagner(model, x, y, **QUICK), x)


def test_more_search_steps_never_give_a_larger_distance(lenet):
    model, x, y = lenet
    l2 = [attacks.l2(attacks.carlini_wagner(model, x, y, binary_search_steps=steps) - x)
          for steps in (1, 2, 4)]
    assert (l2[1] <= l2[0]).all() and (l2[2] <= l2[1]).all()
    assert (l2[2] < l2[0]).any()


@pytest.mark.parametrize("size", [1, 5, 64])
def test_neither_the_batch_nor_the_company_matters(lenet, size):
    model, x, y = lenet
    whole = attacks.carlini_wagner(model, x, y, **QUICK)
    assert np.array_equal(whole, attacks.carlini_wagner(model, x, y, batch_size=size, **QUICK))
    assert np.array_equal(whole[2:4], attacks.carlini_wagner(model, x[2:4], y[2:4], **QUICK))


def test_the_nearest_target_is_about_as_near_as_any_other_class(lenet):
    model, x, y = lenet
    targets = np.array([[k for k in range(10) if k != label] for label in y])
    x_adv = attacks.carlini_wagner(model, np.repeat(x, 9, 0), targets.ravel(), targeted=True)
    assert (gradients.logits(model, x_adv).argmax(axis=1) == targets.ravel()).all()
    nearest = attacks.l2(x_adv - np.repeat(x, 9, 0)).reshape(-1, 9).min(axis=1)
    free = attacks.l2(attacks.carlini_wagner(model, x, y) - x)
    np.testing.assert_allclose(free, nearest, rtol=0.05)


def test_the_race_is_the_same_for_many_classes_as_for_the_nearest(monkeypatch):
    model, W = known.linear()
    many = lambda x: tf.concat([model(x), tf.fill((len(x), 20), -50.0) + 0.01 * model(x)[:, :1]], axis=1)
    x = known.images()
    y = gradients.logits(model, x).argmax(axis=1)
    x_adv = attacks.carlini_wagner(many, x, y)
    nearest = known.boundaries(W, x, y, np.inf).min(axis=1)
    np.testing.assert_allclose(attacks.l2(x_adv - x), nearest, rtol=0.02)
    monkeypatch.setattr(SEARCH, "RIVALS", 1)  # the nearest to first order, here exact
    one = attacks.carlini_wagner(many, x, y)
    np.testing.assert_allclose(attacks.l2(one - x), nearest, rtol=0.02)


def test_racing_finds_nearer_images_than_the_first_choice(lenet, monkeypatch):
    model, x, y = lenet
    raced = attacks.l2(attacks.carlini_wagner(model, x, y, **QUICK) - x)
    monkeypatch.setattr(SEARCH, "RIVALS", 1)
    alone = attacks.l2(attacks.carlini_wagner(model, x, y, **QUICK) - x)
    assert raced.mean() <= alone.mean() and (raced <= alone * 1.05).all()


@pytest.mark.parametrize("iterations", [1, 7])
def test_few_iterations_do_what_they_can(lenet, iterations):
    model, x, y = lenet
    x_adv = attacks.carlini_wagner(model, x, y, max_iterations=iterations)
    moved = (x_adv != x).any(axis=(1, 2, 3))
    assert (gradients.logits(model, x_adv[moved]).argmax(axis=1) != y[moved]).all() if moved.any() else True


def test_rounding_to_8_bits_is_reported(lenet):
    model, x, y = lenet
    x_adv = attacks.carlini_wagner(model, x, y, **QUICK)
    rounded = np.round(x_adv * 255) / np.float32(255)
    share = np.mean(gradients.logits(model, rounded).argmax(axis=1) != y)
    assert under_attack.success_after_rounding(x_adv, y, model) == share


@pytest.mark.parametrize("name, value", [
    ("confidence", -1), ("confidence", np.nan), ("confidence", "1"), ("learning_rate", 0),
    ("learning_rate", np.inf), ("binary_search_steps", 0), ("max_iterations", 2.5),
    ("initial_const", 0), ("initial_const", "1"), ("batch_size", 0)])
def test_bad_settings_are_named(name, value):
    model, _ = known.linear()
    with pytest.raises(ValueError, match=f"{name} must .*{value}"):
        attacks.carlini_wagner(model, known.images(), np.zeros(known.N, int), **{name: value})
