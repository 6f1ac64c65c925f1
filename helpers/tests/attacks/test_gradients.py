"""The checked door for models: what every attack, map, frequency response and defence asks of them."""
import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks, frequency, jpeg, saliency
from helpers.attacks import gradients
from helpers.study import behind_jpeg

N, SHAPE, CLASSES = 20, (8, 8, 1), 4
WEIGHTS = np.random.default_rng(0).normal(0, 1, (64, CLASSES)).astype(np.float32)
FOLLOWING = {  # all that follow a gradient
    "fgsm": functools.partial(attacks.fgsm, eps=0.1),
    "fgsm L2": functools.partial(attacks.fgsm, eps=0.1, norm=2),
    "pgd": functools.partial(attacks.pgd, eps=0.1, eps_iter=0.03, nb_iter=4),
    "pgd L2": functools.partial(attacks.pgd, eps=0.1, eps_iter=0.03, nb_iter=4, norm=2),
    "least fgsm": functools.partial(attacks.minimal_norm, attack="fgsm", high=0.5),
    "least pgd": functools.partial(attacks.minimal_norm, attack="pgd", high=0.5, nb_iter=3),
    "carlini_wagner": functools.partial(attacks.carlini_wagner, max_iterations=20, binary_search_steps=1),
    "confined": functools.partial(behind_jpeg.confined, passing=[np.ones((8, 8))], eps=0.1)}
SPEAKING = FOLLOWING | {  # and all that say something of one
    "gain": lambda model, x, y: frequency.gain(model, x, y),
    "linear margin": lambda model, x, y: jpeg.linear_margin(model, x, y, 0 * x),
    "slopes": lambda model, x, y: gradients.slopes(model, *gradients.checked(model, x, y))}
ASKING = {"logits": lambda model, x, y: gradients.logits(model, x),
          "square": functools.partial(attacks.square, eps=0.1, nb_iter=5)}


def _images(n=N):
    x = np.random.default_rng(1).uniform(0.1, 0.9, (n, *SHAPE)).astype(np.float32)
    x[:5, :2] = 0.0  # black pixels, in these images alone
    return x


def _linear(x):
    return tf.reshape(x, (-1, 64)) @ WEIGHTS


def _labels(x):
    return (x.reshape(len(x), -1) @ WEIGHTS).argmax(axis=1)


def _tried(call, model, x, y):
    """Return call(model, x, y) without the warning of zero gradients, which is looked at by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gradients.ZeroGradient)
        return call(model, x, y)


# What is not finite

@pytest.mark.parametrize("name", SPEAKING)
def test_an_infinite_slope_is_told_with_the_number_of_images(name):
    x = _images()
    # A start makes black pixels; three are wrong as they are.
    count = {"pgd": r"\d+ of \d+", "carlini_wagner": "5 of 17"}.get(
        name.removesuffix(" L2").removeprefix("least "), "5 of 20")
    with pytest.raises(ValueError, match=f"must be finite, and on {count} images it is not"):
        SPEAKING[name](lambda images: _linear(images ** (1 / 2.2)), x, _labels(x))


def test_an_infinite_slope_is_told_where_an_attack_meets_it_on_its_way():
    """None of the images has a black pixel, and PGD's steps make some."""
    x = np.maximum(_images(), 0.1)
    with pytest.raises(ValueError, match=r"must be finite, and on \d+ of 20 images it is not"):
        attacks.pgd(lambda images: _linear(images ** (1 / 2.2)), x, _labels(x), eps=0.3, eps_iter=0.1,
                    nb_iter=8)


@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_told(call, value):
    x = _images()
    broken = lambda images: tf.where(tf.reduce_min(images, axis=(1, 2, 3))[:, None] > 0, _linear(images),
                                     value)
    with pytest.raises(ValueError, match="must be finite, and on 5 of 20 images it is not"):
        call(broken, x, _labels(x))


def test_a_network_with_a_weight_that_is_no_number_is_told():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    model.set_weights([np.where(np.arange(256).reshape(64, 4) == 7, np.nan, 0.1), np.zeros(4)])
    for call in (*FOLLOWING.values(), *ASKING.values()):
        with pytest.raises(ValueError, match="must be finite, and on 20 of 20 images it is not"):
            call(model, _images(), np.zeros(N, int))


# What is frozen by compiling, or of a whole batch

class _WithState:
    """A defence that reads a Python attribute."""

    def __init__(self):
        self.factor = 1.0

    def __call__(self, x):
        return self.factor * _linear(x)


@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
def test_a_state_that_changes_under_a_compiled_model_is_told(call):
    model, x = _WithState(), _images()
    before = _tried(call, model, x, _labels(x))
    assert before is not None
    model.factor = 0.97
    with pytest.raises(ValueError, match="state has changed .* 16 of 16 images now have logits that differ "
                                         "by up to"):
        call(model, x, _labels(x))


@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
def test_a_state_of_tensorflow_is_followed(call):
    x, factor = _images(), tf.Variable(1.0)
    model = lambda images: factor * _linear(images)
    _tried(call, model, x, _labels(x))
    factor.assign(3.0)
    _tried(call, model, x, _labels(x))
    np.testing.assert_allclose(gradients.logits(model, x), 3 * x.reshape(N, -1) @ WEIGHTS, rtol=1e-4,
                               atol=1e-4)


