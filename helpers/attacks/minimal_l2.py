"""The smallest L2 perturbation that so many passes find: a tournament of walks towards the image.

A walk is that of DDN (Rony et al. 2019, arXiv:1811.09600): a step along the normalised gradient of a margin,
then a rescaling to a radius that shrinks where the iterate is adversarial and grows where not. Except that

- steps are relative to the radius, and the radius starts from the distance F / |∇F| of a linear model, so that
  one setting serves distances of hundredths and of units;
- how fast the radius changes falls along with the steps, and is no more than a linear model asks for.

Where a walk ends depends mostly on where it began. So there are several for an image (`_tournament`), each with
the same share of a round's passes; the half that is behind is given up after each round, as in successive
halving (Jamieson and Talwalkar 2016, arXiv:1502.07943). Half of them begin at x, each against another rival
class, as in our `carlini_wagner`; half at a point of the boundary on the line to an image that the model takes
for another class, as in Brendel et al. 2019, arXiv:1907.01003, since from x itself all may end in a wrong basin.
"""
from numbers import Real
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from helpers.artifacts.progress import tqdm
from helpers.attacks import fgsm_pgd, gradients
from helpers.attacks.carlini_wagner import _gap, _size, _wide, _won

WALKS = ((0, 1), (16, 2), (60, 4), (200, 8), (600, 16), (3000, 32))  # from so many passes on, so many walks
FAVOUR = 0.8
CYCLE = 100
FIRST_STEPS = (2.0, 0.5, 2.0, 0.5, 2.0, 2.0, 2.0, 2.0)
LAST_STEP = 0.03  # of a walk, relative to its radius: its first and its last
SHRINK, LAST_SHRINK = 0.3, 0.003  # of the radius at a step, relative: at most
FIRST = 1.5             # of a linear model's distance: the first radius of a walk from x
LEAST = 0.2             # of SHRINK: what the radius changes at least
FORWARD = 0.5           # passes that one question without a gradient counts
PROBES, HALVINGS = 4, 3  # questions for a point of the boundary, and for the end of the last walk
REACH = 0.98            # of the shortest perturbation: where the last halving begins


class _Task(NamedTuple):
    """What all walks share. sign: 1, or -1 if targeted; begins: (images, labels) or None."""
    model: object
    sign: float
    confidence: float
    begins: tuple | None
    seed: int
    batch_size: int


def minimal_l2(model, x, y, *, passes=1000, targeted=False, confidence=0.0, starts=None, seed=0, batch_size=128,
               positions=None, return_passes=False):
    """Return adversarial images as near x in L2 as `passes` find, within [0, 1]; x itself where none was found.

    model, x, y: as in attacks. passes: forward-and-backward evaluations an image, at most; a forward one alone
    counts half. confidence: the logit gap by which the attacker must win, >= 0. starts: (images, labels) of
    the model's task, as of its training, for walks to begin on the way to; None: the negative of x and noise
    take their place. seed: of the noise; positions: as of attacks.pgd. batch_size: of walks. return_passes:
    whether to return (x_adv, passes used, float (N,)). An image that the model has wrong comes back as it is.
    What an image gets depends neither on batch_size nor on the other images, but for rounding. Raises
    ValueError for what does not fit, and where a gradient on the way is not finite.
    """
    x, y = gradients.checked(model, x, y)
    _check_settings(passes, confidence, seed, batch_size, return_passes)
    positions, begins = fgsm_pgd.checked_positions(positions, len(x)), _checked_starts(starts, x)
    task = _Task(model, -1.0 if targeted else 1.0, float(confidence), begins, seed, batch_size)
    logits = gradients.logits(model, x, batch_size)
    if targeted:
        gradients.checked_targets(logits, y)
    size, x_adv, used = _size(logits, y), x.copy(), np.full(len(x), FORWARD)
    waiting = np.flatnonzero(~_won(size, task.sign, confidence, y, logits).numpy())
    found, zero = np.zeros((2, len(x)), bool)
    with tqdm(total=len(waiting), desc="smallest L2", unit="img", leave=False, delay=2) as bar:
        for rows in np.split(waiting, range(batch_size, len(waiting), batch_size)):
            parts = x[rows], y[rows], size[rows], logits[rows], positions[rows]
            x_adv[rows], used[rows], found[rows], zero[rows] = _tournament(task, passes, *parts)
            bar.update(len(rows))
    gradients.warn_of_zeros(zero & ~found, "margin")
    return (x_adv, used) if return_passes else x_adv


