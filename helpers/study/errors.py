"""In what networks err, and how sure they are: confusions, calibration, margins too large for float32.

logits: (N, classes); y: the true labels, (N,).
"""
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix

from helpers import datasets
from helpers.statistics import intervals
from helpers.study import accuracy

# Beyond this margin, with one rival of importance, 1 - p_y of the true class rounds to 0 in float32: 2^-24.
VANISHING = 24 * np.log(2)


class Confused(NamedTuple):
    """The two classes that are taken for one another most often: how often, of how many errors and images.

    named: the pair in words, as the data set names its classes. next: how often the pair that comes second
    is. stands_out: whether the first is more frequent than the second beyond chance: of the images of both,
    a share of more than half, by its Wilson interval.
    """
    pair: tuple
    named: str
    count: int
    next: int
    stands_out: bool
    errors: int
    n: int


class Reported(NamedTuple):
    """An error rate that a paper reports of a network, our Estimate, and the citation's key and locator."""
    recipe: object
    theirs: float
    ours: intervals.Estimate
    source: str


class Calibration(NamedTuple):
    """The expected calibration error (an Estimate over images), the mean confidence, and the accuracy."""
    error: intervals.Estimate
    confidence: float
    accuracy: float


def wrong(logits, y):
    """Return the indices of the images that are misclassified, in order."""
    return np.flatnonzero(logits.argmax(axis=1) != y)


def surest(logits, y, count):
    """Return the indices of `count` misclassified images, at most, of the greatest probability, falling."""
    found = wrong(logits, y)
    return found[np.argsort(-accuracy.probabilities(logits)[found].max(axis=1), kind="stable")[:count]]


def confusion(logits, y):
    """Return the confusion matrix, counts (classes, classes): true classes in rows, answers in columns."""
    return confusion_matrix(y, logits.argmax(axis=1), labels=range(logits.shape[1]))


def confused(measured):
    """Return the Confused of networks, by data set and architecture: {data set: {architecture: Confused}}.

    measured: dict of Recipe to (logits, y).
    """
    return by_name({recipe: most_confused(*answers, datasets.record(recipe.dataset).class_names)
                    for recipe, answers in measured.items()})


def most_confused(logits, y, names):
    """Return the Confused of these answers; with no error, of the classes 0 and 1 and a count of 0.

    names: of the classes, each with its Spanish name `es`.
    """
    matrix = confusion(logits, y)
    both = np.triu(matrix + matrix.T, 1)
    one, other = map(int, np.unravel_index(both.argmax(), both.shape)) if both.any() else (0, 1)
    count, after = (int(value) for value in np.sort(both, axis=None)[:-3:-1])
    stands_out = bool(count) and intervals.interval(count, count + after)[0] > 0.5
    return Confused((one, other), f"{names[one].es} con {names[other].es}", count, after, stands_out,
                    int(matrix.sum() - np.trace(matrix)), len(y))


def by_name(found):
    """Return a dict of Recipe to anything as {data set: {architecture: it}}, with {} for other data sets."""
    return {name: {recipe.architecture: one for recipe, one in found.items() if recipe.dataset == name}
            for name in datasets.NAMES}


def calibration(logits, y, repeats=200):
    """Return the Calibration of these answers; the error's interval resamples images."""
    error = accuracy.calibration_error(logits, y)
    low, high = intervals.bootstrap(accuracy.calibration_error, logits, y, repeats=repeats)
    return Calibration(intervals.Estimate(error, float(low), float(high)),
                       float(accuracy.probabilities(logits).max(axis=1).mean()),
                       float(np.mean(logits.argmax(axis=1) == y)))


def vanishing(logits, y):
    """Return the share of images on which 1 - p_y rounds to zero in float32, an Estimate (Wilson).

    There the odds against the true class, the sum of exp(z_j - z_y) over the others, are below 2^-24; with
    one rival of importance, where the margin is beyond VANISHING.
    """
    behind = np.float64(logits) - np.float64(logits)[np.arange(len(y)), y][:, None]
    behind[np.arange(len(y)), y] = -np.inf
    return intervals.proportion(np.exp(behind).sum(axis=1) < 2.0**-24)


def accuracy_gain(better, worse):
    """Return the difference of two networks' accuracies on the same images: an Estimate, resampling images.

    better, worse: (logits, y) of each. Raises ValueError unless their labels are the same.
    """
    if not np.array_equal(better[1], worse[1]):
        raise ValueError(f"the networks must have answered to the same images, got {len(better[1])} and "
                         f"{len(worse[1])}")
    one, two = (logits.argmax(axis=1) == y for logits, y in (better, worse))
    return intervals.paired(one, two)


def gains(measured, better, worse):
    """Return the `accuracy_gain` of one architecture over another by data set, where both were measured.

    measured: dict of Recipe to (logits, y).
    """
    by = {(recipe.dataset, recipe.architecture): answers for recipe, answers in measured.items()}
    return {name: accuracy_gain(answers, by[name, worse]) for (name, built), answers in by.items()
            if built == better and (name, worse) in by}


def reported(measured):
    """Return the Reported error of the first network of which its data set's record knows one, or None.

    measured: dict of Recipe to (logits, y). Only where all the test images were measured, as in the paper.
    """
    for recipe, (logits, y) in measured.items():
        record = datasets.record(recipe.dataset)
        known = record.published.errors.get(recipe.architecture) if record.published else None
        if known and len(y) == record.full.test:
            ours = intervals.proportion(logits.argmax(axis=1) != y)
            return Reported(recipe, known[0], ours, known[1])
    return None
