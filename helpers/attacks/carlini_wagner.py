"""The attack of Carlini & Wagner in L2: its objective and variables, with a faster search.

Minimise |x_adv - x|² + c · max(F + confidence, 0) over w, where x_adv = (tanh w + 1) / 2 and F is the
margin of the true class (targeted: of the best other class over the target), by Adam. As in the
paper (2017, arXiv:1608.04644), except that

- an untargeted search is a race between the RIVALS other classes nearest to first order: each is a
  search by itself, F its margin alone, and is given up when it falls behind the best of its image;
- the constant c starts from 2F / |∇F|², which is exact for a linear model, and follows the boundary:
  each iteration divides it by 1 + r where the image is adversarial, and multiplies it where not;
- the rate starts in proportion to the distance F / |∇F| of a linear model, since a fixed one is far
  too coarse for perturbations of some thousandths a pixel and too slow for others. It doubles until
  something is found, and falls where an image no longer gains;
- a search step starts from the best perturbation so far, and the search ends with the first step
  that gains too little;
- F is taken times a power of two that brings an image's logits to about 1, so that networks of tiny or
  huge logits are attacked as others are;
- w starts within |tanh w| <= EDGE, since Adam needs hundreds of iterations to leave an exact 0 or 1;
- at the end the perturbation is shortened along itself up to the boundary.
"""
from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from helpers.artifacts.progress import tqdm
from helpers.attacks import gradients

RIVALS = 9              # classes that race, at most
CANDIDATES = 30         # classes of the largest logits, among which the rivals are chosen
CHUNK = 20              # iterations between two looks at what has been gained
BEHIND = 0.2            # relative, after the first chunk; inversely to the iterations afterwards
EDGE = 0.99
RATE, LOWEST = 3.0, 0.04  # of the first rate, to a linear model's distance a pixel; of the last, to it
FALL = 1 / 2              # of the rate, after a chunk that gained less than GAIN
GAIN, WORTH = 0.05, 0.02  # relative: of a chunk, and of a search step worth another
LARGEST_CONST = 1e10    # as in the authors' code
SLACK = 1e-5            # of the logits' size: a rounding must not undo what was found
ROUNDING = 5e-7         # relative, of a logit in float32: the same, where all share an offset
FOLLOW = 0.05           # r above, at the highest rate
PROBE = 60              # iterations in which a later step must have gained something
PATIENCE = 100          # iterations after which, where nothing is found, the hindmost half gives up


class _Task(NamedTuple):
    """What all searches share.

    size: of an image's logits, (N,); sign: 1, or -1 if targeted; highest: the highest rate.
    """
    model: object
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    sign: float
    confidence: float
    initial_const: float | None
    highest: float


def carlini_wagner(model, x, y, *, targeted=False, confidence=0.0, learning_rate=1e-2,
                   binary_search_steps=9, max_iterations=1000, initial_const=None, batch_size=128):
    """Return adversarial images near x in L2; x itself where none was found.

    model, x, y: as in attacks. confidence: the logit gap by which the attacker must win, >= 0.
    learning_rate: a tenth of the highest rate. binary_search_steps, max_iterations: at most so many
    steps of a search, and iterations of a step. initial_const: None, 2F / |∇F|² of each search, or a
    number > 0; one far above that gives longer perturbations. batch_size: of searches, nearly. What
    an image gets depends neither on batch_size nor on the other images. Raises ValueError for what
    does not fit, and where a gradient on the way is not finite.
    """
    x, y = gradients.checked(model, x, y)
    _check(confidence, learning_rate, binary_search_steps, max_iterations, initial_const, batch_size)
    logits, sign = gradients.logits(model, x), -1.0 if targeted else 1.0
    if targeted:
        gradients.checked_targets(logits, y)
    task = _Task(model, x, y, _size(logits, y), sign, float(confidence), initial_const, 10 * learning_rate)
    waiting = np.flatnonzero(~_won(task.size, sign, confidence, y, logits).numpy())
    best, x_adv = np.full(len(x), np.inf, np.float32), x.copy()
    plan = _plan(task, waiting, logits)
    searches, iterations = _start(task, plan, waiting[:0]), min(CHUNK, max_iterations)
    with tqdm(total=len(waiting), desc="C&W", unit="img", leave=False, delay=2) as bar:
        while len(waiting) or len(searches["image"]):
            searches, waiting = _admit(task, plan, searches, waiting, batch_size)
            before = searches["best"].copy()
            _advance(task, searches, iterations)
            _keep(searches, best, x_adv)
            _anneal(task, searches, before)
            ended = np.flatnonzero(_over(searches, iterations, max_iterations))
            going = ~_behind(searches, best, iterations)
            going[ended] &= _next_step(task, searches, ended, binary_search_steps)
            bar.update(len(np.setdiff1d(searches["image"], searches["image"][going])))
            searches = {name: part[going] for name, part in searches.items()}
    still = np.setdiff1d(plan["image"], plan["image"][plan["slope"] > 0])
    gradients.warn_of_zeros(np.isin(np.arange(len(x)), still) & np.isinf(best), "margin")
    return _shortened(task, x_adv, np.flatnonzero(np.isfinite(best)))


