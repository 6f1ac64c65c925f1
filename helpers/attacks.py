"""The attacks. NumPy images in, NumPy float32 images out; compiled, in batches, with progress.

Common words: x, images (N, H, W, C) in [0, 1]; y, true labels (N,), or targets if `targeted`;
eps, the bound of the perturbation's norm; norm, np.inf or 2 (over the whole image, not squared).
`model` is any callable from images to logits: a network, or one with a defence in front of it.
Steps and projections are those of cleverhans.
"""
from numbers import Real

import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta, optimize_linear

from helpers import gradients
from helpers.carlini_wagner import carlini_wagner  # noqa: F401 (one place for all attacks)

NORMS = (np.inf, 2)


def fgsm(model, x, y, *, eps, norm=np.inf, targeted=False, loss="cross_entropy", batch_size=256):
    """Return the images after one step of norm `eps` along the gradient, clipped to [0, 1].

    eps: a number, or a sequence of K numbers; then the result is (K, N, H, W, C) at the price of
    one gradient. loss: one of gradients.LOSSES. Raises ValueError for what does not fit.
    Goodfellow et al. 2015, arXiv:1412.6572.
    """
    x, y = gradients.checked(model, x, y, loss)
    _check_norm(norm)
    eps = np.asarray([checked_eps("eps", value) for value in eps]
                     if isinstance(eps, (list, tuple, np.ndarray)) else checked_eps("eps", eps), np.float32)
    if not eps.size:
        raise ValueError("eps must be a number, or a sequence of at least one, got none")
    step = _unit_steps(model, x, y, norm, targeted, loss, batch_size)
    return np.clip(x + eps.reshape(eps.shape + (1,) * (4 * eps.ndim)) * step, 0, 1)


def pgd(model, x, y, *, eps, eps_iter, nb_iter, norm=np.inf, targeted=False, restarts=1, seed=0,
        loss="cross_entropy", batch_size=128):
    """Return each image's best iterate of projected gradient descent from a random start.

    nb_iter steps of norm eps_iter, each projected to the ball of radius eps around x and to [0, 1];
    the start is uniform in the ball. The best iterate is the one nearest to, or farthest beyond, the
    boundary: the smallest margin (targeted: the largest margin of the target). A restart runs only
    on the images that the earlier ones have not broken. Raises ValueError for what does not fit.
    Madry et al. 2018, arXiv:1706.06083.
    """
    x, y = gradients.checked(model, x, y, loss)
    _check_norm(norm)
    eps, eps_iter = checked_eps("eps", eps), checked_eps("eps_iter", eps_iter)
    for name, value in (("nb_iter", nb_iter), ("restarts", restarts), ("batch_size", batch_size)):
        gradients.check_count(name, value)
    if targeted:
        gradients.checked_targets(gradients.logits(model, x), y)
    best, score = x.copy(), np.full(len(x), np.inf, np.float32)
    for restart in range(restarts):
        left = np.flatnonzero(score >= 0)
        if not len(left):
            break
        start = _in_ball(x.shape, norm, seed, restart)[left]
        found, value = _descend(model, x[left], y[left], start, np.full(len(left), eps), eps_iter,
                                nb_iter, norm, targeted, loss, batch_size)
        better = value < score[left]
        best[left[better]], score[left[better]] = found[better], value[better]
    return best


def noise(x, *, eps, norm=np.inf, seed):
    """Return x with a random perturbation of norm eps that stays within [0, 1]: the control.

    L-infinity: random signs times eps, clipped. L2: a Gaussian direction, clipped, and scaled so that
    what remains after clipping still has norm eps (or the most that this direction allows).
    """
    x = gradients.checked_images(x)
    _check_norm(norm)
    eps, rng = checked_eps("eps", eps), np.random.default_rng(seed)
    if norm == np.inf:
        return np.clip(x + np.float32(eps) * rng.choice(np.float32([-1, 1]), x.shape), 0, 1)
    direction = rng.standard_normal(x.shape, np.float32)
    low, high = np.zeros((len(x), 1, 1, 1), np.float32), np.full((len(x), 1, 1, 1), 1e3, np.float32)
    for _ in range(40):  # the clipped norm grows with the scale
        middle = (low + high) / 2
        inside = l2(np.clip(x + middle * direction, 0, 1) - x)[:, None, None, None] <= eps
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.clip(x + low * direction, 0, 1)


def minimal_norm(model, x, y, *, attack, high, norm=np.inf, halvings=10, nb_iter=40, seed=0,
                 loss="margin", batch_size=128):
    """Return (x_adv, eps): for each image the smallest radius at which "fgsm" or "pgd" breaks it.

    By bisection between 0 and `high`, to high / 2^halvings; eps is np.inf, and x_adv the image itself,
    where even `high` does not break it, and 0 where the model has it wrong. PGD takes steps of
    2.5 eps / nb_iter. FGSM may fail beyond a radius at which it succeeds: then the one found is a
    crossing of the boundary, not always the first. Raises ValueError for what does not fit.
    """
    x, y = gradients.checked(model, x, y, loss)
    _check_norm(norm)
    if attack not in ("fgsm", "pgd"):
        raise ValueError(f"attack must be fgsm or pgd, got {attack!r}")
    high = checked_eps("high", high)
    for name, value in (("nb_iter", nb_iter), ("batch_size", batch_size)):
        gradients.check_count(name, value)
    gradients.check_count("halvings", halvings, smallest=0)
    if attack == "fgsm":
        direction = _unit_steps(model, x, y, norm, False, loss, batch_size)
    start = _in_ball(x.shape, norm, seed, 0)

    def attacked(rows, eps):
        wide = eps.reshape(-1, 1, 1, 1)
        if attack == "fgsm":
            x_adv = np.clip(x[rows] + wide * direction[rows], 0, 1)
            return x_adv, gradients.logits(model, x_adv).argmax(axis=1) != y[rows]
        x_adv, score = _descend(model, x[rows], y[rows], start[rows], eps, 2.5 * eps / nb_iter,
                                nb_iter, norm, False, loss, batch_size)
        return x_adv, score < 0

    best, found = x.copy(), np.where(gradients.logits(model, x).argmax(axis=1) == y, np.inf, 0.0)
    low, top = np.zeros(len(x), np.float32), np.full(len(x), high, np.float32)
    rows, eps = np.flatnonzero(found > 0), top
    for _ in range(halvings + 1):
        x_adv, broken = attacked(rows, eps[rows])
        hit = rows[broken]
        best[hit], found[hit], top[hit] = x_adv[broken], eps[hit], eps[hit]
        low[rows[~broken]] = eps[rows[~broken]]
        rows = rows[np.isfinite(found[rows])]
        if not len(rows):
            break
        eps = (low + top) / 2
    return best, found


