"""Whether a quantity grows or falls along an axis of a study, over several seeds."""
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, page_trend_test
from scipy.stats import t as student


class Trend(NamedTuple):
    """What happens to a quantity of S seeds along V values of an axis."""
    tau: float       # mean over the seeds of Kendall's rank correlation with the axis
    tau_low: float   # its 95 % interval over seeds, within [-1, 1]
    tau_high: float
    change: float    # mean over the seeds of the last value less the first, and its interval
    low: float
    high: float
    effect: float    # that change over its standard deviation between seeds (Cohen's d of pairs)
    p: float         # of Page's test, two-sided


def mean_over_seeds(values):
    """Return (mean, low, high) of S >= 2 values, one a seed, with Student's 95 % interval."""
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 of them in a row, got {values.shape}")
    middle, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    half = student.ppf(0.975, len(values) - 1) * error
    return middle, middle - half, middle + half


def trend(values):
    """Return the Trend of values (S, V), finite, V >= 3.

    Page 1963, doi:10.1080/01621459.1963.10500843: ordered alternatives with each seed as a block, twice the
    smaller p of the two directions.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[1] < 3 or values.shape[0] < 2 or not np.isfinite(values).all():
        raise ValueError(f"a trend needs finite values of at least 2 seeds at 3 points, got {values.shape}")
    tau = np.array([np.nan_to_num(kendalltau(np.arange(len(row)), row).statistic) for row in values])
    change = values[:, -1] - values[:, 0]
    spread = change.std(ddof=1)
    effect = change.mean() / spread if spread else np.inf * change.mean() if change.any() else 0.0
    p = min(page_trend_test(part).pvalue for part in (values, values[:, ::-1]))
    return Trend(*np.clip(mean_over_seeds(tau), -1, 1), *mean_over_seeds(change), effect, min(1.0, 2 * p))


def holm(p):
    """Return the p values corrected for their number, in their order. Holm 1979."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return corrected
