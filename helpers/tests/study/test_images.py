"""Facts of images, of images made so that they are known."""
import numpy as np
import pytest

from helpers import datasets
from helpers.study import images


class Made:
    """A loaded data set of made images."""

    def __init__(self, x, y):
        self.x_train, self.y_train, self.x_test, self.y_test = x, y, x, y


def _box(top, left, height=20, width=6, value=1.0):
    x = np.zeros((28, 28, 1), np.float32)
    x[top:top + height, left:left + width] = value
    return x


def test_strokes_of_boxes():
    middle, corner, grey = _box(4, 11), _box(0, 0), _box(4, 4, 20, 20, 0.5)
    found = images.strokes(Made(np.stack([middle, corner, grey]), np.arange(3)))
    assert (found.n, found.longest, found.of_twenty) == (6, 20, 1.0)
    assert found.centred == pytest.approx(2 / 3)
    assert found.zero == pytest.approx(1 - (120 + 120 + 400) / (3 * 784))
    assert found.white == pytest.approx(240 / 640)


def test_classes_are_counted():
    assert images.classes(np.array([2, 0, 2, 1, 2, 1])) == (2, 3, 0, 1, 0.5)


def test_rows_of_each_class_in_order():
    y = np.array([1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(images.of_each_class(y, 2, order=[1, 0]), [[0, 3], [1, 2]])
    with pytest.raises(ValueError, match="count must be at most 3, .*got 4"):
        images.of_each_class(y, 4)


def test_drawn_are_the_seed_s_and_no_image_twice():
    one, again, other = (images.drawn(np.zeros(100), 50, seed) for seed in (0, 0, 1))
    assert len(set(one)) == 50 and np.array_equal(one, again) and not np.array_equal(one, other)


def test_distances_against_the_slow_way():
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 5, 5, 2), np.float32), rng.integers(0, 3, 12)
    found = images.distances(Made(x, y), 10)
    slow = np.array([[np.linalg.norm(a - b) for b in x[:10]] for a in x[:10]])
    np.testing.assert_allclose(found.norm, [np.linalg.norm(a) for a in x[:10]], rtol=1e-5)
    np.testing.assert_allclose(found.pair, slow[np.triu_indices(10, 1)], rtol=1e-4)
    np.testing.assert_allclose(found.other, [min(slow[i][y[:10] != y[i]]) for i in range(10)], rtol=1e-4)


def test_a_radius_beside_the_distance_to_another_class():
    record = datasets.record("mnist")
    found = images.radii(record, images.Distances(np.ones(3), np.ones(3), np.array([1.0, 4.0, 9.0])))
    assert found.reference == pytest.approx(record.reference * 28)
    assert found.reference_share == pytest.approx(found.reference / 4)


def test_colours_are_of_all_training_images():
    count, channels = images.colours("cifar10")
    assert count == 50_000 and len(channels) == 3
    assert channels[0] == pytest.approx((125.307, 62.993), abs=1e-3)  # as published for the 50,000
