"""The attack of Carlini & Wagner in L2: its objective and variables, with a faster search.

Minimise |x_adv - x|² + c · max(F + confidence, 0) over w, where x_adv = (tanh w + 1) / 2 and F is the
margin of the true class (targeted: of the best other class over the target), by Adam. As in the
paper (2017, arXiv:1608.04644), except that

- the constant c starts from 2F / |∇F|², which is exact for a linear model, and follows the boundary:
  each iteration divides it by 1 + r where the image is adversarial, and multiplies it where not;
- the rate anneals from 10 to 1/10 of `learning_rate`, falling where an image no longer gains, since
  a fixed rate is too coarse for perturbations of some thousandths a pixel, and too slow for the rest;
- a search step starts from the best perturbation so far, and the search of an image ends with the
  first step that gains nothing;
- w starts within |tanh w| <= EDGE, since Adam needs hundreds of iterations to leave an exact 0 or 1;
- after each step the perturbation is shortened along itself up to the boundary.
"""
from numbers import Real

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from helpers import gradients

CHUNK = 30              # iterations between two looks at what has been gained
EDGE = 0.99
FALL = 1 / 3            # of the rate, after a chunk that gained less than GAIN
GAIN, WORTH = 0.01, 0.002  # relative: of a chunk, and of a search step worth another
LARGEST_CONST = 1e10    # as in the authors' code
SLACK = 1e-5            # of the largest logit: a rounding must not undo what was found
FOLLOW = 0.05           # r above, at the highest rate


