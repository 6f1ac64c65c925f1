"""A walk along the boundary towards the image, of which `minimal_l2` runs several.

It is that of DDN (Rony et al. 2019, arXiv:1811.09600): a step along the normalised gradient of a margin, then
a rescaling to a radius that shrinks where the iterate is adversarial and grows where not. Except that

- steps are relative to the radius, and the radius starts from the distance F / |∇F| of a linear model, so
  that one setting serves distances of hundredths and of units;
- how fast the radius changes falls along with the steps, and is no more than a linear model asks for.
"""
import numpy as np
import tensorflow as tf

from helpers.attacks import gradients
from helpers.attacks.carlini_wagner import _gap, _wide, _won

LAST_STEP = 0.03         # of a walk, relative to its radius
SHRINK = 0.3             # of the radius at the first step of a walk, relative, at most
LAST_SHRINK = 0.003      # the same, at the last step
SLOPE = 0.2              # cosine between the perturbation and F's descent: taken for at least this
LEAST = 0.2              # of that: what the radius changes at least
FIRST_RADIUS = 1.5       # of a linear model's distance: of a walk from x itself
STATE = ("z", "radius", "best", "x_adv", "zero")


def go(task, walks, steps, done, total):
    """Let every walk go so many steps, those after `done` of `total`; changes `walks`.

    done, total: say how long the steps are. walks: as minimal_l2._begin makes them. Raises
    ValueError where a gradient is not finite.
    """
    run, shape = gradients.made_once(_compiled, task.model), walks["y"].shape
    names = ("x", "y", "rivals", "size", "first_step", *STATE)
    flat = [walks[name].reshape(-1, *walks[name].shape[2:]) for name in names]
    results, fine = [np.empty_like(part) for part in flat[-len(STATE):]], np.empty(len(flat[0]), bool)
    told = [tf.constant(value) for value in (steps, done, total, task.sign, task.confidence)]
    for rows, *parts in gradients.batches(task.batch_size, *flat):
        for kept, result in zip((*results, fine), run(*parts, *told), strict=True):
            kept[rows] = result.numpy()[:rows.stop - rows.start]
    gradients.check_finite(fine.reshape(shape).all(axis=1))
    walks.update({name: part.reshape(*shape, *part.shape[1:])
                  for name, part in zip(STATE, results, strict=True)})


def _compiled(model):
    return gradients.compile(_steps, gradients.function(model, _gap))


def _steps(gradient, x, y, rivals, size, first_step, z, radius, best, x_adv, zero,
           steps, done, total, sign, confidence):
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
        shrink = _fall(SHRINK, LAST_SHRINK, step, total)
        radius = _next_radius(radius, best, won, distance, g, away, length, shrink)
        away += _fall(first_step, LAST_STEP, step, total) * radius * g
        z = tf.clip_by_value(x + away * tf.math.divide_no_nan(radius, _length(away)), 0.0, 1.0)
    return z, radius, best, x_adv, zero, fine


def _unit(g, F):
    """Return (g of length 1, how far F = 0 would be if F were linear); zero where g is."""
    # The largest entry is taken out, so that squares neither vanish nor overflow.
    largest = tf.reduce_max(tf.abs(g), axis=(1, 2, 3), keepdims=True)
    g = tf.math.divide_no_nan(g, largest)
    length = _length(g)
    return tf.math.divide_no_nan(g, length), tf.math.divide_no_nan(tf.math.divide_no_nan(F, largest), length)


def _next_radius(radius, best, won, distance, g, away, length, shrink):
    """Return the radius of the next iterate: smaller where the attacker has won, greater where not."""
    along = tf.maximum(tf.reduce_sum(g * away, axis=(1, 2, 3), keepdims=True), SLOPE * length)
    wanted = tf.math.divide_no_nan(tf.abs(distance), along)
    change = tf.clip_by_value(wanted, LEAST * shrink, shrink)
    next_radius = tf.where(won, tf.minimum(radius, best) * (1 - change), radius * (1 + change))
    return tf.where(radius > 0, next_radius, FIRST_RADIUS * tf.abs(distance))


def _fall(first, last, step, total):
    """Return the value at this step of a cosine's half wave from first to last."""
    share = tf.cast(step, tf.float32) / tf.cast(tf.maximum(total - 1, 1), tf.float32)
    return last + (first - last) * (1 + tf.cos(np.pi * share)) / 2


def _length(images):
    return tf.sqrt(tf.reduce_sum(tf.square(images), axis=(1, 2, 3), keepdims=True))
