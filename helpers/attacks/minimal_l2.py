"""The smallest L2 perturbation that so many passes find: a tournament of walks towards the image.

Where a walk along the boundary ends (`walks`) depends mostly on where it begins. So there are several for an
image, which are given the same share of a round's passes, and the half that is behind is given up after
each round: successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943). Half of them begin at x, each
against another rival class, as in our `carlini_wagner`; half at a point of the boundary on the line to an
image of another class, as in Brendel et al. 2019, arXiv:1907.01003, since from x itself all may end in a
wrong basin. Where there are passes for it, each round begins anew, with large steps, from the nearest of the
last: such excursions are what ALMA gains by (Rony et al. 2021, arXiv:2011.11857).
"""
from numbers import Real
from typing import NamedTuple

import numpy as np

from helpers.artifacts.progress import tqdm
from helpers.attacks import fgsm_pgd, gradients
from helpers.attacks.carlini_wagner import _size, _won
from helpers.attacks.starts import checked_starts, ends_of
from helpers.attacks.walks import go

WALKS = ((0, 1), (16, 2), (60, 4), (200, 8), (600, 16), (3000, 32))  # from so many passes on, so many walks
# Of the walks, relative to the radius: large ones explore, small ones stay in the basin of their start.
FIRST_STEPS = (2.0, 0.5, 2.0, 0.5, 2.0, 2.0, 2.0, 2.0)
FAVOUR = 0.8             # of two walks, what that from x is taken to have come near: its steps are larger
ANEW = 100               # steps of the last walk, from which on each round begins anew
FORWARD = 0.5            # passes that one question without a gradient counts
PROBES, HALVINGS = 4, 3  # questions for a point of the boundary, and for the end of the last walk
REACH = 0.98             # of the shortest perturbation: where the last halving begins


class _Task(NamedTuple):
    """What all walks share.

    answer: as of gradients.answering; sign: 1, or -1 if targeted; begins: starts, as checked.
    """
    model: object
    answer: object
    sign: float
    confidence: float
    begins: tuple | None
    seed: int
    batch_size: int


def minimal_l2(model, x, y, *, passes=1000, targeted=False, confidence=0.0, starts=None, seed=0,
               batch_size=128, positions=None, return_passes=False):
    """Return adversarial images as near x in L2 as `passes` find, within [0, 1]; x itself where none is.

    model, x, y: as in attacks. passes: forward-and-backward evaluations an image, at most; a forward one
    alone counts half. confidence: the logit gap by which the attacker must win, >= 0. starts: (images,
    labels) of the model's task, as of its training, for walks to begin on the way to; None: the negative of x
    and noise take their place. seed: of the noise; positions: as of attacks.pgd. batch_size: of walks.
    return_passes: whether to return (x_adv, passes used, float (N,)). An image that the model has wrong comes
    back as it is. What an image gets depends neither on batch_size nor on the other images, but for rounding.
    Raises ValueError for what does not fit, and where a gradient on the way is not finite.
    """
    x, y = gradients.checked(model, x, y)
    _check_settings(passes, confidence, seed, batch_size, return_passes)
    positions, begins = fgsm_pgd.checked_positions(positions, len(x)), checked_starts(starts, x)
    answer = gradients.answering(model, x)
    sign = -1.0 if targeted else 1.0
    task = _Task(model, answer, sign, float(confidence), begins, seed, batch_size)
    logits = gradients.ask(answer, x, batch_size)
    if targeted:
        gradients.checked_targets(logits, y)
    size, x_adv, used = _size(logits, y), x.copy(), np.full(len(x), FORWARD)
    waiting = np.flatnonzero(~_won(size, task.sign, confidence, y, logits).numpy())
    found, zero = np.zeros((2, len(x)), bool)
    with tqdm(total=len(waiting), desc="smallest L2", unit="img", leave=False, delay=2) as bar:
        for start in range(0, len(waiting), batch_size):
            rows = waiting[start:start + batch_size]
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
        if total > ANEW:
            go(task, walks, steps, 0, steps)
            walks = _again(walks)
        else:
            go(task, walks, steps, done, total)
        done, used = done + steps, used + count * steps
    walks = _leaders(walks, 1)
    found = np.isfinite(walks["best"].ravel())
    x_adv = walks["x_adv"][:, 0]
    if used + FORWARD * HALVINGS <= passes:
        x_adv, used = _shortened(task, walks), used + FORWARD * HALVINGS
    return x_adv, used, found, walks["zero"].all(axis=1) & (total > 0)