@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
def test_randomness_that_compiling_freezes_is_told(call):
    x = _images()
    with pytest.raises(ValueError, match="at random, but the same for ever once compiled.*tf.random"):
        call(lambda images: _linear(images + np.random.normal(0, 0.1, SHAPE).astype(np.float32)), x,
             _labels(x))
    x[3:] = np.maximum(x[3:], 0.2)  # it is random on three images alone
    with pytest.raises(ValueError, match="at random, but the same for ever once compiled"):
        call(lambda images: _linear(images) * tf.where(images[:, :1, 0, 0] > 0, 1.0, np.random.random()), x,
             _labels(x))


@pytest.mark.parametrize("call", FOLLOWING.values(), ids=FOLLOWING)
def test_a_model_that_draws_by_tensorflow_is_attacked_with_a_warning(call):
    x = _images()
    with pytest.warns(gradients.RandomAnswers, match="at random: what is found at some draws"):
        found = _tried(call, lambda images: _linear(images + tf.random.normal(tf.shape(images), 0, 0.01)), x,
                       _labels(x))
    found = found[0] if isinstance(found, tuple) else found
    assert found.shape == x.shape and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
@pytest.mark.parametrize("model", [
    lambda images: _linear(images - tf.reduce_mean(images, axis=0, keepdims=True)),
    lambda images, layer=keras.layers.BatchNormalization(): _linear(layer(images, training=True))])
def test_a_model_of_a_whole_batch_is_told(call, model):
    x = _images()
    with pytest.raises(ValueError, match="answer to an image depends on the images beside it, by up to"):
        call(model, x, _labels(x))


@pytest.mark.parametrize("model", [
    lambda images: _linear(images) if images.shape[0] is None else 0.5 * _linear(images),
    lambda images: _linear(images) if tf.executing_eagerly() else -_linear(images)])
def test_a_model_that_asks_how_it_is_run_is_told(model):
    x = _images()
    for call in (*FOLLOWING.values(), *ASKING.values()):
        with pytest.raises(ValueError, match="answers otherwise when it is compiled, on 1?[0-9] of 16 images "
                                             "by up to"):
            call(model, x, _labels(x))


# What cannot be compiled

def _predict(x):
    """As a Keras model's predict: an array of NumPy, and no tracing."""
    return np.asarray(x).reshape(len(x), -1) @ WEIGHTS


OUTSIDE = {"predict": _predict, "NumPy only": lambda x: x.reshape(len(x), -1).dot(WEIGHTS),
           "a list's array": lambda x: np.array([image.ravel() @ WEIGHTS for image in np.asarray(x)]),
           "numpy_function": lambda x: tf.numpy_function(_predict, [x], tf.float32),
           "double precision": lambda x: _predict(x).astype(np.float64)}


@pytest.mark.parametrize("model", OUTSIDE.values(), ids=OUTSIDE)
def test_a_model_outside_tensorflow_is_asked(model):
    x = _images()
    np.testing.assert_allclose(gradients.logits(model, x), gradients.logits(_linear, x), atol=1e-5)
    found = attacks.square(model, x, _labels(x), eps=0.2, nb_iter=20)
    np.testing.assert_array_equal(found, attacks.square(_linear, x, _labels(x), eps=0.2, nb_iter=20))


@pytest.mark.parametrize("model", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("call", SPEAKING.values(), ids=SPEAKING)
def test_a_model_outside_tensorflow_has_no_gradient(call, model):
    x = _images()
    with pytest.raises(ValueError, match="^no gradient passes through the model to its images [^\n]*by "
                                         "Square[^\n]*$"):
        call(model, x, _labels(x))


@pytest.mark.parametrize("result, told", [
    (lambda z: {"logits": z, "features": z}, "one array of logits, got a dict of 'logits', 'features'"),
    (lambda z: [z, z], "one array of logits, got a list of 2"),
    (lambda z: (z,), "one array of logits, got a tuple of 1"),
    (lambda z: None, "one array of logits, got None"), (lambda z: z[:, :1], r"logits of shape .*\(16, 1\)")])
@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
def test_what_is_not_one_array_of_logits_is_told(call, result, told):
    x = _images()
    with pytest.raises(ValueError, match=f"^the model must return {told}"):
        call(lambda images: result(_linear(images)), x, _labels(x))
    with pytest.raises(ValueError, match="^the model must be a callable from images to logits, got 'lenet'"):
        call("lenet", x, _labels(x))


class Subclassed(keras.Model):
    """A network of Python, with a model inside."""

    def __init__(self):
        super().__init__()
        self.inside = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
        self.drop = keras.layers.Dropout(0.9)

    def call(self, x, training=None):
        return self.drop(self.inside(x), training=training)


@pytest.mark.parametrize("call", (SPEAKING | ASKING).values(), ids=SPEAKING | ASKING)
@pytest.mark.parametrize("make", [
    Subclassed,
    lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)]),  # not built
    lambda: keras.Sequential([keras.Input(SHAPE), Subclassed()]),
    lambda: keras.Model(inputs := keras.Input(SHAPE), keras.Sequential([
        keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(CLASSES)])(inputs))])
