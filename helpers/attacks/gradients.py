"""What every attack stands on: the checked door for models, losses, compiled gradients, and batches.

A model is anything that, called with a batch of images (N, H, W, C) in [0, 1], returns one array of
logits (N, classes):
- a Keras model of any kind: functional, Sequential, subclassed, or one inside another; it is asked in
  inference mode;
- any callable made of TensorFlow's operations: a network behind a defence, say. If it is random, it
  draws by tf.random;
- where no gradient is needed (`logits`, Square, noise), any callable at all: of NumPy, or `predict`.
The first two are compiled, once for each model and loss, for batches of any size. What they read
besides their images must be TensorFlow's (variables, tensors): a Python attribute and NumPy's random
numbers are frozen by compiling. `checked` and `logits` ask the model, each time and not compiled, for the
images by which it was met, and refuse it where what was compiled does not follow; and they refuse
probabilities, logits or gradients that are not finite, and answers that depend on the images beside. Where
the gradient is zero, an attack warns (ZeroGradient), and so does the door where the model is random
(RandomAnswers).
"""
import functools
import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from helpers.artifacts.progress import tqdm

ROWS = 16  # batches have a multiple of so many: else kernels change with the size, and round otherwise
MOST_ZERO = 0.1  # share of images without a gradient, from which on an attack warns


class RandomAnswers(UserWarning):
    """A model answers at random: what an attack finds at some draws need not hold at others."""


class ZeroGradient(UserWarning):
    """An attack could not move many images, since their gradient is zero: they only look robust."""


def margin(y, logits):
    """Return F = z_y - max of the other logits, (N,), as a tensor."""
    logits = tf.convert_to_tensor(logits)
    own = tf.one_hot(y, tf.shape(logits)[-1], dtype=logits.dtype)
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


def checked(model, x, y, loss="margin", *, gradient=True):
    """Return (x, y) as float32 and int64 arrays fit for an attack on `model`.

    gradient: whether the attack needs one, so that the model must be TensorFlow's. Raises ValueError,
    with the value, unless x has shape (N, H, W, C) with N >= 1 and values in [0, 1], y has shape (N,)
    with integers below the number of classes, `loss` is one of LOSSES, and the model is one (see above)
    for such images.
    """
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    x, y = checked_images(x), np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(f"y must have shape ({len(x)},), one label an image, got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y must hold integers, got dtype {y.dtype}")
    seen = _met(model, x)
    if gradient and seen.hindrance:
        raise ValueError(f"no gradient passes through the model to its images ({seen.hindrance}): an attack "
                         "that follows it would fail, and the model only look robust. Give it in "
                         "TensorFlow's operations, or attack it by Square, which only asks")
    if y.min() < 0 or y.max() >= seen.classes:
        wrong = y[(y < 0) | (y >= seen.classes)][0]
        raise ValueError(f"labels must be in 0..{seen.classes - 1}, got {wrong}")
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
    return made_once(_function, model, loss)


def logits(model, x, batch_size=256):
    """Return the logits of images x, float32 (N, classes), in batches; compiled where the model can be.

    Raises ValueError where the model is none (see above), or a logit is not finite.
    """
    return ask(answering(model, x), x, batch_size)


def ask(answer, x, batch_size=256):
    """Return the logits that `answer`, of `answering`, gives for images x.

    Raises ValueError where not finite.
    """
    found = np.concatenate([answer(batch)[:rows.stop - rows.start].numpy()
                            for rows, batch in batches(batch_size, x)])
    check_finite(np.isfinite(found).all(axis=1), "logits")
    return found


def answering(model, x):
    """Return the function from a tensor of images to logits: compiled, or the model where it cannot be.

    x: the images to come, by some of which the model is checked. Raises ValueError where it is none (see
    above).
    """
    return made_once(_forward, model, _met(model, x).compiled)


def slopes(model, x, y, loss="margin", batch_size=256):
    """Return the gradient of the loss by each image, float32 (N, H, W, C), compiled and in batches.

    Raises ValueError where it is not finite.
    """
    run, found, fine = function(model, loss), np.empty(x.shape, np.float32), np.empty(len(x), bool)
    for rows, *batch in batches(batch_size, x, y, description="gradients"):
        answer, gradient = run(*batch)
        count = rows.stop - rows.start
        found[rows], fine[rows] = gradient[:count], finite(answer, gradient)[:count]
    check_finite(fine)
    return found


def finite(logits, gradient):
    """Return where an image's logits and its gradient are finite, bool (N,), as a tensor."""
    return (tf.reduce_all(tf.math.is_finite(logits), axis=1)
            & tf.reduce_all(tf.math.is_finite(gradient), axis=tuple(range(1, gradient.shape.rank))))


