"""Estimates with their uncertainty: intervals of proportions and of resampled statistics."""
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


class Estimate(NamedTuple):
    """A value with its 95 % interval."""
    value: float
    low: float
    high: float


def interval(correct, n):
    """Return the 95 % interval (low, high) of a proportion of `correct` in n. Wilson 1927."""
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"correct must be in 0..n with n >= 1, got {correct} of {n}")
    return tuple(binomtest(int(correct), int(n)).proportion_ci(method="wilson"))


def share(right):
    """Return the share of true ones in (N,) booleans and its `interval`: an array (3,), NaN where N = 0."""
    return np.array([right.mean(), *interval(right.sum(), len(right))]) if len(right) else np.full(3, np.nan)


def proportion(right):
    """Return the `share` of true ones in booleans (N,) as an Estimate."""
    return Estimate(*share(np.asarray(right)).tolist())


def paired(one, two):
    """Return the Estimate of the mean of one - two, of the same images (N,) each, as `mean` gives it."""
    return Estimate(*map(float, mean(np.asarray(one, float) - np.asarray(two, float))))


def bootstrap(statistic, *arrays, repeats=1000, seed=0):
    """Return the 95 % percentile interval (low, high) of statistic(*arrays), resampling images.

    statistic: returns a number, or an array, of whose entries each has its interval.
    """
    return tuple(np.percentile(_resampled(statistic, arrays, repeats, seed), [2.5, 97.5], axis=0))


def unbiased(statistic, *arrays, repeats=1000, seed=0):
    """Return (value, low, high) of a statistic less its bias, with its basic 95 % interval.

    Images are resampled. For one that noise shifts, as a correlation between means over images: resamples
    have the noise twice, and lie all to one side of it. Each result is twice the statistic less the mean, or
    the other percentile, of the resamples. Davison & Hinkley 1997, chapters 2 and 5.
    """
    value, values = statistic(*arrays), _resampled(statistic, arrays, repeats, seed)
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    return 2 * value - np.mean(values, axis=0), 2 * value - high, 2 * value - low


def mean(values):
    """Return (mean, low, high) of the finite values (N,), with its 95 % interval; NaN where none is."""
    values = values[np.isfinite(values)]
    return (values.mean(), *bootstrap(np.mean, values)) if len(values) else (np.nan,) * 3


def crossed_bootstrap(statistic, values, repeats=500, seed=0):
    """Return the 95 % interval (low, high) of statistic(values), resampling seeds and images at once.

    values: (..., S, n), of S networks on the same n images; both last axes are resampled, each by itself.
    statistic: takes such an array and returns a number or an array. The pigeonhole
    bootstrap of Owen 2007, Annals of Applied Statistics 1(2).
    """
    rng = np.random.default_rng(seed)
    seeds, images = values.shape[-2:]
    draws = [statistic(values[..., rng.integers(0, seeds, seeds)[:, None], rng.integers(0, images, images)])
             for _ in range(repeats)]
    return tuple(np.percentile(draws, [2.5, 97.5], axis=0))


def _resampled(statistic, arrays, repeats, seed):
    """Return statistic(*arrays) of each of `repeats` resamples of the images, (repeats, ...)."""
    rng, n = np.random.default_rng(seed), len(arrays[0])
    chosen = (rng.integers(0, n, n) for _ in range(repeats))
    return np.array([statistic(*(array[rows] for array in arrays)) for rows in chosen])


def r_squared(measurement, prediction):
    """Return the share of the measurement's variance that the prediction explains, unfitted; <= 1."""
    measurement, prediction = np.ravel(measurement), np.ravel(prediction)
    residual = np.square(measurement - prediction).sum()
    return float(1 - residual / np.square(measurement - measurement.mean()).sum())
