"""The attacks. NumPy images in, NumPy float32 images out; compiled, in batches, with progress.

Common words: x, images (N, H, W, C) in [0, 1]; y, true labels (N,), or targets if `targeted`;
eps, the bound of the perturbation's norm; norm, np.inf or 2 (over the whole image, not squared).
`model`: a network, or one with a defence in front of it; what it may be says gradients.
Steps and projections are those of cleverhans.
"""
import functools
from numbers import Real

import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta, optimize_linear

from helpers.attacks import gradients

NORMS = (np.inf, 2)


def fgsm(model, x, y, *, eps, norm=np.inf, targeted=False, loss="cross_entropy", batch_size=256):
    """Return the images after one step of norm `eps` along the gradient, clipped to [0, 1].

    eps: a number, or a sequence of K numbers; then the result is (K, N, H, W, C) at the price of
    one gradient. loss: one of gradients.LOSSES. Raises ValueError for what does not fit.
    Goodfellow et al. 2015, arXiv:1412.6572.
    """
    x, y = gradients.checked(model, x, y, loss)
    _check_norm(norm)
    check = functools.partial(checked_eps, "eps", norm=norm, shape=x.shape)
    eps = np.asarray([check(value) for value in eps] if np.ndim(eps) == 1 else check(eps), np.float32)
    if not eps.size:
        raise ValueError("eps must be a number, or a sequence of at least one, got none")
    step = _unit_steps(model, x, y, norm, targeted, loss, batch_size)
    return np.clip(x + eps.reshape(eps.shape + (1,) * (4 * eps.ndim)) * step, 0, 1)


def pgd(model, x, y, *, eps, eps_iter, nb_iter, norm=np.inf, targeted=False, restarts=1, seed=0,
        loss="cross_entropy", batch_size=128, positions=None):
    """Return each image's best iterate of projected gradient descent from a random start.

    nb_iter steps of norm eps_iter, each projected to the ball of radius eps around x and to [0, 1];
    the start is uniform in the ball. The best iterate is the one nearest to, or farthest beyond, the
    boundary: the smallest margin (targeted: the largest margin of the target). A restart runs only
    on the images that the earlier ones have not broken. positions: which images these are among those
    of a longer x, (N,), so that each starts where it would there; None, the first N. Raises ValueError
    for what does not fit, and where a gradient on the way is not finite.
    Madry et al. 2018, arXiv:1706.06083.
    """
    x, y = gradients.checked(model, x, y, loss)
    _check_norm(norm)
    eps = checked_eps("eps", eps, norm=norm, shape=x.shape)
    eps_iter = checked_step("eps_iter", eps_iter, norm, x.shape)
    for name, value in (("nb_iter", nb_iter), ("restarts", restarts), ("batch_size", batch_size)):
        gradients.check_count(name, value)
    if targeted:
        gradients.checked_targets(gradients.logits(model, x), y)
    positions = checked_positions(positions, len(x))
    best, score, zero = x.copy(), np.full(len(x), np.inf, np.float32), np.ones(len(x), bool)
    for restart in range(restarts):
        left = np.flatnonzero(score >= 0)
        if not len(left):
            break
        start = _in_ball(x.shape[1:], norm, seed, restart, positions[left])
        found, value, still = _descend(model, x[left], y[left], start, np.full(len(left), eps), eps_iter,
                                       nb_iter, norm, targeted, loss, batch_size)
        better = value < score[left]
        best[left[better]], score[left[better]] = found[better], value[better]
        zero[left] &= still
    gradients.warn_of_zeros(zero & (score >= 0), loss)
    return best