def check_finite(fine, what="logits or gradient"):
    """Raise ValueError, with how many, unless `what` is finite on all images; fine: bool (N,)."""
    count = int(np.sum(~np.asarray(fine)))
    if count:
        raise ValueError(f"the model's {what} must be finite, and on {count} of {len(fine)} images it is not "
                         "(NaN or infinite): an attack would fail there, and the model only look robust")


def warn_of_zeros(zero, loss="loss"):
    """Warn, with their share, where the gradient of many images is zero; zero: bool (N,)."""
    share = np.mean(zero)
    if share > MOST_ZERO:
        warnings.warn(f"the gradient of the {loss} is exactly zero on {100 * share:.0f} % of {len(zero)} "
                      "images, which the attack therefore leaves: it is masked, and they only look robust",
                      ZeroGradient, stacklevel=3)


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
    """Return model(x) as a float32 tensor (N, classes); Keras models in inference mode."""
    result = _one(_asked(model, x))
    if result.shape.rank != 2:  # unknown, of an operation that runs Python
        result = tf.ensure_shape(result, (None, None))
    return tf.cast(result, tf.float32)


def made_once(make, model, *key, **more):
    """Return make(model, *key, **more), made once; kept until 64 others have been asked for since."""
    identity = (make, id(model), *key)
    entry = _made.pop(identity, None) or (model, make(model, *key, **more))
    _made[identity] = entry  # the model too: while it is kept, no other has its id
    if len(_made) > 64:
        _made.pop(next(iter(_made)))
    return entry[1]


_made = {}


class _Seen(NamedTuple):
    """What the door has seen of a model: its classes, whether it compiles, why it has no gradient, a sample.

    sample: the images by which it was met; answer: its logits then, not compiled, kept up to date.
    """
    classes: int
    compiled: bool
    hindrance: str
    sample: np.ndarray
    answer: np.ndarray


def _met(model, x):
    """Return the _Seen of a model for images x.

    Raises ValueError where it is none, or not one and the same.
    """
    seen = made_once(_first_met, model, x.shape[1:], sample=filled(np.asarray(x[:ROWS], np.float32)))
    if seen.compiled:
        _check_same(model, seen)
    return seen


def _first_met(model, shape, sample):
    """Return the _Seen of a model, having asked it for a sample of images."""
    result, hindrance = _answer(model, shape, sample)
    if result.ndim != 2 or len(result) != len(sample) or result.shape[1] < 2:
        raise ValueError("the model must return logits of shape (N, classes), classes >= 2; "
                         f"for {len(sample)} images it returned {result.shape}")
    if result.min() >= 0 and np.allclose(result.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the model must return logits, but all its rows sum to one: these are "
                         "probabilities. Leave out its softmax")
    compiled = not hindrance
    if compiled:
        try:
            made_once(_forward, model, True)(tf.constant(sample))
        except Exception as error:  # whatever Python that is no TensorFlow raises when it is traced
            compiled, hindrance = False, _first_line(error)
    _check_company(model, sample, result)
    if compiled:
        _check_compiled(model, sample, result)
    if compiled and not _passes(model, tf.constant(sample)):
        hindrance = "its logits depend on them by no operation that has one"
    return _Seen(result.shape[1], compiled, hindrance, sample, result.astype(np.float32))


def _check_company(model, sample, answers):
    """Raise ValueError where the answer to an image depends on those beside it, and is not random anyway."""
    others = np.random.default_rng(0).random(sample.shape, np.float32)
    others[0] = sample[0]
    ask = _forward(model, False)
    beside = ask(tf.constant(others)).numpy()[:1]
    if _differ(answers[:1], beside).any() and not _differ(answers, ask(tf.constant(sample)).numpy()).any():
        raise ValueError("the model's answer to an image depends on the images beside it, by up to "
                         f"{_largest(answers[:1] - beside):.2g} in a logit, so that what is attacked in a "
                         "batch need not hold alone: batch normalisation must be in inference mode, and "
                         "nothing may be taken over the batch")


def _check_compiled(model, sample, answers):
    """Raise ValueError where a model that is not random answers otherwise by being compiled.

    A model that rounds, as JPEG does, differs on many images, by up to a twentieth of its largest logit: some
    quarter of the usual ones.
    """
    compiled = made_once(_forward, model, True)(tf.constant(sample)).numpy()
    with np.errstate(invalid="ignore"):  # what is not finite is told elsewhere
        apart = np.abs(compiled - answers).max(axis=1) > 0.5 * _usual(answers)
    if apart.mean() > 0.25 and not _differ(answers, call(model, tf.constant(sample)).numpy()).any():
        raise ValueError(f"the model answers otherwise when it is compiled, on {apart.sum()} of {len(apart)} "
                         f"images by up to {_largest(compiled - answers):.2g} in a logit: it must not ask "
                         "how, or on how many images, it is run")