def test_a_keras_model_of_any_kind_is_one(call, make):
    x = _images(4)
    _tried(call, make(), x, np.zeros(4, int))


# Gradients that are zero

@pytest.mark.parametrize("call", [FOLLOWING[name] for name in FOLLOWING if name != "confined"])
def test_a_gradient_that_is_zero_is_told_with_its_share(call):
    """A defence that rounds, and passes a gradient of zero: on half of the images, and on none."""
    x = np.maximum(_images(), 0.2)
    x[:, 0, 0, 0] = np.arange(N) % 2  # tells the images to mask

    def masked(images):
        hide = tf.stop_gradient(images[:, :1, :1])
        return _linear(tf.where(hide > 0.5, tf.stop_gradient(tf.round(4 * images) / 4) + 0 * images, images))
    y = gradients.logits(masked, x).argmax(axis=1)
    with pytest.warns(gradients.ZeroGradient, match=r"exactly zero on \d\d % of 20 images"):
        call(masked, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", gradients.ZeroGradient)
        call(_linear, x, _labels(x))


# Many classes

def test_many_classes_cost_no_memory_of_images():
    """Of 1,000 classes the rivals are chosen before any image is copied."""
    weights = np.random.default_rng(0).normal(0, 1, (64, 1000)).astype(np.float32)
    seen = []

    def model(images):
        tf.numpy_function(lambda n: seen.append(int(n)) or np.int32(0), [tf.shape(images)[0]], tf.int32)
        return tf.reshape(images, (-1, 64)) @ weights
    x = np.maximum(_images(4), 0.2)
    z = gradients.logits(model, x).astype(np.float64)
    x_adv = attacks.carlini_wagner(model, x, z.argmax(axis=1))
    gaps = z.max(axis=1, keepdims=True) - z
    lengths = np.linalg.norm(weights[:, z.argmax(axis=1)].T[:, :, None] - weights[None], axis=1)
    nearest = np.where(gaps > 0, gaps / np.maximum(lengths, 1e-9), np.inf).min(axis=1)
    np.testing.assert_allclose(attacks.l2(x_adv - x), nearest, rtol=0.02)
    assert max(seen) <= 128


@pytest.mark.parametrize("scale", [1e-35, 1e-12, 1e-6, 1e6, 1e20, 1e35])
def test_carlini_wagner_does_not_mind_the_scale_of_the_logits(scale):
    x = np.maximum(_images(8), 0.2)
    usual, found = (attacks.l2(attacks.carlini_wagner(model, x, _labels(x)) - x)
                    for model in (_linear, lambda images: scale * _linear(images)))
    np.testing.assert_allclose(found, usual, rtol=0.02)
    wrong = gradients.margins(gradients.logits(_linear, attacks.carlini_wagner(
        lambda images: scale * _linear(images), x, _labels(x))), _labels(x))
    assert (wrong < 0).all()


@pytest.mark.parametrize("change", [
    lambda z: tf.concat([z, tf.fill((tf.shape(z)[0], 1), -1e9)], axis=1),
    lambda z: tf.concat([z, tf.fill((tf.shape(z)[0], 1), -1e30)], axis=1),
    lambda z: z + 1e4, lambda z: z - 3e4])
@pytest.mark.parametrize("targeted", [False, True])
def test_carlini_wagner_does_not_mind_a_class_ruled_out_or_an_offset(change, targeted):
    x = np.maximum(_images(8), 0.2)
    told = (_labels(x) + targeted) % CLASSES
    usual, found = (attacks.l2(attacks.carlini_wagner(model, x, told, targeted=targeted) - x)
                    for model in (_linear, lambda images: change(_linear(images))))
    assert (found > 0).all()
    np.testing.assert_allclose(found, usual, rtol=0.03)  # a logit of 3e4 is rounded to 0.002


@pytest.mark.parametrize("step", [8, 2.1])
def test_a_step_of_levels_is_named(step):
    x = _images()
    with pytest.raises(ValueError, match="^eps_iter must be at most"):
        attacks.pgd(_linear, x, _labels(x), eps=0.1, eps_iter=step, nb_iter=2)


def test_nothing_sets_the_global_seeds():
    """Random numbers drawn around the attacks are those that would be drawn without them."""
    import random
    model, x = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3, activation="relu"),
                                 keras.layers.Flatten(),
                                 keras.layers.Dense(CLASSES)]), _images()

    def drawn(work):
        random.seed(3), np.random.seed(3), tf.random.set_seed(3)
        work()
        return random.random(), np.random.random(), float(tf.random.uniform(()))
    for call in (*SPEAKING.values(), *ASKING.values(), lambda model, x, y: saliency.randomised(model, 1, 0),
                 lambda model, x, y: saliency.smooth_grad(model, x, y, draws=1)):
        assert drawn(lambda: _tried(call, model, x, np.zeros(N, int))) == drawn(lambda: None)