def l2(difference):
    """Return the L2 norm of each image of a difference, float32 (N,)."""
    return np.sqrt(np.square(difference.reshape(len(difference), -1)).sum(axis=1))


def linf(difference):
    """Return the L-infinity norm of each image of a difference, float32 (N,)."""
    return np.abs(difference.reshape(len(difference), -1)).max(axis=1)


def _unit_steps(model, x, y, norm, targeted, loss, batch_size):
    """Return FGSM's step of norm 1 for each image, (N, H, W, C)."""
    steps, sign = np.empty_like(x), tf.constant(-1.0 if targeted else 1.0)
    run = gradients.cached(_direction, model, loss, norm)
    for rows, images, labels in gradients.batches(batch_size, x, y, description="FGSM"):
        logits, step = run(images, labels, sign)
        count = rows.stop - rows.start
        if targeted:
            gradients.checked_targets(logits.numpy()[:count], y[rows])
        steps[rows] = step.numpy()[:count]
    return steps


def _direction(model, loss, norm):
    """Return the compiled (x, y, sign) -> (logits, the step of norm 1 that raises sign · loss)."""
    return gradients.compile(_directed, gradients.function(model, loss), norm)


def _directed(gradient, norm, x, y, sign):
    logits, g = gradient(x, y)
    return logits, _step(sign * g, 1.0, norm)


def _step(g, eps, norm):
    """Return cleverhans's step of norm eps along g, which is first brought to a largest entry of 1.

    cleverhans floors |g|² at 1e-12 and would shorten the L2 step where the gradient is tiny.
    """
    if norm == 2:
        largest = tf.reduce_max(tf.abs(g), axis=(1, 2, 3), keepdims=True)
        g = tf.math.divide_no_nan(g, largest)
    return optimize_linear(g, eps, norm)


def _descend(model, x, y, start, eps, eps_iter, nb_iter, norm, targeted, loss, batch_size):
    """Return (best iterates, their scores): PGD from x + eps · start with eps for each image."""
    run = gradients.cached(_loop, model, loss, norm)
    best, score = np.empty_like(x), np.empty(len(x), np.float32)
    eps = eps.astype(np.float32).reshape(-1, 1, 1, 1)
    step = np.broadcast_to(np.float32(eps_iter).reshape(-1, 1, 1, 1), eps.shape)
    sign = tf.constant(-1.0 if targeted else 1.0)
    for rows, *parts in gradients.batches(batch_size, x, y, eps * start, eps, step,
                                          description="PGD"):
        found, value = run(*parts, tf.constant(nb_iter), sign)
        count = rows.stop - rows.start
        best[rows], score[rows] = found.numpy()[:count], value.numpy()[:count]
    return best, score


def _loop(model, loss, norm):
    """Return the compiled whole descent, for any number of steps and any eps."""
    return gradients.compile(_descent, gradients.function(model, loss), model, norm)


def _descent(gradient, model, norm, x, y, start, eps, eps_iter, nb_iter, sign):
    x_adv = tf.clip_by_value(x + start, 0.0, 1.0)
    best, score = x_adv, tf.fill(tf.shape(y), np.float32(np.inf))
    for _ in tf.range(nb_iter):
        logits, g = gradient(x_adv, y)
        value = sign * gradients.margin(y, logits)
        best = tf.where((value < score)[:, None, None, None], x_adv, best)
        score = tf.minimum(score, value)
        x_adv = tf.clip_by_value(x_adv + _step(sign * g, eps_iter, norm), 0.0, 1.0)
        x_adv = tf.clip_by_value(x + clip_eta(x_adv - x, norm, eps), 0.0, 1.0)
    value = sign * gradients.margin(y, gradients.call(model, x_adv))
    return (tf.where((value < score)[:, None, None, None], x_adv, best), tf.minimum(score, value))


def _in_ball(shape, norm, seed, restart):
    """Return points uniform in the unit ball of the norm, float32; a row depends not on their number."""
    rng = np.random.default_rng([seed, restart])
    if norm == np.inf:
        return rng.uniform(-1, 1, shape).astype(np.float32)
    direction = rng.standard_normal(shape).astype(np.float32)
    radius = np.random.default_rng([seed, restart, 1]).random(shape[0]) ** (1 / np.prod(shape[1:]))
    return direction * (radius / l2(direction)).astype(np.float32).reshape(-1, 1, 1, 1)


def _check_norm(norm):
    if not isinstance(norm, Real) or isinstance(norm, bool) or norm not in NORMS:
        raise ValueError(f"norm must be np.inf or 2, got {norm!r}")


def checked_eps(name, value):
    """Return the value as a float; raise ValueError, naming it, unless it is finite and >= 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1e38:  # float32
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    return float(value)