def noise(x, *, eps, norm=np.inf, seed, positions=None):
    """Return x with a random perturbation of norm eps that stays within [0, 1]: the control.

    L-infinity: random signs times eps, clipped. L2: a Gaussian direction, clipped, and scaled so that
    what remains after clipping still has norm eps (or the most that this direction allows).
    positions: as of `pgd`.
    """
    x = gradients.checked_images(x)
    _check_norm(norm)
    eps, rng = checked_eps("eps", eps, norm=norm, shape=x.shape), np.random.default_rng(seed)
    positions = checked_positions(positions, len(x))
    shape = (positions.max() + 1, *x.shape[1:])
    if norm == np.inf:
        return np.clip(x + np.float32(eps) * rng.choice(np.float32([-1, 1]), shape)[positions], 0, 1)
    direction = rng.standard_normal(shape, np.float32)[positions]
    low, high = np.zeros((len(x), 1, 1, 1), np.float32), np.full((len(x), 1, 1, 1), 1e3, np.float32)
    for _ in range(40):  # the clipped norm grows with the scale
        middle = (low + high) / 2
        inside = l2(np.clip(x + middle * direction, 0, 1) - x)[:, None, None, None] <= eps
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.clip(x + low * direction, 0, 1)


def l2(difference):
    """Return the L2 norm of each image of a difference, float32 (N,)."""
    return np.sqrt(np.square(difference.reshape(len(difference), -1)).sum(axis=1))


def linf(difference):
    """Return the L-infinity norm of each image of a difference, float32 (N,)."""
    return np.abs(difference.reshape(len(difference), -1)).max(axis=1)


def _unit_steps(model, x, y, norm, targeted, loss, batch_size):
    """Return FGSM's step of norm 1 for each image, (N, H, W, C)."""
    steps, sign = np.empty_like(x), tf.constant(-1.0 if targeted else 1.0)
    run = gradients.made_once(_direction, model, loss, norm)
    fine, answer = np.empty(len(x), bool), np.empty(len(x), int)
    for rows, images, labels in gradients.batches(batch_size, x, y, description="FGSM"):
        logits, step, finite = (result.numpy()[:rows.stop - rows.start]
                                for result in run(images, labels, sign))
        if targeted:
            gradients.checked_targets(logits, y[rows])
        steps[rows], fine[rows], answer[rows] = step, finite, logits.argmax(axis=1)
    gradients.check_finite(fine)
    gradients.warn_of_zeros(~steps.any(axis=(1, 2, 3)) & ((answer == y) != targeted), loss)
    return steps


def _direction(model, loss, norm):
    """Return the compiled (x, y, sign) -> (logits, step of norm 1 that raises sign · loss, if finite)."""
    return gradients.compile(_directed, gradients.function(model, loss), norm)


def _directed(gradient, norm, x, y, sign):
    logits, g = gradient(x, y)
    return logits, _step(sign * g, 1.0, norm), gradients.finite(logits, g)


def _step(g, eps, norm):
    """Return cleverhans's step of norm eps along g, which is first brought to a largest entry of 1.

    cleverhans floors |g|² at 1e-12 and would shorten the L2 step where the gradient is tiny.
    """
    if norm == 2:
        largest = tf.reduce_max(tf.abs(g), axis=(1, 2, 3), keepdims=True)
        g = tf.math.divide_no_nan(g, largest)
    return optimize_linear(g, eps, norm)


def _descend(model, x, y, start, eps, eps_iter, nb_iter, norm, targeted, loss, batch_size):
    """Return (best iterates, their scores, where the gradient was always zero): PGD from x + eps · start.

    eps: one for each image.
    """
    run = gradients.made_once(_loop, model, loss, norm)
    best, score, (zero, fine) = np.empty_like(x), np.empty(len(x), np.float32), np.empty((2, len(x)), bool)
    eps = eps.astype(np.float32).reshape(-1, 1, 1, 1)
    step = np.broadcast_to(np.float32(eps_iter).reshape(-1, 1, 1, 1), eps.shape)
    sign = tf.constant(-1.0 if targeted else 1.0)
    for rows, *parts in gradients.batches(batch_size, x, y, eps * start, eps, step,
                                          description="PGD"):
        results = run(*parts, tf.constant(nb_iter), sign)
        for kept, result in zip((best, score, zero, fine), results, strict=True):
            kept[rows] = result.numpy()[:rows.stop - rows.start]
    gradients.check_finite(fine)
    return best, score, zero


