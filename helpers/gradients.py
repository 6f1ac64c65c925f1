"""What every attack stands on: checked inputs, losses, compiled gradients, and batches.

`model` is any callable from a batch of images (N, H, W, C) to logits (N, classes). A gradient is
compiled once for each model and loss, and takes batches of any size.
"""
import functools

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

ROWS = 16  # batches have a multiple of so many: else kernels change with the size, and round otherwise


def margin(y, logits):
    """Return F = z_y - max of the other logits, (N,), as a tensor."""
    logits = tf.convert_to_tensor(logits)
    own = tf.one_hot(y, logits.shape[-1], dtype=logits.dtype)
    return (tf.reduce_sum(own * logits, axis=1)
            - tf.reduce_max(tf.where(own > 0, logits.dtype.min, logits), axis=1))


def cross_entropy(y, logits):
    """Return the cross-entropy of the softmax of the logits, (N,), as a tensor."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)


def of_probabilities(y, logits):
    """Return the cross-entropy as Keras takes it of probabilities, (N,): clipped to [1e-7, 1 - 1e-7].

    Its gradient is zero wherever all probabilities are beyond those bounds. As an attack's loss it is a
    mistake that is often made, and here to be shown.
    """
    p = tf.clip_by_value(tf.nn.softmax(logits), 1e-7, 1 - 1e-7)
    return cross_entropy(y, tf.math.log(p))


def tempered(y, logits):
    """Return the cross-entropy of the logits over a temperature max(1, |F|), held constant, (N,).

    So a large margin does not make its gradient vanish.
    """
    temperature = tf.stop_gradient(tf.maximum(tf.abs(margin(y, logits)), 1))
    return cross_entropy(y, logits / temperature[:, None])


LOSSES = {"cross_entropy": cross_entropy, "margin": lambda y, logits: -margin(y, logits),
          "probabilities": of_probabilities, "tempered": tempered}


def checked(model, x, y, loss="margin"):
    """Return (x, y) as float32 and int64 arrays fit for an attack on `model`.

    Raises ValueError, with the value, unless x has shape (N, H, W, C) with N >= 1 and values in
    [0, 1], y has shape (N,) with integers below the number of classes, `loss` is one of LOSSES,
    and the model takes these images and returns logits rather than probabilities.
    """
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    x, y = checked_images(x), np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(f"y must have shape ({len(x)},), one label an image, got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y must hold integers, got dtype {y.dtype}")
    classes = cached(_classes, model, x.shape[1:], sample=x[:ROWS])
    if y.min() < 0 or y.max() >= classes:
        wrong = y[(y < 0) | (y >= classes)][0]
        raise ValueError(f"labels must be in 0..{classes - 1}, got {wrong}")
    return x, y.astype(np.int64)


def check_count(name, value, smallest=1):
    """Raise ValueError, naming it, unless the value is an integer >= smallest."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < smallest:
        raise ValueError(f"{name} must be an integer >= {smallest}, got {value!r}")


