"""Measures between maps of saliency, and of where a perturbation lies on them.

A map is (N, H, W), >= 0; maps that take a sign are (N, H, W, C). All raise ValueError for maps that are not
finite or of one shape.
"""
import numpy as np
import tensorflow as tf
from scipy.ndimage import correlate1d
from scipy.special import rel_entr
from scipy.stats import rankdata


def spearman(one, two):
    """Return the rank correlation of each pair of maps, (N,); NaN where a map is constant."""
    _check_maps(one, two)
    return _correlation(*(rankdata(part.reshape(len(part), -1), axis=1) for part in (one, two)))


def ssim(one, two):
    """Return the structural similarity of each pair of maps, each brought to a largest value of 1: (N,).

    NaN where one is zero. Wang et al. 2004, doi:10.1109/TIP.2003.819861: windows of 7 pixels.
    """
    _check_maps(one, two, smallest=0)
    if min(one.shape[1:]) < 7:
        raise ValueError("maps must be at least 7 pixels high and wide, got "
                         f"{one.shape[1]} by {one.shape[2]}")
    tops = [part.max(axis=(1, 2)) for part in (one, two)]
    scaled = [(part / np.where(top > 0, top, 1)[:, None, None])[..., None].astype(np.float32)
              for part, top in zip((one, two), tops)]
    found = tf.image.ssim(*map(tf.constant, scaled), max_val=1.0, filter_size=7).numpy()
    return np.where((tops[0] > 0) & (tops[1] > 0), found, np.nan)


def top(maps, share):
    """Return weights (N, H, W) of the top `share` of each map's pixels, which add up to that share of all.

    1 above the threshold, 0 below; pixels that are equal at the threshold share what is left.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share!r}")
    _check_maps(maps)
    flat = maps.reshape(len(maps), -1)
    count = share * flat.shape[1]
    threshold = -np.sort(-flat, axis=1)[:, int(np.ceil(count)) - 1][:, None]
    above, level = flat > threshold, flat == threshold
    left = (count - above.sum(axis=1, keepdims=True)) / level.sum(axis=1, keepdims=True)
    return np.where(above, 1.0, np.where(level, left, 0.0)).reshape(maps.shape)


def overlap(one, two, share=0.1):
    """Return how much of the top `share` of one map is in that of the other, (N,): by chance, `share`."""
    _check_maps(one, two)
    a, b = top(one, share), top(two, share)
    return (a * b).sum(axis=(1, 2)) / a.sum(axis=(1, 2))


def energy_share(delta, maps, share=0.1):
    """Return which part of a perturbation's energy falls on the top `share` of each map's pixels, (N,).

    delta: (N, H, W, C). By chance it is `share`; NaN where delta is zero.
    """
    _check_maps(delta, rank=4)
    _check_maps(maps, delta[..., 0])
    energy = np.square(delta.astype(np.float64)).sum(axis=3)
    total = energy.sum(axis=(1, 2))
    return np.divide((top(maps, share) * energy).sum(axis=(1, 2)), total, out=np.full(len(total), np.nan),
                     where=total > 0)


def centroid_shift(one, two):
    """Return the distance in pixels between the centres of mass of each pair of maps, (N,); NaN of zeros."""
    _check_maps(one, two, smallest=0)
    return np.hypot(*(_centroid(two) - _centroid(one)))


def jensen_shannon(one, two):
    """Return the Jensen-Shannon divergence of each pair of maps as distributions, in bits: (N,) in [0, 1].

    NaN where one is zero. Lin 1991, doi:10.1109/18.61115.
    """
    _check_maps(one, two, smallest=0)
    a, b = (part.reshape(len(part), -1).astype(np.float64) for part in (one, two))
    sums = [part.sum(axis=1, keepdims=True) for part in (a, b)]
    a, b = (part / np.where(size > 0, size, 1) for part, size in zip((a, b), sums))
    middle = (a + b) / 2
    found = (rel_entr(a, middle) + rel_entr(b, middle)).sum(axis=1) / (2 * np.log(2))
    return np.where((sums[0][:, 0] > 0) & (sums[1][:, 0] > 0), found, np.nan)


def alignment(x, gradient):
    """Return the absolute cosine between images and gradients (N, H, W, C), each less its mean: (N,).

    NaN where one is constant.
    """
    _check_maps(x, gradient, rank=4)
    return np.abs(_correlation(*(part.reshape(len(part), -1).astype(np.float64) for part in (x, gradient))))


def edges(x):
    """Return how steep images (N, H, W, C) are, (N, H, W): the norm of Sobel's two differences."""
    _check_maps(x, rank=4)
    steep = [correlate1d(correlate1d(x.astype(np.float64), [-1, 0, 1], across), [1, 2, 1], along)
             for across, along in ((1, 2), (2, 1))]
    return np.sqrt(np.square(steep).sum(axis=(0, 4)))


def _correlation(a, b):
    """Return the correlation of each row of two arrays (N, pixels); NaN where one is constant."""
    constant = (np.ptp(a, axis=1) == 0) | (np.ptp(b, axis=1) == 0)  # whose mean may round to another number
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    norm = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), norm, out=np.full(len(a), np.nan), where=(norm > 0) & ~constant)


def _check_maps(*maps, rank=3, smallest=-np.inf):
    """Raise ValueError unless maps are finite arrays of one shape and this rank, of values >= smallest."""
    for part in maps:
        shape = np.shape(part)
        if not isinstance(part, np.ndarray) or len(shape) != rank or 0 in shape:
            raise ValueError(f"maps must be arrays ({', '.join('NHWC'[:rank])}) with N >= 1, got {shape}")
        if shape != np.shape(maps[0]):
            raise ValueError(f"maps must be of one shape, got {np.shape(maps[0])} and {shape}")
        if not np.isfinite(part).all():
            raise ValueError(f"maps must be finite, and {(~np.isfinite(part)).sum()} of {part.size} values "
                             "are not")
        if part.min() < smallest:
            raise ValueError(f"maps must be >= {smallest}, got {part.min()}: of one with signs, take the "
                             "magnitude")


def _centroid(maps):
    """Return the (row, column) of the centres of mass, (2, N)."""
    total = maps.sum(axis=(1, 2))
    row, column = np.arange(maps.shape[1]), np.arange(maps.shape[2])
    weighed = np.stack([(maps.sum(axis=2) * row).sum(axis=1), (maps.sum(axis=1) * column).sum(axis=1)])
    return np.divide(weighed, total, out=np.full(weighed.shape, np.nan), where=total > 0)