def carlini_wagner(model, x, y, *, targeted=False, confidence=0.0, learning_rate=1e-2,
                   binary_search_steps=9, max_iterations=1000, initial_const=None, batch_size=128):
    """Return adversarial images near x in L2; x itself where none was found.

    model, x, y: as in attacks. confidence: the logit gap by which the attacker must win, >= 0.
    binary_search_steps, max_iterations: at most so many steps, and iterations a step, an image.
    initial_const: None, 2F / |∇F|² of each image, or a number > 0; one far above that gives longer
    perturbations. What an image gets depends neither on batch_size nor on the other images. Raises
    ValueError for what does not fit.
    """
    x, y = gradients.checked(model, x, y)
    _check(confidence, learning_rate, binary_search_steps, max_iterations, initial_const, batch_size)
    sign, confidence = (-1.0 if targeted else 1.0), float(confidence)
    if targeted:
        gradients.checked_targets(gradients.logits(model, x), y)
    state = _start(model, x, y, sign, confidence, initial_const, 10 * learning_rate)
    iterations = min(CHUNK, -(-max_iterations // 5))
    todo = np.flatnonzero(state["best"] > 0)
    with tqdm(total=len(todo), desc="C&W", unit="img", leave=False, delay=2) as bar:
        while len(todo):
            rows = todo[:batch_size]  # those that are finished make room for the next
            before = state["best"][rows].copy()
            _advance(model, x, y, state, rows, iterations, sign, confidence, 10 * learning_rate)
            ended = _anneal(state, rows, before, iterations, learning_rate, max_iterations)
            _shorten(model, x, y, state, ended, sign, confidence)
            finished = _next_step(state, ended, 10 * learning_rate, binary_search_steps)
            todo = np.setdiff1d(todo, finished, assume_unique=True)
            bar.update(len(finished))
    return state["x_adv"]


def _start(model, x, y, sign, confidence, initial_const, rate):
    """Return the state of the search, arrays by name with a row an image.

    best: smallest |x_adv - x|² so far, of x_adv; found: best when the step began; const: c; w, m, v,
    t: Adam's variables; rate; used: iterations of this step; step: steps done.
    """
    run = gradients.function(model, "margin")
    margin, square, won = (np.empty(len(x), kind) for kind in (np.float32, np.float32, bool))
    for rows, images, labels in gradients.batches(128, x, y):
        logits, g = run(images, labels)
        value = sign * gradients.margin(labels, logits) + confidence
        count = rows.stop - rows.start
        margin[rows], won[rows] = value[:count], _won(value, logits)[:count]
        square[rows] = tf.reduce_sum(g * g, axis=(1, 2, 3))[:count]
    best = np.where(won, 0, np.inf).astype(np.float32)
    with np.errstate(divide="ignore"):
        const = np.minimum(2 * np.maximum(margin, 1e-10) / square, LARGEST_CONST)
    if initial_const is not None:
        const[:] = initial_const
    return {"best": best, "found": best.copy(), "x_adv": x.copy(), "const": const, "w": _inverse(x),
            "m": np.zeros_like(x), "v": np.zeros_like(x), "t": np.zeros(len(x), np.float32),
            "rate": np.full(len(x), rate, np.float32), "used": np.zeros(len(x), int),
            "step": np.zeros(len(x), int)}


def _advance(model, x, y, state, rows, iterations, sign, confidence, highest):
    """Run so many iterations on these rows of the state."""
    run = gradients.cached(_compiled, model)
    names = ("w", "m", "v", "t", "const", "rate", "best", "x_adv")
    parts = [tf.constant(gradients.filled(array[rows]))
             for array in (x, y, *(state[name] for name in names))]
    results = run(*parts, tf.constant(iterations), *map(tf.constant, (sign, confidence, highest)))
    for name, result in zip(names, results, strict=True):
        state[name][rows] = result[:len(rows)]


def _anneal(state, rows, before, iterations, learning_rate, max_iterations):
    """Lower the rate of the rows that gained too little; return those whose step has ended."""
    best = state["best"][rows]
    state["used"][rows] += iterations
    idle = np.isfinite(best) & (best > before * (1 - GAIN))
    state["rate"][rows[idle]] *= FALL
    over = state["used"][rows] + iterations > max_iterations
    return rows[over | (state["rate"][rows] < 0.99 * learning_rate / 10)]


def _next_step(state, ended, rate, binary_search_steps):
    """Begin another step where one ended that was worth it; return the rows that are finished."""
    best, found = state["best"][ended], state["found"][ended]
    state["step"][ended] += 1
    worth = ~np.isfinite(best) | (best < found * (1 - WORTH))
    # A step that failed with the largest constant throughout would only be repeated by another.
    hopeless = (~np.isfinite(best) & (state["const"][ended] >= LARGEST_CONST)
                & (state["step"][ended] > 1))
    goes_on = worth & ~hopeless & (state["step"][ended] < binary_search_steps)
    again = ended[goes_on]
    state["found"][again] = state["best"][again]
    state["w"][again] = _inverse(state["x_adv"][again])
    for name in ("m", "v", "t", "used"):
        state[name][again] = 0
    state["rate"][again] = rate
    return ended[~goes_on]


def _compiled(model):
    return gradients.compile(_iterate, gradients.function(model, "margin"))


def _iterate(gradient, x, y, w, m, v, t, const, rate, best, x_adv, iterations, sign, confidence,
             highest):
    """Return w, m, v, t, const, rate, best and x_adv after so many iterations of Adam."""
    follow = FOLLOW * tf.pow(rate / highest, 1 / 3)
    for _ in tf.range(iterations):
        tanh = tf.tanh(w)
        image = (tanh + 1) / 2
        logits, g = gradient(image, y)  # of -margin(y)
        value = sign * gradients.margin(y, logits) + confidence
        square = tf.reduce_sum(tf.square(image - x), axis=(1, 2, 3))
        won = _won(value, logits)
        better = won & (square < best)
        best = tf.where(better, square, best)
        x_adv = tf.where(_wide(better), image, x_adv)
        pull = _wide(tf.where(won, 0.0, -sign * const))
        const = tf.where(won, const / (1 + follow),
                         tf.minimum(const * (1 + follow), LARGEST_CONST))
        g = (2 * (image - x) + pull * g) * (1 - tf.square(tanh)) / 2
        t += 1
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * tf.square(g)
        size = rate * tf.sqrt(1 - tf.pow(0.999, t)) / (1 - tf.pow(0.9, t))
        w -= _wide(size) * m / (tf.sqrt(v) + 1e-12)
    return w, m, v, t, const, rate, best, x_adv


def _shorten(model, x, y, state, ended, sign, confidence):
    """Cut the best perturbation of the rows whose step ended to the shortest of 12 halvings."""
    rows = ended[np.isfinite(state["best"][ended])]
    if not len(rows):
        return
    step = state["x_adv"][rows] - x[rows]
    low = np.full((len(rows), 1, 1, 1), 0.5, np.float32)
    high = np.ones_like(low)
    for _ in range(12):
        middle = (low + high) / 2
        image = x[rows] + middle * step
        logits = gradients.logits(model, image)
        won = _won(sign * gradients.margin(y[rows], logits) + confidence, logits).numpy()
        won = won.reshape(-1, 1, 1, 1)
        low, high = np.where(won, low, middle), np.where(won, middle, high)
        state["x_adv"][rows] = np.where(won, image, state["x_adv"][rows])
    state["best"][rows] = np.square(state["x_adv"][rows] - x[rows]).sum(axis=(1, 2, 3))


def _won(value, logits):
    """Return where the attacker has won, by more than a rounding; value: F + confidence."""
    return value < -SLACK * tf.reduce_max(tf.abs(logits), axis=1)


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
