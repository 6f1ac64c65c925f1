"""In what networks err, of answers made so that it is known."""
import dataclasses

import numpy as np
import pytest

from helpers import datasets, networks
from helpers.study import errors

NAMES = datasets.record("cifar10").class_names
LENET, RESNET = (networks.RECIPES["cifar10", name] for name in ("lenet", "resnet"))


def _logits(answers, classes=10, top=3.0):
    return top * np.eye(classes, dtype=np.float32)[answers]


def test_the_pair_most_confused_counts_both_ways():
    y = np.array([3, 5, 5, 3, 0, 1, 2])
    found = errors.most_confused(_logits([5, 3, 3, 3, 1, 1, 2]), y, NAMES)
    assert found == ((3, 5), "gato con perro", 3, 1, False, 4, 7)
    assert errors.most_confused(_logits(y), y, NAMES)[2:] == (0, 0, False, 0, 7)


@pytest.mark.parametrize("first, second, clear", [
    (20, 3, True), (337, 153, True), (10, 8, False), (8, 6, False)])
def test_a_pair_stands_out_where_chance_would_not_put_it_first(first, second, clear):
    counts = [first, second, 70]
    found = errors.most_confused(_logits(np.repeat([5, 1, 7], counts)), np.repeat([3, 0, 7], counts), NAMES)
    assert (found.count, found.next, found.stands_out) == (first, second, clear)


def test_the_surest_errors_come_first():
    y = np.array([0, 1, 2, 3])
    logits = np.stack([_logits([1], top=t)[0] for t in (1.0, 5.0, 2.0, 9.0)])
    np.testing.assert_array_equal(errors.wrong(logits, y), [0, 2, 3])
    np.testing.assert_array_equal(errors.surest(logits, y, 2), [3, 2])


def test_a_network_that_knows_its_doubt_is_calibrated():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.55, 0.95, 20_000)
    y = (rng.random(20_000) > p).astype(int)
    sound = errors.calibration(np.stack([np.log(p), np.log(1 - p)], 1), y, repeats=20)
    proud = errors.calibration(5 * np.stack([np.log(p), np.log(1 - p)], 1), y, repeats=20)
    assert sound.error.value < 0.01 < proud.error.low <= proud.error.value <= proud.error.high
    assert sound.accuracy == np.mean(y == 0)


def test_where_a_gradient_vanishes_float32_says_so():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(0, 1, (400, 10)).astype(np.float32), np.zeros(400, int)
    logits[:, 0] += rng.uniform(10, 24, 400).astype(np.float32)
    odds = np.exp(np.float64(logits[:, 1:]) - np.float64(logits[:, :1])).sum(axis=1)
    lost = np.float32(1) + np.float32(odds) == 1  # the softmax's sum, of which p_y is the inverse
    assert 0.1 < lost.mean() < 0.9
    assert abs(errors.vanishing(logits, y).value - lost.mean()) < 0.01


def test_with_one_rival_the_margin_decides():
    logits = np.full((3, 10), -100, np.float32)
    logits[:, 0], logits[:, 1] = [errors.VANISHING - 0.1, errors.VANISHING + 0.1, -5], 0
    assert errors.vanishing(logits, np.zeros(3, int)).value == pytest.approx(1 / 3)


def test_gains_are_of_the_same_images():
    y = np.zeros(200, int)
    right, half = _logits(y), _logits(np.arange(200) % 2)
    found = errors.gains({LENET: (half, y), RESNET: (right, y)}, "resnet", "lenet")
    assert found.keys() == {"cifar10"} and found["cifar10"].value == 0.5
    assert found["cifar10"].low < 0.5 < found["cifar10"].high
    assert errors.gains({RESNET: (right, y)}, "resnet", "lenet") == {}
    with pytest.raises(ValueError, match="same images, got 200 and 100"):
        errors.accuracy_gain((right, y), (right[:100], y[:100]))


def test_an_error_is_beside_the_published_one_only_for_all_the_images():
    y = np.zeros(10_000, int)
    found = errors.reported({LENET: (_logits(y), y),
                             RESNET: (_logits((np.arange(10_000) < 900).astype(int)), y)})
    assert found.recipe == RESNET and found.theirs == 0.0875 and found.ours.value == 0.09
    assert errors.reported({RESNET: (_logits(y[:2000]), y[:2000])}) is None
    assert errors.reported({LENET: (_logits(y), y)}) is None


def test_facts_by_name_have_a_place_for_every_data_set():
    found = errors.by_name({LENET: 1, dataclasses.replace(RESNET, seed=1): 2})
    assert found["cifar10"] == {"lenet": 1, "resnet": 2} and found["mnist"] == {}