def _begin(task, count, x, y, size, logits, positions):
    """Return `count` walks an image, arrays (n, count, ...) by name.

    x, y, size: the image's own; rivals (n, count, classes): those whose margin is followed; z: where the walk
    is; radius: how far from x it may be, 0 where its first gradient says it; best: the smallest distance of
    an adversarial image so far, of x_adv; zero: whether the gradient was always zero; first: which walk is
    the first; first_step: how long its first step is, relative to the radius.
    """
    shape = (len(x), count)
    spread = lambda part: np.broadcast_to(part[:, np.newaxis], (*shape, *part.shape[1:])).copy()
    walks = {"x": spread(x), "y": spread(y), "size": spread(size), "z": spread(x), "x_adv": spread(x),
             "rivals": spread(np.arange(logits.shape[1]) != y[:, np.newaxis]), "zero": np.ones(shape, bool)}
    steps = np.resize(np.float32(FIRST_STEPS), (1, count, 1, 1, 1))
    walks["first_step"] = np.broadcast_to(steps, (*shape, 1, 1, 1))
    walks["first"] = np.broadcast_to(np.arange(count) == 0, shape)
    walks["radius"] = np.zeros((*shape, 1, 1, 1), np.float32)
    walks["best"] = np.full((*shape, 1, 1, 1), np.inf, np.float32)
    if task.sign > 0:
        order = np.argsort(np.where(walks["rivals"][:, 0], -logits, np.inf), axis=1, kind="stable")
        for walk in range(2, min(count, 2 * logits.shape[1] - 2), 2):  # the first of all follows them all
            walks["rivals"][:, walk] = np.arange(logits.shape[1]) == order[:, walk // 2, np.newaxis]
    ends = ends_of(task.begins, x, y, count // 2, task.sign, task.seed, positions)
    for walk, far in enumerate(ends):
        _to_boundary(task, walks, 2 * walk + 1, far)
    return walks


def _to_boundary(task, walks, walk, far):
    """Put this walk of every image at an adversarial point on the line from x to `far`, or at `far`."""
    x, high = walks["x"][:, walk], _least_share(task, walks, walk, far, 0.0, PROBES)
    walks["z"][:, walk] = x + high * (far - x)
    walks["radius"][:, walk] = fgsm_pgd.l2(walks["z"][:, walk] - x).reshape(-1, 1, 1, 1)


def _least_share(task, walks, walk, far, low, times):
    """Return the share of the way from x to `far` at which the attacker wins, (n, 1, 1, 1), by halvings.

    Between `low` and 1, at which it is taken for granted.
    """
    x, y, size = (walks[name][:, walk] for name in ("x", "y", "size"))
    low, high = np.full((len(x), 1, 1, 1), low, np.float32), np.ones((len(x), 1, 1, 1), np.float32)
    for _ in range(times):
        middle = (low + high) / 2
        logits = gradients.ask(task.answer, x + middle * (far - x), task.batch_size)
        won = _won(size, task.sign, task.confidence, y, logits).numpy().reshape(-1, 1, 1, 1)
        low, high = np.where(won, low, middle), np.where(won, middle, high)
    return high


def _leaders(walks, count, favour=1.0):
    """Return of each image the `count` walks that have come nearest, by their order."""
    best = walks["best"][:, :, 0, 0, 0] * np.where(walks["first"], favour, 1)
    order = np.argsort(best, axis=1, kind="stable")[:, :count]
    rows = np.arange(len(order))[:, np.newaxis]
    return {name: part[rows, order] for name, part in walks.items()}


def _again(walks):
    """Return the walks, those that have found something back at its nearest."""
    found = np.isfinite(walks["best"])
    return {**walks, "z": np.where(found, walks["x_adv"], walks["z"]),
            "radius": np.where(found, walks["best"], walks["radius"])}


def _shortened(task, walks):
    """Return what the first walks have found, shorter along itself by halvings where it still succeeds."""
    x, found = walks["x"][:, 0], walks["x_adv"][:, 0]
    high = _least_share(task, walks, 0, found, REACH, HALVINGS)
    return np.where(high < 1, x + high * (found - x), found)


def _check_settings(passes, confidence, seed, batch_size, return_passes):
    for name, value, least in (("passes", passes, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        gradients.check_count(name, value, least)
    if isinstance(confidence, bool) or not isinstance(confidence, Real) or not 0 <= confidence < np.inf:
        raise ValueError(f"confidence must be a finite number >= 0, got {confidence!r}")
    if not isinstance(return_passes, bool):
        raise ValueError(f"return_passes must be True or False, got {return_passes!r}")
