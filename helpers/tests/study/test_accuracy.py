"""Estimates recomputed by other routes."""
import numpy as np
import pytest
from scipy.stats import norm

from helpers import datasets
from helpers.attacks import gradients
from helpers.statistics import intervals
from helpers.study import accuracy


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (400, 10)).astype(np.float32), rng.integers(0, 10, 400)


def test_margins_by_sorting(logits):
    z, y = logits
    for F, row, k in zip(gradients.margins(z, y), z, y):
        best, second = np.sort(row)[::-1][:2]
        assert F == (row[k] - second if row[k] == best else row[k] - best)


def test_margins_leave_the_logits_alone(logits):
    z, y = logits
    before = z.copy()
    gradients.margins(z, y)
    assert np.array_equal(z, before)


def test_wilson_by_its_formula():
    k, n, q = 37, 50, norm.ppf(0.975)
    p = k / n
    center = (p + q * q / (2 * n)) / (1 + q * q / n)
    half = q / (1 + q * q / n) * np.sqrt(p * (1 - p) / n + q * q / (4 * n * n))
    assert intervals.interval(k, n) == pytest.approx((center - half, center + half))
    assert intervals.interval(5, 5)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="6 of 5"):
        intervals.interval(6, 5)


def test_share_is_a_mean_with_its_interval_and_empty_of_nothing():
    right = np.arange(50) < 40
    np.testing.assert_allclose(intervals.share(right), (0.8, *intervals.interval(40, 50)))
    assert np.isnan(intervals.share(right[:0])).all()


def test_a_calibrated_network_has_a_small_error_and_a_doubled_one_has_not():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (40000, 10)).astype(np.float32)
    cumulated = accuracy.probabilities(z).cumsum(axis=1)
    y = (rng.random((len(z), 1)) > cumulated).sum(axis=1).clip(0, 9)  # drawn from the softmax
    assert accuracy.calibration_error(z, y) < 0.01
    assert accuracy.calibration_error(2 * z, y) > 0.1


def test_calibration_error_image_by_image(logits):
    z, y = logits
    p = accuracy.probabilities(z)
    confidence, correct = p.max(1), p.argmax(1) == y
    total = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        total += abs(correct[inside].sum() - confidence[inside].sum())
    assert accuracy.calibration_error(z, y) == pytest.approx(total / len(y))


def test_reliability_counts_every_image(logits):
    table = accuracy.reliability(*logits)
    assert table.n.sum() == 400
    assert ((table.confidence > table.low) & (table.confidence <= table.high)).all()
    assert ((table.accuracy_low <= table.accuracy) & (table.accuracy <= table.accuracy_high)).all()


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    x = np.random.default_rng(1).normal(0, 1, 500)
    low, high = intervals.bootstrap(np.mean, x, repeats=2000)
    assert high - low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(500), rel=0.1)
    assert low < x.mean() < high


def test_unbiased_takes_from_the_square_of_a_mean_its_variance():
    x = np.random.default_rng(2).normal(1, 2, 40)
    square = lambda v: v.mean() ** 2
    value, low, high = intervals.unbiased(square, x, repeats=20000)
    assert value == pytest.approx(square(x) - x.var() / len(x), abs=0.02)
    below, above = intervals.bootstrap(square, x, repeats=20000)
    assert (low, high) == (2 * square(x) - above, 2 * square(x) - below)


def test_unbiased_interval_holds_the_correlation_that_noise_lowers():
    rng, covered = np.random.default_rng(3), []
    correlation = lambda a, b: np.corrcoef(a.mean(axis=0), b.mean(axis=0))[0, 1]
    common = rng.normal(size=200)
    one, two = (common + 0.3 * rng.normal(size=200) for _ in range(2))
    truth = correlation(one[None], two[None])
    for _ in range(40):
        a, b = (spectrum + 2 * rng.normal(size=(50, 200)) for spectrum in (one, two))
        value, low, high = intervals.unbiased(correlation, a, b, repeats=200)
        assert low < value < high and intervals.bootstrap(correlation, a, b, repeats=200)[1] < truth
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.8


def test_predict_does_not_depend_on_the_batch_size():
    x = datasets.load("mnist").x_test[:30]
    model = lambda batch: batch.reshape(len(batch), -1)[:, :10] * 2
    assert np.array_equal(accuracy.predict(model, x, 7), accuracy.predict(model, x))
