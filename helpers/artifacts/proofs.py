"""What proves that a kept result is what a network gives: random samples, compared up to rounding.

On another processor logits differ in the last bits. So an answer counts as the same where the kept one is the
largest logit up to `rounding`. Where an attack ends may differ by more, since its steps follow the gradient's
signs: there the kept answer may lie a tenth of the range of the logits below, and a few may be any (`agree`).
With oneDNN's kernels for an older processor (ONEDNN_MAX_CPU_ISA=AVX2), 4 of 6,000 of our networks' answers
under attack change, and at most 1 of 64 at one radius. Samples are drawn at random, hundreds of them for one
report: a proof asks for what chance alone breaks once in a million (FALSE_ALARM).
"""
import numpy as np
import pandas as pd
from scipy.stats import binom

FALSE_ALARM = 1e-6  # the chance that a true artifact is refused, at one comparison
FEW = 16  # images attacked anew at once: a batch has so many rows anyway (gradients.ROWS)


def sample(rng, candidates, size):
    """Return at most `size` of the candidates (an array, or their number), drawn at random, in order."""
    candidates = np.arange(candidates) if np.ndim(candidates) == 0 else np.asarray(candidates)
    return np.sort(rng.choice(candidates, min(size, len(candidates)), replace=False))


def rounding(logits, attacked=False):
    """Return by how much each image's logits may differ between processors, (N,).

    attacked: these are of images attacked anew.
    """
    return 0.1 * np.ptp(logits, axis=1) if attacked else 1e-2 + 1e-3 * np.abs(logits).max(axis=1)


def same_answers(kept, logits, attacked=False):
    """Return where the kept answers are those of these logits, up to rounding, bool (N,)."""
    kept = np.asarray(kept).astype(int)
    if kept.shape != (len(logits),) or kept.min(initial=0) < 0 or kept.max(initial=0) >= logits.shape[1]:
        return np.zeros(len(logits), bool)
    return logits.max(axis=1) - logits[np.arange(len(logits)), kept] <= rounding(logits, attacked)


def same_logits(kept, now, attacked=False):
    """Return where kept logits are these, up to rounding, bool (N,)."""
    if np.shape(kept) != np.shape(now):
        return np.zeros(len(now), bool)
    return ~(np.abs(kept - now).max(axis=1) > rounding(now, attacked)) & np.isfinite(kept).all(axis=1)


def same_rows(table, expected):
    """Return whether a table has these columns first, and these rows: but for what writing as CSV changes."""
    if list(table)[:len(expected.columns)] != list(expected) or len(table) != len(expected):
        return False
    return all(np.allclose(table[name], column, rtol=0, atol=1e-9) if pd.api.types.is_numeric_dtype(column)
               else list(table[name].astype(object).where(table[name].notna(), "")) == list(column)
               for name, column in expected.items())


def agree(same, rate=0.001):
    """Return whether these comparisons hold, but for so many as `may_fail` at this rate."""
    same = np.asarray(same, bool)
    return bool(np.sum(~same) <= may_fail(same.size, rate))


def may_fail(count, rate):
    """Return how many of `count` comparisons of a true artifact may fail, where each does at this rate.

    So many as chance exceeds once in 1 / FALSE_ALARM times; one in 16 always, never more than one in four.
    """
    chance = binom.isf(FALSE_ALARM, count, rate) if count else 0
    return int(min(max(count // 16, chance), count // 4))


def prove(holds, what, recipe):
    """Raise ValueError, naming the network, unless what was kept of it `holds`."""
    if not holds:
        raise ValueError(f"the kept {what} of {recipe.filename} are not those that it computes: "
                         "delete the artifact to have it made again")