def rounds(passes):
    """Return the rounds of a tournament of so many passes, a list of (walks, steps of each).

    One after another they take passes - what is asked before and after; each but the last takes the same.
    """
    walks = max(walks for least, walks in WALKS if passes >= least)
    left = passes - FORWARD * (1 + PROBES * (walks // 2) + HALVINGS)
    if left < walks:
        return [(1, max(0, int(passes - FORWARD)))]
    counts = [walks >> i for i in range(walks.bit_length())]
    steps = [int(left / len(counts) / count) for count in counts]
    steps[-1] = int(left - sum(a * b for a, b in zip(counts[:-1], steps[:-1], strict=True)))
    return list(zip(counts, steps, strict=True))


def _tournament(task, passes, x, y, size, logits, positions):
    """Return (x_adv, passes used, whether found, whether the gradient was always zero) for these images."""
    plan, used = rounds(passes), FORWARD
    walks = _begin(task, plan[0][0], x, y, size, logits, positions)
    used += FORWARD * PROBES * (plan[0][0] // 2)
    total, done = sum(steps for _, steps in plan), 0
    for count, steps in plan:
        walks = _leaders(walks, count, FAVOUR if plan[0][0] == 2 else 1.0)
        if total <= CYCLE:
            _walk(task, walks, steps, done, total)
        else:
            _walk(task, walks, steps, 0, steps)
            walks = _again(walks)
        done += steps
        used += count * steps
    walks = _leaders(walks, 1)
    found = np.isfinite(walks["best"].ravel())
    if used + FORWARD * HALVINGS <= passes:
        _shorten(task, walks)
        used += FORWARD * HALVINGS
    return walks["x_adv"], used, found, walks["zero"].all(axis=1)


def _begin(task, count, x, y, size, logits, positions):
    """Return `count` walks an image, arrays (n, count, ...) by name.

    x, y, size: the image's own; rivals (n, count, classes): those whose margin is followed; z: where the walk is;
    radius: how far from x it may be, 0 where its first gradient says it; best: the smallest distance of an
    adversarial image so far, of x_adv; zero: whether the gradient was always zero.
    """
    shape = (len(x), count)
    spread = lambda part: np.broadcast_to(part[:, np.newaxis], (*shape, *part.shape[1:])).copy()
    walks = {"x": spread(x), "y": spread(y), "size": spread(size), "z": spread(x), "x_adv": spread(x),
             "rivals": spread(np.arange(logits.shape[1]) != y[:, np.newaxis]), "zero": np.ones(shape, bool)}
    steps = np.resize(np.float32(FIRST_STEPS), count)
    walks["step"] = np.broadcast_to(steps.reshape(1, -1, 1, 1, 1), (*shape, 1, 1, 1)).copy()
    walks["first"] = np.broadcast_to(np.arange(count) == 0, shape)
    walks["radius"] = np.zeros((*shape, 1, 1, 1), np.float32)
    walks["best"] = np.full((*shape, 1, 1, 1), np.inf, np.float32)
    if task.sign > 0:
        order = np.argsort(np.where(walks["rivals"][:, 0], -logits, np.inf), axis=1, kind="stable")
        for walk in range(2, min(count, 2 * logits.shape[1] - 2), 2):  # the first of all follows whichever is nearest
            walks["rivals"][:, walk] = np.arange(logits.shape[1]) == order[:, walk // 2, np.newaxis]
    ends = _ends(task, x, y, count // 2, positions)
    for walk, far in enumerate(ends):
        _to_boundary(task, walks, 2 * walk + 1, far)
    return walks


def _ends(task, x, y, count, positions):
    """Return `count` arrays of images (n, H, W, C), to go towards from x: the nearest of other classes first."""
    if not count:
        return []
    if task.begins is None:
        noise = (np.random.default_rng([task.seed, i]).random((positions.max() + 1, *x.shape[1:]), np.float32)
                 for i in range(count - 1))
        return [1 - x, *(each[positions] for each in noise)]
    images, labels, squares = task.begins
    square = squares - 2 * x.reshape(len(x), -1) @ images.reshape(len(images), -1).T
    ends = np.stack([_nearest(own, (labels == label) == (task.sign < 0), labels, count) for own, label in zip(square, y, strict=True)])
    return list(images[ends.T])


def _nearest(square, allowed, labels, count):
    """Return the places of `count` start images: the nearest of each class that is allowed, then the next of each."""
    found = []
    for name in np.unique(labels[allowed]):
        places = np.flatnonzero(labels == name)
        first = places[np.argpartition(square[places], min(count, len(places)) - 1)[:count]]
        found += [(turn, square[place], place) for turn, place in enumerate(first[np.argsort(square[first])])]
    return np.resize([place for *_, place in sorted(found)], count)


def _to_boundary(task, walks, walk, far):
    """Put this walk of every image at an adversarial point on the line from x to `far`, or at `far` itself."""
    x, y, size = (walks[name][:, walk] for name in ("x", "y", "size"))
    low, high = np.zeros((len(x), 1, 1, 1), np.float32), np.ones((len(x), 1, 1, 1), np.float32)
    for _ in range(PROBES):
        middle = (low + high) / 2
        won = _asked(task, x + middle * (far - x), y, size)
        low, high = np.where(won, low, middle), np.where(won, middle, high)
    walks["z"][:, walk] = x + high * (far - x)
    walks["radius"][:, walk] = fgsm_pgd.l2(walks["z"][:, walk] - x).reshape(-1, 1, 1, 1)


def _asked(task, images, y, size):
    """Return where the model takes these images as the attacker wants, bool (n, 1, 1, 1)."""
    logits = gradients.logits(task.model, images, task.batch_size)
    return _won(size, task.sign, task.confidence, y, logits).numpy().reshape(-1, 1, 1, 1)


def _leaders(walks, count, favour=1.0):
    """Return of each image the `count` walks that have come nearest, by their order."""
    best = walks["best"][:, :, 0, 0, 0] * np.where(walks["first"], favour, 1)
    order = np.argsort(best, axis=1, kind="stable")[:, :count]
    rows = np.arange(len(order))[:, np.newaxis]
    return {name: part[rows, order] for name, part in walks.items()}


def _again(walks):
    """Return the walks, those that have found something back at its nearest."""
    found = np.isfinite(walks["best"])
    return {**walks, "z": np.where(found, walks["x_adv"], walks["z"]), "radius": np.where(found, walks["best"], walks["radius"])}


def _walk(task, walks, steps, done, total):
    """Let every walk go so many steps."""
    run = gradients.made_once(_compiled, task.model)
    names = ("x", "y", "rivals", "size", "step", "z", "radius", "best", "x_adv", "zero")
    shape = walks["y"].shape
    flat = [walks[name].reshape(-1, *walks[name].shape[2:]) for name in names]
    results, fine = [np.empty_like(part) for part in flat[5:]], np.empty(len(flat[1]), bool)
    told = tf.constant(steps), tf.constant(done), tf.constant(total), tf.constant(task.sign), tf.constant(task.confidence)
    for rows, *parts in gradients.batches(task.batch_size, *flat):
        for kept, result in zip((*results, fine), run(*parts, *told), strict=True):
            kept[rows] = result.numpy()[:rows.stop - rows.start]
    gradients.check_finite(fine.reshape(shape).all(axis=1))
    walks.update({name: part.reshape(*shape, *part.shape[1:]) for name, part in zip(names[5:], results, strict=True)})


def _compiled(model):
    return gradients.compile(_steps, gradients.function(model, _gap))


def _steps(gradient, x, y, rivals, size, first, z, radius, best, x_adv, zero, steps, done, total, sign, confidence):
    """Return what changes, from z to zero, after so many steps, and whether all was finite."""
    fine, one = tf.fill(tf.shape(y), True), tf.ones_like(size)
    for step in tf.range(done, done + steps):
        logits, g = gradient(z, y, rivals, one)
        fine &= gradients.finite(logits, g)
        zero &= tf.reduce_all(g == 0, axis=(1, 2, 3))
        won = _wide(_won(size, sign, confidence, y, logits))
        away = z - x
        length = _length(away)
        nearer = won & (length < best)
        best, x_adv = tf.where(nearer, length, best), tf.where(nearer, z, x_adv)
        F = _wide(confidence - sign * _gap(y, rivals, one, logits))
        g, distance = _unit(sign * g, F)
        radius = _next_radius(radius, best, won, distance, g, away, length, _fall(SHRINK, LAST_SHRINK, step, total))
        away += _fall(first, LAST_STEP, step, total) * radius * g
        z = tf.clip_by_value(x + away * tf.math.divide_no_nan(radius, _length(away)), 0.0, 1.0)
    return z, radius, best, x_adv, zero, fine


def _unit(g, F):
    """Return (g of length 1, how far F = 0 would be if F were linear); zero where g is."""
    largest = tf.reduce_max(tf.abs(g), axis=(1, 2, 3), keepdims=True)  # so that squares neither vanish nor overflow
    g = tf.math.divide_no_nan(g, largest)
    length = _length(g)
    return tf.math.divide_no_nan(g, length), tf.math.divide_no_nan(tf.math.divide_no_nan(F, largest), length)


def _next_radius(radius, best, won, distance, g, away, length, shrink):
    """Return the radius of the next iterate: smaller where the attacker has won, greater where not."""
    along = tf.maximum(tf.reduce_sum(g * away, axis=(1, 2, 3), keepdims=True), LEAST * length)  # of F's fall, times length
    wanted = tf.math.divide_no_nan(tf.abs(distance), along)
    change = tf.clip_by_value(wanted, LEAST * shrink, shrink)
    next_radius = tf.where(won, tf.minimum(radius, best) * (1 - change), radius * (1 + change))
    return tf.where(radius > 0, next_radius, FIRST * tf.abs(distance))


def _fall(first, last, step, total):
    """Return the value at this step of a cosine's half wave from first to last."""
    share = tf.cast(step, tf.float32) / tf.cast(tf.maximum(total - 1, 1), tf.float32)
    return last + (first - last) * (1 + tf.cos(np.pi * share)) / 2


def _length(images):
    return tf.sqrt(tf.reduce_sum(tf.square(images), axis=(1, 2, 3), keepdims=True))


def _shorten(task, walks):
    """Make what was found shorter along itself, by halvings, where it still succeeds."""
    x, y, size, found = (walks[name][:, 0] for name in ("x", "y", "size", "x_adv"))
    low, high = np.full((len(x), 1, 1, 1), REACH, np.float32), np.ones((len(x), 1, 1, 1), np.float32)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        won = _asked(task, x + middle * (found - x), y, size)
        low, high = np.where(won, low, middle), np.where(won, middle, high)
    walks["x_adv"] = np.where(high < 1, x + high * (found - x), found)


def _checked_starts(starts, x):
    """Return starts as (images, labels, squares of their lengths), or None; raise ValueError unless they fit x."""
    if starts is None:
        return None
    if not isinstance(starts, tuple) or len(starts) != 2:
        raise ValueError(f"starts must be None or (images, labels), got {type(starts).__name__}")
    images, labels = gradients.checked_images(starts[0]), np.asarray(starts[1])
    if images.shape[1:] != x.shape[1:]:
        raise ValueError(f"starts must be images of shape {x.shape[1:]}, got {images.shape[1:]}")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"the labels of starts must be {len(images)} integers, got {labels.dtype} {labels.shape}")
    return images, labels, np.square(images.reshape(len(images), -1)).sum(axis=1)


def _check_settings(passes, confidence, seed, batch_size, return_passes):
    for name, value, least in (("passes", passes, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        gradients.check_count(name, value, least)
    if isinstance(confidence, bool) or not isinstance(confidence, Real) or not 0 <= confidence < np.inf:
        raise ValueError(f"confidence must be a finite number >= 0, got {confidence!r}")
    if not isinstance(return_passes, bool):
        raise ValueError(f"return_passes must be True or False, got {return_passes!r}")