def _answer(model, shape, sample):
    """Return (what the model answers as it is, why that is not TensorFlow's, or "")."""
    if not callable(model):
        raise ValueError(f"the model must be a callable from images to logits, got {model!r}")
    hindrance = ""
    try:
        result = _asked(model, tf.constant(sample))
    except Exception as error:  # whatever an arbitrary model raises at images that it does not take
        hindrance = _first_line(error)
        try:
            result = _asked(model, sample)
        except Exception:
            raise ValueError(f"the model does not take images of shape {shape}, {len(sample)} at once: "
                             f"{hindrance}") from error
    result = _one(result)
    foreign = "" if tf.is_tensor(result) else f"it returned {type(result).__name__}"
    return np.asarray(result), hindrance or foreign


def _passes(model, images):
    """Return whether a gradient passes from the logits to the images, be it zero."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = call(model, images)
    return tape.gradient(logits, images) is not None


def _asked(model, x):
    return model(x, training=False) if isinstance(model, keras.Model) else model(x)


def _one(result):
    """Return what a model returned; raise ValueError unless it is one array."""
    if isinstance(result, dict):
        raise ValueError("the model must return one array of logits, got a dict of "
                         f"{', '.join(map(repr, result))}: choose one of them")
    if isinstance(result, (list, tuple)) or result is None:
        raise ValueError("the model must return one array of logits, got "
                         f"{'None' if result is None else f'a {type(result).__name__} of {len(result)}'}")
    return result


def _first_line(error):
    return f"{type(error).__name__}: {(str(error).strip() or 'no word').splitlines()[0].strip(' .')}"


def _check_same(model, seen):
    """Raise ValueError unless the compiled model is the model still, or as random as it is."""
    images, kept = tf.constant(seen.sample), made_once(_forward, model, True)
    now = call(model, images).numpy()
    if not _differ(now, seen.answer).any():
        return
    if _differ(now, call(model, images).numpy()).any():
        if not _differ(kept(images).numpy(), kept(images).numpy()).any():
            raise ValueError("the model answers at random, but the same for ever once compiled, so that "
                             "attacks would meet one fixed answer: draw its random numbers by tf.random "
                             "instead of NumPy or Python")
        warnings.warn("the model answers at random: what is found at some draws, a distance above all, need "
                      "not hold at others. Ask for the answers again, or attack the mean of its logits",
                      RandomAnswers, stacklevel=4)
        return
    other = _differ(compile(call, model)(images).numpy(), kept(images).numpy())
    if other.any():
        raise ValueError("the model's state has changed since it was compiled, so that attacks would meet "
                         f"the old one: {other.sum()} of {len(other)} images now have logits that differ by "
                         f"up to {_largest(now - seen.answer):.2g}. Keep what it reads in tf.Variable, or "
                         "give a new callable")
    seen.answer[:] = now  # its variables have changed, which what is compiled follows


def _differ(one, two):
    """Return where the logits of an image differ by more than rounding, bool (N,)."""
    return ~np.isclose(one, two, rtol=1e-3, atol=1e-3 * _usual(one), equal_nan=True).all(axis=1)


def _usual(values):
    """Return the median size of logits: one of them may be -1e9, of a class that is ruled out."""
    return float(np.median(np.abs(values)[np.isfinite(values)])) if np.isfinite(values).any() else 0.0


def _largest(values):
    size = np.abs(values)[np.isfinite(values)]
    return float(size.max()) if size.size else 0.0


def _forward(model, compiled):
    """Return the function from a tensor of images to logits."""
    if compiled:
        return compile(call, model)

    def ask(images):
        try:
            result = _asked(model, images)
        except Exception:  # it takes NumPy's arrays only
            result = _asked(model, images.numpy())
        return tf.constant(np.asarray(_one(result)), tf.float32)
    return ask


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
        try:
            run_traced = compiled.get_concrete_function(*specs)
        except Exception as error:  # of many lines, where TensorFlow traces Python
            last = str(error).strip().splitlines()[-1].strip()
            raise ValueError(f"the model cannot be compiled: {last}") from error
        return run_traced(*arguments)
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


def margins(logits, y):
    """Return F = z_y - max of the other logits, (N,): negative where the image is misclassified."""
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    return logits[rows, y] - others.max(axis=1)
