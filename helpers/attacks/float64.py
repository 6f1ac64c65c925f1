"""The gradient in float64: what attacks would find were it not for the rounding of float32."""
import numpy as np
import tensorflow as tf

from helpers.attacks import copies, fgsm_pgd, gradients


def wide_copy(model):
    """Return a copy of a Keras model that computes in float64 all through, whatever is inside (copies.py)."""
    return copies.copy(model, "float64")


def wide_fgsm(model, x, y, *, eps, norm=np.inf):
    """Return attacks.fgsm's images, float32, with the gradient of the cross-entropy in float64.

    model: `wide_copy` of a network, or any callable from float64 images to float64 logits. Raises ValueError
    for what does not fit, and where the gradient is not finite; warns, as attacks.fgsm, of one that is zero.
    """
    x, y = _checked(model, x, y)
    if norm not in fgsm_pgd.NORMS:
        raise ValueError(f"norm must be np.inf or 2, got {norm!r}")
    eps = fgsm_pgd.checked_eps("eps", eps, norm=norm, shape=x.shape)
    run = gradients.made_once(_direction, model)
    g = np.concatenate([run(*batch)[:rows.stop - rows.start].numpy() for rows, *batch
                        in gradients.batches(256, x, y, description="float64")])
    gradients.check_finite(np.isfinite(g).all(axis=(1, 2, 3)), "gradient in float64")
    gradients.warn_of_zeros(~g.any(axis=(1, 2, 3)), "cross-entropy in float64")
    if norm == np.inf:
        step = np.sign(g)
    else:
        step = g / np.maximum(fgsm_pgd.l2(g), np.finfo(float).tiny).reshape(-1, 1, 1, 1)
    return np.clip(x + eps * step, 0, 1).astype(np.float32)


def _checked(model, x, y):
    """Return (x, y) as float32 and int64 arrays; raise ValueError unless they fit a model in float64."""
    x, y = gradients.checked_images(x), np.asarray(y)
    logits = model(tf.constant(gradients.filled(x[:1]), tf.float64))
    if logits.dtype != tf.float64:
        raise ValueError(f"the model must compute in float64, but its logits are {logits.dtype.name}")
    classes = logits.shape[1]
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y must hold one integer in 0..{classes - 1} for each of {len(x)} images, got "
                         f"{y.dtype} of shape {y.shape}" + (f" in {y.min()}..{y.max()}" if y.size else ""))
    return x, y.astype(np.int64)


def _direction(model):
    """Return the compiled (x, y) -> gradient of u, in float64, along that of the cross-entropy.

    The latter is log(1 + exp u), u = log of the sum of exp z_j, j != y, less z_y. Its gradient is that
    of u times a positive factor that vanishes as the margin grows, at last in float64 too.
    """
    return gradients.compile(_slope, model)


def _slope(model, x, y):
    x = tf.cast(x, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = model(x)
        own = tf.one_hot(y, z.shape[1], dtype=z.dtype)
        others = tf.reduce_logsumexp(tf.where(own > 0, z.dtype.min, z), axis=1)
        u = others - tf.reduce_sum(own * z, axis=1)
    gradient = tape.gradient(u, x)
    if gradient is None:
        raise ValueError("no gradient passes through the model in float64 to its images")
    return gradient
