"""Trends: their sign, their chance level, Holm's correction, intervals over seeds and images."""
import itertools

import numpy as np
import pytest

from helpers.statistics import intervals, trends


def test_a_trend_has_its_sign_and_size():
    rng = np.random.default_rng(0)
    rising = np.arange(6) + rng.normal(0, 0.3, (10, 6))
    found = trends.trend(rising)
    assert found.tau > 0.8 and found.p < 1e-6 and found.tau_low > 0.7
    assert found.low < 5 < found.high
    np.testing.assert_allclose(found.effect, np.mean(rising[:, -1] - rising[:, 0])
                               / np.std(rising[:, -1] - rising[:, 0], ddof=1))
    falling = trends.trend(-rising)
    np.testing.assert_allclose([falling.tau, falling.change, falling.p], [-found.tau, -found.change, found.p])


def test_a_change_that_is_the_same_in_all_seeds():
    flat, rising = np.ones((4, 3)), np.tile([0.0, 1.0, 2.0], (4, 1))
    assert trends.trend(flat).effect == 0 and trends.trend(flat).change == 0
    assert trends.trend(rising).effect == np.inf and trends.trend(-rising).effect == -np.inf


def test_page_s_statistic_by_all_permutations():
    """Exact for 3 seeds at 3 points: L of all 216 ways to rank them."""
    values = np.array([[1, 2, 3], [1, 3, 2], [2, 1, 3.0]])
    L = lambda rows: sum(np.dot(row, [1, 2, 3]) for row in rows)
    every = [L(rows) for rows in itertools.product(itertools.permutations((1, 2, 3)), repeat=3)]
    exact = np.mean(np.array(every) >= L(values))
    np.testing.assert_allclose(trends.trend(values).p, min(1, 2 * exact), rtol=1e-6)


def test_no_trend_is_found_where_there_is_none():
    rng = np.random.default_rng(1)
    p = [trends.trend(rng.normal(0, 1, (10, 6))).p for _ in range(200)]
    assert np.mean(np.array(p) < 0.05) < 0.1 and np.mean(p) > 0.35


def test_intervals_over_few_seeds_cover():
    rng = np.random.default_rng(3)
    for count in (2, 4, 8):
        found = np.array([trends.mean_over_seeds(row) for row in rng.normal(1, 2, (2000, count))])
        covered = np.mean((found[:, 1] <= 1) & (1 <= found[:, 2]))
        assert 0.93 < covered < 0.97, (count, covered)
    with pytest.raises(ValueError, match=r"at least 2 of them in a row, got \(1,\)"):
        trends.mean_over_seeds([1.0])


def test_holm():
    np.testing.assert_allclose(trends.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(trends.holm([0.5, 0.9]), [1, 1])


@pytest.mark.parametrize("values", [np.zeros((1, 5)), np.zeros((3, 2)), [[1, 2, np.nan]] * 3])
def test_too_little_is_refused(values):
    with pytest.raises(ValueError, match="a trend needs finite values of at least 2 seeds at 3 points"):
        trends.trend(values)


def test_the_crossed_bootstrap_sees_both_sources_of_chance():
    rng = np.random.default_rng(2)
    width = lambda values: np.diff(intervals.crossed_bootstrap(np.mean, values))[0]
    of_seeds = np.repeat(rng.normal(0, 1, (10, 1)), 200, axis=1)
    of_images = np.repeat(rng.normal(0, 1, (1, 200)), 10, axis=0)
    np.testing.assert_allclose(width(of_seeds), 2 * 1.96 * of_seeds[:, 0].std() / np.sqrt(10), rtol=0.2)
    np.testing.assert_allclose(width(of_images), 2 * 1.96 * of_images[0].std() / np.sqrt(200), rtol=0.2)
    several = intervals.crossed_bootstrap(lambda v: v.mean(axis=(-2, -1)), np.stack([of_seeds, of_images]))
    assert several[0].shape == (2,) and (several[0] < several[1]).all()
