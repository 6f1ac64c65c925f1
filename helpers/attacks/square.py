"""The Square attack: random search that asks the model for its logits only, never for gradients.

An image that it breaks, and that the gradient attacks leave, betrays a masked gradient.
"""
import numpy as np
import tensorflow as tf

from helpers.artifacts.progress import tqdm
from helpers.attacks import fgsm_pgd, gradients

HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # iterations, of 10,000


def square(model, x, y, *, eps, nb_iter=1000, p=0.8, seed=0, batch_size=256, positions=None):
    """Return for each image the perturbed one of smallest margin that the search has found.

    It lies within eps of x in L-infinity and in [0, 1]. nb_iter: queries for an image; the first is
    of vertical stripes, the others set a square to ±eps, one sign a channel, and keep it if the
    margin falls. p: share of the image that the first squares cover. An image is done with once its
    margin is negative; one that the model has wrong comes back as it is. The random numbers of image
    i are those of (seed, i), so that its answer does not depend on the batch or on later images;
    positions: as of attacks.pgd. The model may be any callable: it is only asked.
    Raises ValueError for what does not fit. Andriushchenko et al. 2020, arXiv:1912.00049; p is
    AutoAttack's (Croce and Hein 2020, arXiv:2003.01690).
    """
    x, y = gradients.checked(model, x, y, gradient=False)
    _check(eps, nb_iter, p, batch_size, x.shape)
    positions = fgsm_pgd.checked_positions(positions, len(x))
    query = gradients.answering(model, x)
    low, high = np.clip(x - np.float32(eps), 0, 1), np.clip(x + np.float32(eps), 0, 1)
    best, score = x.copy(), _margins(query, x, y, batch_size)
    with tqdm(range(nb_iter), desc="Square", unit="query", leave=False, delay=2) as bar:
        for i in bar:
            left = np.flatnonzero(score >= 0)
            if not len(left):
                break
            parts = low[left], high[left], best[left]
            numbers = np.random.default_rng([seed, i]).random((positions.max() + 1, *(
                (3 + x.shape[3],) if i else x.shape[2:])))[positions[left]]
            tried = (_squares(*parts, side(i, nb_iter, p, *x.shape[1:3]), numbers) if i
                     else _stripes(*parts[:2], numbers))
            value = _margins(query, tried, y[left], batch_size)
            better = (value < score[left]) | (i == 0)
            best[left[better]], score[left[better]] = tried[better], value[better]
            bar.set_postfix(left=len(left), refresh=False)
    return best


def side(i, nb_iter, p, height, width):
    """Return the side in pixels of the squares of iteration i.

    They cover the share p of the image, halved after each of HALVED, rescaled to nb_iter iterations.
    """
    share = p / 2 ** np.searchsorted(HALVED, i * 10_000 // nb_iter)
    return int(np.clip(round(np.sqrt(share * height * width)), 1, min(height, width)))


def _stripes(low, high, numbers):
    """Return images whose columns, each of one sign a channel, are those of `low` or of `high`."""
    return np.where(numbers[:, None] < 0.5, low, high)


def _squares(low, high, best, side, numbers):
    """Return `best` with a square of each image set to `low` or `high`, one choice a channel.

    numbers: uniform in [0, 1), (N, 3 + channels): row, column, a second choice, and the choices.
    One that would change nothing is made again among the others, which are equally likely.
    """
    n, height, width, channels = best.shape
    top = (numbers[:, 0] * (height - side + 1)).astype(int)[:, None]
    first = (numbers[:, 1] * (width - side + 1)).astype(int)[:, None]
    down, across = np.arange(height) - top, np.arange(width) - first
    inside = (((down >= 0) & (down < side))[:, :, None, None]
              & ((across >= 0) & (across < side))[:, None, :, None])
    up = numbers[:, 3:] < 0.5
    tried = np.where(inside, np.where(up[:, None, None], high, low), best)
    same = (tried == best).all(axis=(1, 2, 3))
    other = 1 + (numbers[same, 2] * (2 ** channels - 1)).astype(int)  # in bits: the channels to flip
    up = up[same] ^ (other[:, None] >> np.arange(channels) & 1).astype(bool)
    tried[same] = np.where(inside[same], np.where(up[:, None, None], high[same], low[same]),
                           best[same])
    return tried


def _margins(query, x, y, batch_size):
    """Return the margins of images x, float32 (N,), in batches; without a bar for each query."""
    values = []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        images, labels = (gradients.filled(array[rows]) for array in (x, y))
        values.append(gradients.margin(labels, query(tf.constant(images))).numpy()[:len(y[rows])])
    values = np.concatenate(values)
    gradients.check_finite(np.isfinite(values), "logits")
    return values


def _check(eps, nb_iter, p, batch_size, shape):
    fgsm_pgd.checked_eps("eps", eps, norm=np.inf, shape=shape)
    for name, value in (("nb_iter", nb_iter), ("batch_size", batch_size)):
        gradients.check_count(name, value)
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got {p!r}")