def _size(logits, y):
    """Return the size of each image's logits, float32 (N,): the median distance from their median, or |F|.

    An offset that they share does not count, nor does one that is far off, as of a class that is ruled out.
    """
    middle = np.median(np.abs(logits - np.median(logits, axis=1, keepdims=True)), axis=1)
    size = np.maximum(middle, np.abs(gradients.margin(y, logits).numpy()))
    return np.where(size > 0, size, 1).astype(np.float32)


def _scale(size):
    """Return the power of two that brings this size to [1, 2), float32 (N,)."""
    return np.exp2(-np.clip(np.floor(np.log2(size)), -120, 120)).astype(np.float32)


def _plan(task, images, logits):
    """Return the searches that these images may have, of the rivals nearest to first order: arrays by name.

    image (P,), ascending; rivals (P, classes), those whose margin counts; value, F + confidence, and
    slope, |∇F|, both times the scale, (P,). No image is copied for it, however many classes there are.
    """
    classes = np.arange(logits.shape[1])
    others, asked = classes != task.y[images, np.newaxis], images
    if task.sign > 0:
        order = np.argsort(np.where(others, -logits[images], np.inf), axis=1, kind="stable")
        chosen = np.sort(order[:, :min(len(classes) - 1, CANDIDATES)], axis=1)
        images, others = np.repeat(images, chosen.shape[1]), classes == chosen.reshape(-1, 1)
    (value, slope), fine = np.empty((2, len(images)), np.float32), np.empty(len(images), bool)
    run = gradients.function(task.model, _gap)
    for rows, index in gradients.batches(128, np.arange(len(images)), description="C&W"):
        own, count = images[index], rows.stop - rows.start
        told = tuple(map(tf.constant, (task.y[own], others[index], _scale(task.size[own]))))
        answer, g = run(tf.constant(task.x[own]), *told)
        value[rows] = (task.confidence * told[-1] - task.sign * _gap(*told, answer))[:count]
        slope[rows] = tf.norm(tf.reshape(g, (len(g), -1)), axis=1)[:count]
        fine[rows] = gradients.finite(answer, g)[:count]
    gradients.check_finite(~np.isin(asked, images[~fine]))
    plan = {"image": images, "rivals": others, "value": value, "slope": slope}
    nearest = pd.Series(_distance(value, slope)).groupby(images).rank(method="first").to_numpy() <= RIVALS
    return {name: part[nearest] for name, part in plan.items()}


def _distance(value, slope):
    """Return how far the boundary would be if the model were linear, (R,)."""
    with np.errstate(divide="ignore"):
        return np.maximum(value, 1e-10) / slope