def checked_images(x):
    """Return x as float32; raise ValueError unless it is (N, H, W, C), N >= 1, within [0, 1]."""
    x = np.asarray(x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x must have shape (N, H, W, C) with N >= 1, got {x.shape}")
    low, high = x.min(), x.max()
    if not (low >= 0 and high <= 1):  # so that NaN does not pass
        raise ValueError(f"x must lie in [0, 1], got values in [{low}, {high}]")
    return x.astype(np.float32, copy=False)


def checked_targets(logits, y):
    """Raise ValueError, naming an image, where the target is already the model's answer."""
    same = np.flatnonzero(np.argmax(logits, axis=1) == y)
    if len(same):
        raise ValueError(f"a target must differ from the class that the image has: image {same[0]} "
                         f"is of class {y[same[0]]} already ({len(same)} such of {len(y)})")


def function(model, loss="margin"):
    """Return the compiled f(x, y) -> (logits, gradient of the loss by x); x, y are tensors.

    loss: one of LOSSES, or a function of what f is told after x, and of the logits. One for each model
    and loss, however often it is asked for. Not XLA: on a CPU that is slower.
    """
    return cached(_function, model, loss)


def logits(model, x, batch_size=256):
    """Return the logits of images x, float32 (N, classes), compiled and in batches."""
    forward = cached(_forward, model)
    return np.concatenate([forward(batch)[:rows.stop - rows.start].numpy()
                           for rows, batch in batches(batch_size, x)])


def slopes(model, x, y, loss="margin", batch_size=256):
    """Return the gradient of the loss by each image, float32 (N, H, W, C), compiled and in batches."""
    run = function(model, loss)
    return np.concatenate([run(*batch)[1][:rows.stop - rows.start].numpy()
                           for rows, *batch in batches(batch_size, x, y, description="gradients")])


def batches(size, *arrays, description="logits"):
    """Yield (rows, tensors...): `size` rows of each array at a time, with progress after 2 s.

    A batch is filled up to a multiple of ROWS by repeating its own: then what is computed for an
    image does not depend on its batch.
    """
    check_count("batch_size", size)
    with tqdm(total=len(arrays[0]), desc=description, unit="img", leave=False, delay=2) as bar:
        for start in range(0, len(arrays[0]), size):
            rows = slice(start, min(start + size, len(arrays[0])))
            yield rows, *(tf.constant(filled(array[rows])) for array in arrays)
            bar.update(rows.stop - rows.start)


def filled(array, step=ROWS):
    """Return the array, its rows repeated up to a multiple of `step` that is at least ROWS."""
    rows = max(ROWS, -(-len(array) // step) * step)
    return np.resize(array, (rows, *array.shape[1:])) if rows > len(array) else array


def call(model, x):
    """Return model(x) as a float32 tensor; Keras models in inference mode."""
    result = model(x, training=False) if isinstance(model, keras.Model) else model(x)
    return tf.cast(result, tf.float32)


def cached(make, model, *key, **more):
    """Return make(model, *key, **more), made once; kept until 64 others have been asked for since."""
    identity = (make, id(model), *key)
    entry = _made.pop(identity, None) or (model, make(model, *key, **more))
    _made[identity] = entry  # the model too: while it is kept, no other has its id
    if len(_made) > 64:
        _made.pop(next(iter(_made)))
    return entry[1]


_made = {}


def _classes(model, shape, sample):
    """Return the number of classes, having seen that the model returns logits for such images."""
    sample = filled(sample)
    try:
        result = call(model, tf.constant(sample)).numpy()
    except Exception as error:  # whatever an arbitrary model raises at a shape that it does not take
        raise ValueError(f"the model does not take images of shape {shape}: {error}") from error
    if result.ndim != 2 or len(result) != len(sample) or result.shape[1] < 2:
        raise ValueError("the model must return logits of shape (N, classes), classes >= 2; "
                         f"for {len(sample)} images it returned {result.shape}")
    if result.min() >= 0 and np.allclose(result.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the model must return logits, but all its rows sum to one: these are "
                         "probabilities. Leave out its softmax")
    return result.shape[1]


def _forward(model):
    return compile(call, model)


def compile(run, *bound):
    """Return run(*bound, ...) compiled, for tensors of any number of rows.

    One trace for each shape of a row, which does not know the number: one that knew it would be
    optimised for it, and round otherwise. A partial function rather than a closure: TensorFlow counts
    how often closures of one source are traced, and warns at the fifth model.
    """
    compiled = tf.function(functools.partial(run, *bound))

    def call_any_size(*arguments):
        specs = [tf.TensorSpec((None, *part.shape[1:]) if part.shape.rank else (), part.dtype)
                 for part in arguments]
        return compiled.get_concrete_function(*specs)(*arguments)
    return call_any_size


def _function(model, loss):
    return compile(_gradient, model, loss)


def _gradient(model, loss, x, *told):
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = call(model, x)
        value = LOSSES.get(loss, loss)(*told, result)
    gradient = tape.gradient(value, x)
    if gradient is None:
        raise ValueError("no gradient passes through the model to its images: an attack that "
                         "follows the gradient would fail, and the model only look robust")
    return result, gradient
