"""Where walks to the boundary may begin, apart from the image itself: on the way to other images."""
import numpy as np

from helpers.attacks import gradients


def checked_starts(starts, x):
    """Return starts as (images, labels, squares of their lengths), or None.

    Raises ValueError unless they fit x.
    """
    if starts is None:
        return None
    if not isinstance(starts, tuple) or len(starts) != 2:
        raise ValueError(f"starts must be None or (images, labels), got {type(starts).__name__}")
    images, labels = gradients.checked_images(starts[0]), np.asarray(starts[1])
    if images.shape[1:] != x.shape[1:]:
        raise ValueError(f"starts must be images of shape {x.shape[1:]}, got {images.shape[1:]}")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"the labels of starts must be {len(images)} integers, got {labels.dtype} "
                         f"{labels.shape}")
    return images, labels, np.square(images.reshape(len(images), -1)).sum(axis=1)


def ends_of(starts, x, y, count, sign, seed, positions):
    """Return `count` arrays of images (n, H, W, C) for walks from x to go towards, nearer ones first.

    starts: of `checked_starts`, of which the nearest of each other class come first; None: the negative of x,
    then noise of (seed, position). sign: 1, or -1 where y are targets: then towards images of these.
    """
    if not count:
        return []
    if starts is None:
        return [1 - x, *(_noise(x.shape[1:], seed, turn, positions) for turn in range(count - 1))]
    images, labels, squares = starts
    square = squares - 2 * x.reshape(len(x), -1) @ images.reshape(len(images), -1).T
    places = [_nearest(own, labels, label, count, sign) for own, label in zip(square, y, strict=True)]
    return list(images[np.stack(places).T])


def _noise(shape, seed, turn, positions):
    """Return an image of noise for each position, (n, H, W, C), which depends on nothing else."""
    return np.stack([np.random.default_rng([seed, turn, position]).random(shape, np.float32)
                     for position in positions])


def _nearest(square, labels, label, count, sign):
    """Return the places of `count` start images: the nearest of each class that counts, then the next."""
    found = []
    for name in np.unique(labels):
        if (name == label) == (sign < 0):
            places = np.flatnonzero(labels == name)
            first = places[np.argpartition(square[places], min(count, len(places)) - 1)[:count]]
            found += [(turn, square[place], place)
                      for turn, place in enumerate(first[np.argsort(square[first])])]
    if not found:
        raise ValueError(f"starts must hold images of {'class' if sign < 0 else 'classes other than'} "
                         f"{label}, got classes {', '.join(map(str, np.unique(labels)))}")
    return np.resize([place for *_, place in sorted(found)], count)
