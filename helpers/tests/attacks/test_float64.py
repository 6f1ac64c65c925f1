"""Networks and gradients in float64, against those of float32 and by hand."""
import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks
from helpers.attacks import float64, gradients
from helpers.networks import models


@pytest.mark.parametrize("model", [models.lenet((28, 28, 1)), models.resnet((16, 16, 3), depth=8)],
                         ids=lambda model: model.name)
def test_copies_compute_the_same_in_float64(model):
    rng = np.random.default_rng(0)
    x = rng.random((16, *model.input_shape[1:]), np.float32)
    models.normalize(model, x)
    for layer in model.layers:
        if "_bn" in layer.name:
            layer.set_weights([w + rng.uniform(0, 0.2, w.shape) for w in layer.get_weights()])
    copy = float64.wide_copy(model)
    z, wide = model(x).numpy(), copy(tf.constant(x, tf.float64)).numpy()
    assert wide.dtype == np.float64
    np.testing.assert_allclose(z, wide, rtol=1e-4, atol=1e-4 * np.abs(z).max())
    moved = copy(tf.constant(x, tf.float64) + 1e-12).numpy()  # float32 would not see this
    assert 0 < np.abs(moved - wide).max() < 1e-6
    assert model(x).dtype == tf.float32  # as it was


def test_directions_are_exact_where_gradients_in_float32_are_zero():
    masked = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
                               keras.layers.Dense(2, name="dense"), keras.layers.Rescaling(1e6)])
    x = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
    y = gradients.logits(masked, x).argmax(axis=1)
    x, y = tf.constant(x), tf.constant(y)
    _, narrow = gradients.function(masked, "cross_entropy")(x, y)
    assert not narrow.numpy().any()
    wide = float64._direction(float64.wide_copy(masked))(x, y).numpy()
    weights = 1e6 * masked.get_layer("dense").get_weights()[0].astype(np.float64)
    y = y.numpy()
    other = (weights[:, 1 - y] - weights[:, y]).T.reshape(x.shape)  # of the only other class
    np.testing.assert_allclose(wide, other, rtol=1e-6)


def test_directions_are_those_of_the_cross_entropy():
    model = models.lenet((12, 12, 1), num_classes=5)
    x = tf.constant(np.random.default_rng(0).random((16, 12, 12, 1), np.float32))
    y = tf.constant(np.arange(16) % 5)
    _, narrow = gradients.function(model, "cross_entropy")(x, y)
    wide = float64._direction(float64.wide_copy(model))(x, y).numpy()
    cosine = (wide * narrow).numpy().sum(axis=(1, 2, 3)) / attacks.l2(wide) / attacks.l2(narrow.numpy())
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


@pytest.mark.parametrize("norm, eps", [(np.inf, 0.1), (2, 1.0)])
def test_fgsm_is_that_of_float32_where_nothing_is_masked(norm, eps):
    model = models.lenet((12, 12, 1), num_classes=5)
    x = np.random.default_rng(0).uniform(0.2, 0.8, (20, 12, 12, 1)).astype(np.float32)
    y = np.arange(20) % 5
    x_adv = float64.wide_fgsm(float64.wide_copy(model), x, y, eps=eps, norm=norm)
    narrow = attacks.fgsm(model, x, y, eps=eps, norm=norm)
    assert x_adv.dtype == np.float32 and (np.abs(x_adv - narrow) < 1e-4).mean() > 0.999


def test_a_constant_model_is_not_divided_by_zero():
    x = np.full((2, 4, 4, 1), 0.5, np.float32)
    constant = lambda images: 0 * tf.reduce_sum(images, axis=(1, 2)) + tf.zeros(3, tf.float64)
    for norm in (np.inf, 2):
        with pytest.warns(gradients.ZeroGradient):
            assert np.array_equal(float64.wide_fgsm(constant, x, np.array([0, 1]), eps=0.3, norm=norm), x)


@pytest.mark.parametrize("change, words", [
    ({"y": np.array([0, 3])}, r"one integer in 0\.\.2"), ({"y": np.array([0.0, 1.0])}, "one integer"),
    ({"y": np.array([0])}, "one integer"),
    ({"x": np.full((2, 4, 4, 1), 2.0)}, r"must lie in \[0, 1\]"), ({"eps": 8}, "at most 1"),
    ({"norm": 1}, "norm must be"),
    ({"model": lambda images: tf.zeros((len(images), 3))}, "must compute in float64")])
def test_what_does_not_fit_is_refused(change, words):
    linear = lambda images: tf.reshape(images, (-1, 16))[:, :3]
    given = {"model": linear, "x": np.full((2, 4, 4, 1), 0.5, np.float32), "y": np.array([0, 1]),
             "eps": 0.1} | change
    with pytest.raises(ValueError, match=words):
        float64.wide_fgsm(**given)


def test_only_keras_models_are_copied():
    with pytest.raises(ValueError, match="a Keras model is needed"):
        float64.wide_copy(lambda x: x)