def _admit(task, plan, searches, waiting, batch_size):
    """Return (searches with those of as many waiting images as there is room for, images left)."""
    room = batch_size - len(searches["image"])
    each = 1 if task.sign < 0 else min(plan["rivals"].shape[1] - 1, RIVALS)
    new, left = np.split(waiting, [max(0, -(-room // each))])
    if not len(new):
        return searches, left
    more = _start(task, plan, new)
    return {name: np.concatenate([searches[name], more[name]]) for name in more}, left


def _start(task, plan, images):
    """Return new searches for these images, arrays by name, a row a search.

    image, rivals (R, classes), value: as in `_plan`; const: c; w, m, v: Adam's variables; m_left,
    v_left: what m and v still lack; rate; top: its greatest in this step; best: smallest
    |x_adv - x|² so far, of x_adv; found: best when the step began; square, value: |x_adv - x|² and
    F + confidence of the last iterate; used: iterations of this step; age: of all; step: steps done.
    """
    image, rivals, value, slope = (part[np.isin(plan["image"], images)] for part in plan.values())
    distance = _distance(value, slope)
    with np.errstate(divide="ignore"):
        const = np.minimum(2 * distance / slope, LARGEST_CONST)
    if task.initial_const is not None:
        const = task.initial_const / _scale(task.size[image])
    rate, x = _first_rate(task, distance), task.x[image]
    zeros, ones = np.zeros(len(image), int), np.ones(len(image), np.float32)
    none = np.full(len(image), np.inf, np.float32)
    return {
        "image": image, "rivals": rivals, "const": const, "w": _inverse(x), "m": np.zeros_like(x),
        "v": np.zeros_like(x), "m_left": ones, "v_left": ones.copy(), "rate": rate, "top": rate.copy(),
        "best": none, "x_adv": x, "found": none.copy(), "square": zeros.astype(np.float32),
        "value": value, "used": zeros, "age": zeros.copy(), "step": zeros.copy()}


def _first_rate(task, distance):
    """Return the rate to look for a perturbation of so much L2 with, (R,)."""
    pixels = np.sqrt(task.x[0].size)
    return np.minimum(RATE * 2 * distance / pixels, task.highest).astype(np.float32)


def _advance(task, searches, iterations):
    """Run so many iterations of every search.

    All that is computed a row, and not a pixel, is exact to the last bit whatever the number of rows;
    so these are filled up less than elsewhere.
    """
    run = gradients.made_once(_compiled, task.model)
    state = ("w", "m", "v", "m_left", "v_left", "const", "best", "x_adv", "square", "value")
    images = searches["image"]
    follow = FOLLOW * np.cbrt(searches["rate"].astype(np.float64) / searches["top"])
    parts = (task.x[images], task.y[images], searches["rivals"], task.size[images],
             _scale(task.size[images]), searches["rate"],
             follow.astype(np.float32), *(searches[name] for name in state))
    step = 4 if task.x[0].size % 4 == 0 else gradients.ROWS
    results = run(*(tf.constant(gradients.filled(part, step)) for part in parts),
                  tf.constant(iterations), tf.constant(task.sign), tf.constant(task.confidence))
    *results, fine = (result.numpy()[:len(images)] for result in results)
    gradients.check_finite(~np.isin(np.unique(images), images[~fine]))
    for name, result in zip(state, results, strict=True):
        searches[name] = result
    searches["used"] += iterations
    searches["age"] += iterations


def _keep(searches, best, x_adv):
    """Write what is better than all that the images had into best and x_adv."""
    order = np.lexsort((searches["best"], searches["image"]))
    images, first = np.unique(searches["image"][order], return_index=True)
    rows = order[first]
    better = searches["best"][rows] < best[images]
    best[images[better]] = searches["best"][rows[better]]
    x_adv[images[better]] = searches["x_adv"][rows[better]]


def _anneal(task, searches, before):
    """Lower the rates of the searches that gained too little, raise those that have found nothing."""
    found = np.isfinite(searches["best"])
    searches["rate"][found & (searches["best"] > before * (1 - GAIN))] *= FALL
    searches["rate"][~found] = np.minimum(searches["rate"][~found] * 2, task.highest)
    searches["top"] = np.maximum(searches["top"], searches["rate"])


def _over(searches, iterations, max_iterations):
    """Return which steps are over: by their iterations, by their rate, or without hope of a gain."""
    idle = (searches["step"] > 0) & (searches["best"] >= searches["found"])
    return ((searches["used"] + iterations > max_iterations)
            | (searches["rate"] < LOWEST * searches["top"])
            | (idle & (searches["used"] >= PROBE) & np.isfinite(searches["best"])))


def _behind(searches, best, iterations):
    """Return which searches are given up, since another of their image is ahead.

    One that has found nothing lies as far as it has gone by now. Where no search of an image has
    found anything, those with the larger F give up, half of them after each PATIENCE iterations.
    """
    image, age = searches["image"], searches["age"]
    reach = np.where(np.isfinite(searches["best"]), searches["best"], searches["square"])
    behind = np.sqrt(reach) > (1 + BEHIND * CHUNK / age) * np.sqrt(best[image])
    value = pd.Series(searches["value"]).groupby(image)
    hindmost = value.rank(method="first") > (value.transform("size") + 1) // 2
    return behind | (hindmost.to_numpy() & np.isinf(best[image]) & (age % PATIENCE < iterations))


def _next_step(task, searches, ended, binary_search_steps):
    """Begin another step of those that ended, where it is worth it; return where it was."""
    best, found = searches["best"][ended], searches["found"][ended]
    searches["step"][ended] += 1
    worth = ~np.isfinite(best) | (best < found * (1 - WORTH))
    hopeless = ~np.isfinite(best) & (searches["const"][ended] >= LARGEST_CONST)
    goes_on = worth & ~hopeless & (searches["step"][ended] < binary_search_steps)
    again = ended[goes_on]
    searches["found"][again] = searches["best"][again]
    searches["w"][again] = _inverse(searches["x_adv"][again])
    for name, start in (("m", 0), ("v", 0), ("m_left", 1), ("v_left", 1), ("used", 0)):
        searches[name][again] = start
    searches["rate"][again] = _first_rate(task, np.sqrt(searches["best"][again]))
    searches["top"][again] = searches["rate"][again]
    return goes_on


def _compiled(model):
    return gradients.compile(_iterate, gradients.function(model, _gap))


def _iterate(gradient, x, y, rivals, size, scale, rate, follow, w, m, v, m_left, v_left, const, best, x_adv,
             square, value, iterations, sign, confidence):
    """Return what changes, from w to value, after so many iterations of Adam, and whether all was finite."""
    fine = tf.fill(tf.shape(y), True)
    for _ in tf.range(iterations):
        tanh = tf.tanh(w)
        image = (tanh + 1) / 2
        logits, g = gradient(image, y, rivals, scale)
        fine &= gradients.finite(logits, g)
        value = scale * confidence - sign * _gap(y, rivals, scale, logits)
        square = tf.reduce_sum(tf.square(image - x), axis=(1, 2, 3))
        won = _won(size, sign, confidence, y, logits)
        better = won & (square < best)
        best = tf.where(better, square, best)
        x_adv = tf.where(_wide(better), image, x_adv)
        pull = _wide(tf.where(won, 0.0, -sign * const))
        const = tf.where(won, const / (1 + follow),
                         tf.minimum(const * (1 + follow), LARGEST_CONST))
        g = (2 * (image - x) + pull * g) * (1 - tf.square(tanh)) / 2
        m, m_left = 0.9 * m + 0.1 * g, 0.9 * m_left
        v, v_left = 0.999 * v + 0.001 * tf.square(g), 0.999 * v_left
        step = rate * tf.sqrt(1 - v_left) / (1 - m_left)
        w -= _wide(step) * m / (tf.sqrt(v) + 1e-12)
    return w, m, v, m_left, v_left, const, best, x_adv, square, value, fine


def _shortened(task, x_adv, images):
    """Return x_adv, of these images the shortest perturbation of 12 halvings that still succeeds."""
    if not len(images):
        return x_adv
    x, y, found = task.x[images], task.y[images], x_adv[images]
    step, answer = found - x, gradients.answering(task.model, x)
    low = np.full((len(images), 1, 1, 1), 0.5, np.float32)
    high = np.ones_like(low)
    for _ in range(12):
        middle = (low + high) / 2
        image = x + middle * step
        logits = gradients.ask(answer, image)
        won = _won(task.size[images], task.sign, task.confidence, y, logits).numpy()
        won = won.reshape(-1, 1, 1, 1)
        low, high = np.where(won, low, middle), np.where(won, middle, high)
        found = np.where(won, image, found)
    x_adv[images] = found
    return x_adv


def _gap(y, rivals, scale, logits):
    """Return the loss max of the rivals' logits - z_y, times the scale, (R,)."""
    logits = scale[:, tf.newaxis] * logits
    own = tf.gather(logits, y, batch_dims=1)
    return tf.reduce_max(tf.where(rivals, logits, logits.dtype.min), axis=1) - own


def _won(size, sign, confidence, y, logits):
    """Return where the attacker has won by the confidence, and by more than a rounding."""
    F = gradients.margin(y, logits)
    own = tf.gather(logits, y, axis=1, batch_dims=1)
    return sign * F + confidence < -SLACK * size - ROUNDING * tf.maximum(tf.abs(own), tf.abs(own - F))


def _inverse(x):
    """Return w with (tanh w + 1) / 2 = x, kept within EDGE."""
    return np.arctanh(np.clip(2 * x - 1, -EDGE, EDGE)).astype(np.float32)


def _wide(values):
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _check(confidence, learning_rate, binary_search_steps, max_iterations, initial_const, batch_size):
    for name, value in (("binary_search_steps", binary_search_steps),
                        ("max_iterations", max_iterations), ("batch_size", batch_size)):
        gradients.check_count(name, value)
    for name, value in (("confidence", confidence), ("learning_rate", learning_rate)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    if learning_rate == 0:
        raise ValueError("learning_rate must be positive, got 0")
    if initial_const is not None and not (isinstance(initial_const, Real) and initial_const is not True
                                          and 0 < initial_const <= LARGEST_CONST):
        raise ValueError(f"initial_const must be None or in (0, {LARGEST_CONST:g}], "
                         f"got {initial_const!r}")