def _loop(model, loss, norm):
    """Return the compiled whole descent, for any number of steps and any eps."""
    return gradients.compile(_descent, gradients.function(model, loss), model, norm)


def _descent(gradient, model, norm, x, y, start, eps, eps_iter, nb_iter, sign):
    x_adv = tf.clip_by_value(x + start, 0.0, 1.0)
    best, score = x_adv, tf.fill(tf.shape(y), np.float32(np.inf))
    zero = fine = tf.fill(tf.shape(y), True)
    for _ in tf.range(nb_iter):
        logits, g = gradient(x_adv, y)
        fine &= gradients.finite(logits, g)
        zero &= tf.reduce_all(g == 0, axis=(1, 2, 3))
        value = sign * gradients.margin(y, logits)
        best = tf.where((value < score)[:, None, None, None], x_adv, best)
        score = tf.minimum(score, value)
        x_adv = tf.clip_by_value(x_adv + _step(sign * g, eps_iter, norm), 0.0, 1.0)
        x_adv = tf.clip_by_value(x + clip_eta(x_adv - x, norm, eps), 0.0, 1.0)
    value = sign * gradients.margin(y, gradients.call(model, x_adv))
    best = tf.where((value < score)[:, None, None, None], x_adv, best)
    return best, tf.minimum(score, value), zero, fine & tf.math.is_finite(value)


def _in_ball(shape, norm, seed, restart, positions):
    """Return points uniform in the unit ball of the norm, float32: those at these positions of a sequence."""
    rng, size = np.random.default_rng([seed, restart]), (positions.max() + 1, *shape)
    if norm == np.inf:
        return rng.uniform(-1, 1, size)[positions].astype(np.float32)
    direction = rng.standard_normal(size)[positions].astype(np.float32)
    radius = np.random.default_rng([seed, restart, 1]).random(size[0])[positions] ** (1 / np.prod(shape))
    return direction * (radius / l2(direction)).astype(np.float32).reshape(-1, 1, 1, 1)


def checked_positions(positions, n):
    """Return the positions of n images in a longer sequence as an array; None: the first n."""
    if positions is None:
        return np.arange(n)
    positions = np.asarray(positions)
    if positions.shape != (n,) or not np.issubdtype(positions.dtype, np.integer) or positions.min() < 0:
        raise ValueError(f"positions must be {n} integers >= 0, one an image, got {positions!r}")
    return positions


def _check_norm(norm):
    if not isinstance(norm, Real) or isinstance(norm, bool) or norm not in NORMS:
        raise ValueError(f"norm must be np.inf or 2, got {norm!r}")


def checked_step(name, value, norm, shape):
    """Return a step's length as a float.

    Raises ValueError, naming it, where it would cross the box more than twice.
    """
    return 2 * checked_eps(name, checked_eps(name, value) / 2, norm=norm, shape=shape)


def checked_eps(name, value, *, norm=None, shape=None):
    """Return the value as a float; raise ValueError, naming it, unless it is finite and >= 0.

    With the norm and the images' shape, unless it is at most the largest distance within [0, 1] as well: 1 in
    L-infinity, the square root of the pixels in L2. Beyond, it is of another scale, 0 to 255 above all.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1e38:  # float32
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    if norm is not None:
        most = 1.0 if norm == np.inf else float(np.sqrt(np.prod(shape[1:])))
        if value > most * (1 + 1e-6):
            raise ValueError(f"{name} must be at most {most:.4g}, the largest distance of images in [0, 1], "
                             f"got {value!r}: of levels, 8/255 and the like are meant")
    return float(value)
