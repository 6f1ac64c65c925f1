"""What the images are before any network: strokes, classes, colours, and the distances between them."""
from typing import NamedTuple

import numpy as np

from helpers import datasets


class Strokes(NamedTuple):
    """How digits lie in their images: lengths in pixels, the rest shares of images or of pixels."""
    n: int
    longest: int
    of_twenty: float
    centred: float
    zero: float
    white: float


class Classes(NamedTuple):
    """How balanced labels are: the most and least frequent class, their counts, the share of the first."""
    most: int
    most_count: int
    least: int
    least_count: int
    share: float


class Distances(NamedTuple):
    """L2 norms of images (n,), distances of all pairs, and of each image to another class's nearest (n,)."""
    norm: np.ndarray
    pair: np.ndarray
    other: np.ndarray


class Radii(NamedTuple):
    """The longest L2 norms of perturbations of a data set's two usual L-infinity radii, and these as shares.

    Shares of the median distance to the nearest image of another class.
    """
    small: float
    reference: float
    small_share: float
    reference_share: float


def strokes(data):
    """Return the Strokes of a data set of digits, over training and test images; the first channel counts.

    longest: the longer side of a digit's box, at most; of_twenty: images where it is 20; centred: where the
    centre of mass is nearer than a pixel to the image's, along each axis; zero: pixels of exactly 0; white:
    of the others, those of at least 0.99.
    """
    ink = np.concatenate([data.x_train, data.x_test])[..., 0]
    height, width = ink.shape[1:]
    rows, columns = ink.any(axis=2), ink.any(axis=1)
    side = np.max([height - rows.argmax(1) - rows[:, ::-1].argmax(1),
                   width - columns.argmax(1) - columns[:, ::-1].argmax(1)], axis=0)
    mass = ink.sum(axis=(1, 2))
    centre = [ink.sum(axis=2) @ (np.arange(height) + 0.5) / mass - height / 2,
              ink.sum(axis=1) @ (np.arange(width) + 0.5) / mass - width / 2]
    lit = ink[ink > 0]
    return Strokes(len(ink), int(side.max()), float(np.mean(side == 20)),
                   float(np.mean(np.abs(centre).max(axis=0) < 1)), 1 - lit.size / ink.size,
                   float(np.mean(lit >= 0.99)))


def classes(y):
    """Return the Classes of labels (N,)."""
    counts = np.bincount(y)
    most, least = int(counts.argmax()), int(counts.argmin())
    return Classes(most, int(counts[most]), least, int(counts[least]), float(counts[most] / counts.sum()))


def colours(dataset):
    """Return (number of training images, [(mean, deviation) of each channel, in levels of 0..255]).

    Of all its training images, also where only a part is at hand.
    """
    table = datasets.statistics(dataset)
    train = table[table.split == "train"].set_index("quantity").value
    channels = datasets.record(dataset).shape[2]
    count = int(sum(value for name, value in train.items() if name.startswith("class ")))
    return count, [(255 * float(train[f"mean {c}"]), 255 * float(train[f"deviation {c}"]))
                   for c in range(channels)]


def of_each_class(y, count, order=None):
    """Return the indices of the first `count` of each class, (classes, count).

    order: the classes, in the order wanted; None, by number. Raises ValueError where a class has fewer.
    """
    found = [np.flatnonzero(y == k)[:count] for k in (range(int(y.max()) + 1) if order is None else order)]
    if min(map(len, found)) < count:
        raise ValueError(f"count must be at most {min(map(len, found))}, the images of the rarest class, got "
                         f"{count}")
    return np.stack(found)


def drawn(y, count, seed):
    """Return the indices of `count` of the labels (N,), drawn at random without repetition."""
    return np.random.default_rng(seed).choice(len(y), count, replace=False)


def distances(data, n=2000):
    """Return the Distances between the first n test images of a data set, as many as there are."""
    x, y = data.x_test[:n].reshape(len(data.x_test[:n]), -1), data.y_test[:n]
    squares = (x ** 2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0))
    other = np.where(y[:, None] == y, np.inf, apart).min(axis=1)
    return Distances(np.sqrt(squares), apart[np.triu_indices(len(x), 1)], other)


def radii(record, scale):
    """Return the Radii of a data set, by its record and the Distances of its images."""
    side, middle = float(np.sqrt(np.prod(record.shape))), float(np.median(scale.other))
    small, reference = record.small * side, record.reference * side
    return Radii(small, reference, small / middle, reference / middle)
