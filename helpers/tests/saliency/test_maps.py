"""Saliency: Grad-CAM by hand in NumPy, completeness, linear models, and measures on known maps."""
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial import distance
from scipy.stats import spearmanr

from helpers import datasets, networks, saliency
from helpers.attacks import gradients, layers
from helpers.networks import models

RNG = np.random.default_rng(0)


def _tiny():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    maps = keras.layers.Conv2D(3, 3, activation="relu", name="first", padding="same")(inputs)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(name="pool")(maps))
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def test_grad_cam_by_hand():
    """Convolution, max pooling and a dense layer in NumPy: their maps, their derivative, the sum."""
    model, x = _tiny(), RNG.random((3, 6, 6, 2), np.float32)
    kernel, bias = (w.numpy() for w in model.get_layer("first").weights)
    dense, _ = (w.numpy() for w in model.get_layer("logits").weights)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = np.maximum(bias + sum(padded[:, i:i + 6, j:j + 6] @ kernel[i, j] for i in range(3)
                                 for j in range(3)), 0)
    for c in range(4):
        slope = np.zeros_like(maps)
        weight = dense[:, c].reshape(3, 3, 3)
        for n, i, j, k in np.ndindex(3, 3, 3, 3):
            block = maps[n, 2 * i:2 * i + 2, 2 * j:2 * j + 2, k]
            a, b = np.unravel_index(block.argmax(), (2, 2))
            slope[n, 2 * i + a, 2 * j + b, k] = weight[i, j, k]
        alpha = slope.mean(axis=(1, 2), keepdims=True)
        expected = np.maximum((alpha * maps).sum(axis=3), 0)
        np.testing.assert_allclose(saliency.grad_cam(model, x, c), expected, atol=1e-5)
    mixed = saliency.grad_cam(model, x, [0, 3, 1])
    np.testing.assert_allclose(mixed[1], saliency.grad_cam(model, x, 3)[1], atol=1e-6)


@pytest.mark.parametrize("key, layer, side",
                         [(("mnist", "lenet"), "c3", 10), (("cifar10", "resnet"), "stage3_block3_relu", 8)])
def test_default_layers_and_sizes(key, layer, side):
    model, _ = networks.load_or_train(networks.RECIPES[key])
    data = datasets.load(key[0])
    assert saliency.default_layer(model) == layer and model.get_layer(layer).output.shape[1] == side
    maps = saliency.grad_cam(model, data.x_test[:3], data.y_test[:3])
    assert maps.shape == data.x_test[:3].shape[:3] and (maps >= 0).all() and maps.max() > 0
    for name in saliency.convolutional(model)[:2]:
        assert np.isfinite(saliency.grad_cam(model, data.x_test[:2], 0, name)).all()


def test_nothing_gives_zeros():
    model = _tiny()
    model.get_layer("logits").kernel.assign(np.zeros((27, 4)))
    maps = saliency.grad_cam(model, RNG.random((2, 6, 6, 2), np.float32), 0)
    assert maps.shape == (2, 6, 6) and (maps == 0).all()


def test_a_linear_model_s_gradient():
    weights = RNG.normal(0, 1, (8, 3)).astype(np.float32)
    inputs = keras.Input((2, 2, 2))
    model = keras.Model(inputs,
                        keras.layers.Dense(3, use_bias=False, name="logits")(keras.layers.Flatten()(inputs)))
    model.get_layer("logits").kernel.assign(weights)
    x = RNG.random((4, 2, 2, 2), np.float32)
    for c in range(3):
        exact = weights[:, c].reshape(2, 2, 2)
        np.testing.assert_allclose(saliency.input_gradient(model, x, c), np.broadcast_to(exact, x.shape),
                                   atol=1e-6)
        np.testing.assert_allclose(saliency.integrated_gradients(model, x, c, steps=2), x * exact, atol=1e-5)
        np.testing.assert_allclose(saliency.smooth_grad(model, x, c, draws=2),
                                   np.broadcast_to(exact, x.shape), atol=1e-6)
    np.testing.assert_allclose(saliency.magnitude(exact[None]), np.linalg.norm(exact, axis=2)[None],
                               atol=1e-6)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_are_complete(lenet, baseline):
    data = datasets.load("mnist")
    x, y = data.x_test[:8], data.y_test[:8]
    total = saliency.integrated_gradients(lenet, x, y, baseline=baseline, steps=256).sum(axis=(1, 2, 3))
    z = gradients.logits(lenet, np.concatenate([x, np.full_like(x[:1], baseline)]))
    expected = z[np.arange(8), y] - z[8, y]
    np.testing.assert_allclose(total, expected, rtol=0.02, atol=0.1)


def test_smooth_grad_is_the_mean_gradient(lenet):
    data = datasets.load("mnist")
    x, y = data.x_test[:2], data.y_test[:2]
    np.testing.assert_allclose(saliency.smooth_grad(lenet, x, y, sigma=0, draws=3),
                               saliency.input_gradient(lenet, x, y),
                               atol=1e-5)
    one, two = (saliency.smooth_grad(lenet, x, y, draws=4, seed=s) for s in (0, 1))
    assert not np.allclose(one, two) and np.array_equal(one,
                                                        saliency.smooth_grad(lenet, x, y, draws=4, seed=0))


def test_the_cascade_changes_the_last_layers_only(lenet):
    x = datasets.load("mnist").x_test[:4]
    np.testing.assert_allclose(gradients.logits(saliency.randomised(lenet, 0), x),
                               gradients.logits(lenet, x), atol=1e-4)
    copy = saliency.randomised(lenet, 2, seed=3)
    for part in lenet.layers:
        same = all(np.array_equal(a, b) for a, b in zip(
            part.get_weights(), copy.get_layer(part.name).get_weights()))
        assert same == (part.name not in ("logits", "f6"))
    with pytest.raises(ValueError, match="count must be at most 5, the layers with weights, got 6"):
        saliency.randomised(lenet, 6)


def test_random_layers_are_those_that_keras_draws_and_no_global_state_is_touched(lenet):
    """Against Keras's own way, which seeds Python's generator, whatever seeds the layers hold."""
    x = datasets.load("mnist").x_test[:4]
    before = random.getstate(), str(np.random.get_state()), tf.compat.v1.random.get_seed(None)[0]
    copy = saliency.randomised(lenet, 5, seed=7)
    assert before == (random.getstate(), str(np.random.get_state()), tf.compat.v1.random.get_seed(None)[0])
    random.seed(7)
    expected = keras.models.clone_model(lenet)
    random.setstate(before[0])
    for name in ("c1", "c3", "c5", "f6", "logits"):
        for one, two in zip(copy.get_layer(name).get_weights(), expected.get_layer(name).get_weights(),
                            strict=True):
            assert np.array_equal(one, two)
    seeded = models.lenet((28, 28, 1), seed=3)
    first, again, other = (saliency.randomised(seeded, 1, seed).get_layer("logits").kernel.numpy()
                           for seed in (4, 4, 5))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert not np.allclose(first, seeded.get_layer("logits").kernel.numpy())
    assert gradients.logits(copy, x).shape == (4, 10)


def test_the_cascade_goes_into_models_inside():
    """From the logits downwards, and each layer once, though the model inside is called twice."""
    image = keras.Input((8, 8, 2))
    inner = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(2, 3, padding="same", name="conv"),
                              keras.layers.BatchNormalization(name="bn")], name="inner")
    z = keras.layers.Dense(3, name="logits")(
        keras.layers.Flatten()(inner(inner(keras.layers.Conv2D(2, 1, name="c1")(image)))))
    model = keras.Model(image, z)
    inner.get_layer("bn").set_weights([w + 0.1 for w in inner.get_layer("bn").get_weights()])
    assert saliency.count_layers(model) == 4
    names = ["logits", "inner/bn", "inner/conv", "c1"]
    for count in range(5):
        copy = layers.parts_by_name(saliency.randomised(model, count, seed=1))
        changed = [name for name in names if any(not np.array_equal(a, b) for a, b in zip(
            layers.parts_by_name(model)[name].get_weights(), copy[name].get_weights(), strict=True))]
        assert changed == names[:count]


def test_rank_correlation_is_scipy_s_and_nan_of_constants():
    one, two = RNG.random((5, 4, 6)), RNG.random((5, 4, 6))
    two[0] = one[0] ** 3
    two[1] = -one[1]
    two[4] = np.round(two[4], 1)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, two)]
    found = saliency.spearman(one, two)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found[:2], [1, -1])
    assert np.isnan(saliency.spearman(one, np.zeros_like(one))).all()


def test_the_top_counts_ties_in_part():
    maps = np.array([[[3.0, 2, 2], [2, 1, 0], [0, 0, 0]]])
    np.testing.assert_allclose(saliency.top(maps, 2 / 9)[0], [[1, 1 / 3, 1 / 3], [1 / 3, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(saliency.top(np.zeros((1, 3, 3)), 1 / 3), 1 / 3)
    maps = RNG.random((3, 10, 10))
    np.testing.assert_allclose(saliency.overlap(maps, maps, 0.1), 1)
    np.testing.assert_allclose(saliency.overlap(maps, -maps, 0.1), 0)
    far = saliency.overlap(RNG.random((400, 10, 10)), RNG.random((400, 10, 10)), 0.2)
    assert abs(far.mean() - 0.2) < 0.02
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        saliency.top(maps, 1)


def test_the_energy_on_the_salient_pixels():
    maps, delta = np.zeros((1, 4, 4)), np.zeros((1, 4, 4, 3))
    maps[0, 0, 0], delta[0, 0, 0], delta[0, 3, 3] = 5, 3, 1
    np.testing.assert_allclose(saliency.energy_share(delta, maps, 1 / 16), 0.9)
    np.testing.assert_allclose(saliency.energy_share(np.ones((2, 4, 4, 1)), RNG.random((2, 4, 4)), 0.25),
                               0.25)
    assert np.isnan(saliency.energy_share(np.zeros((1, 4, 4, 1)), maps)).all()


def test_centroids_divergence_and_similarity():
    one, two = np.zeros((2, 1, 9, 9))
    one[0, 1, 2], two[0, 4, 6] = 2, 7
    np.testing.assert_allclose(saliency.centroid_shift(one, two), 5)
    np.testing.assert_allclose(saliency.jensen_shannon(one, two), 1)
    maps = RNG.random((4, 9, 9))
    np.testing.assert_allclose(saliency.jensen_shannon(maps, 3 * maps), 0, atol=1e-12)
    other = RNG.random((4, 9, 9))
    expected = [distance.jensenshannon(a.ravel(), b.ravel(), base=2) ** 2 for a, b in zip(maps, other)]
    np.testing.assert_allclose(saliency.jensen_shannon(maps, other), expected)
    np.testing.assert_allclose(saliency.ssim(maps, 5 * maps), 1, atol=1e-5)
    assert (saliency.ssim(maps, other) < 0.9).all()
    for measure in (saliency.centroid_shift, saliency.jensen_shannon, saliency.ssim):
        assert np.isnan(measure(maps, np.zeros_like(maps))).all()


def test_what_does_not_fit_is_refused():
    model, x = _tiny(), RNG.random((2, 6, 6, 2), np.float32)
    assert np.array_equal(saliency.input_gradient(lambda x: model(x), x, 1),
                          saliency.input_gradient(model, x, 1))
    for function in (saliency.grad_cam, saliency.input_gradient, saliency.integrated_gradients,
                     saliency.smooth_grad):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.3, got 4"):
            function(model, x, 4)
    with pytest.raises(ValueError, match="a Keras model is needed"):
        saliency.grad_cam(lambda x: model(x), x, 0)
    for label in (1.0, True, [0.0, 1.0]):
        with pytest.raises(ValueError, match="y must hold integers"):
            saliency.grad_cam(model, x, label)
    for layer in ("nowhere", "logits"):
        with pytest.raises(ValueError, match="layer must be one of the convolutional first, pool, got "
                                             f"'{layer}'"):
            saliency.grad_cam(model, x, 0, layer)
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        saliency.integrated_gradients(model, x, 0, steps=0)
    with pytest.raises(ValueError, match=r"baseline must be in \[0, 1\], got 2"):
        saliency.integrated_gradients(model, x, 0, baseline=2)
    with pytest.raises(ValueError, match=r"sigma must be in \[0, 1\], as pixels are, got -1"):
        saliency.smooth_grad(model, x, 0, sigma=-1)
    dense = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="no convolutional layer"):
        saliency.grad_cam(dense, x, 0)
    image = keras.Input((6, 6, 2))
    z = keras.layers.Conv2D(3, 3, data_format="channels_first",
                            name="first")(keras.layers.Permute((3, 1, 2))(image))
    with pytest.raises(ValueError, match="layer first has its channels first"):
        saliency.convolutional(keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(z))))
    model.get_layer("first").kernel.assign(np.full((3, 3, 2, 3), 1e38))
    with pytest.raises(ValueError, match="must be finite"):
        saliency.grad_cam(model, x, 0)


def _branch(z):
    return keras.layers.Conv2D(3, 3, activation="relu", name="conv")(z)


class Subclassed(keras.Model):
    """LeNet's beginning, with layers in attributes: no graph, and no sizes before it is called."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.conv = keras.layers.Conv2D(3, 3, activation="relu", name="conv")
        self.end = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, name="logits")],
                                    name="end")

    def call(self, x):
        return self.end(self.conv(x))


def _kinds():
    """Yield (name, model, the name of its only convolution): the same network in models of every kind."""
    image = keras.Input((6, 6, 2))
    end = [keras.layers.Flatten(), keras.layers.Dense(4, name="logits")]
    yield "sequential", keras.Sequential([keras.Input((6, 6, 2)),
                                          keras.layers.Conv2D(3, 3, activation="relu", name="conv"),
                                          *end]), "conv"
    yield "unbuilt", keras.Sequential([keras.layers.Conv2D(3, 3, activation="relu", name="conv"),
                                       keras.layers.Flatten(),
                                       keras.layers.Dense(4)]), "conv"
    yield "subclassed", Subclassed(), "conv"
    inner = keras.Model(image, _branch(image), name="inner")
    yield "nested", keras.Sequential([keras.Input((6, 6, 2)), inner, keras.layers.Flatten(),
                                      keras.layers.Dense(4)]), "inner/conv"
    outer = keras.Sequential([keras.Input((6, 6, 2)), keras.Model(image, _branch(image), name="inner")],
                             name="outer")
    yield "twice nested", keras.Model(
        image, keras.layers.Dense(4)(keras.layers.Flatten()(outer(image)))), "outer/inner/conv"


@pytest.mark.parametrize("kind, model, name", list(_kinds()),
                         ids=lambda value: value if isinstance(value, str) else "")
def test_grad_cam_of_models_of_every_kind(kind, model, name):
    """With the weights of the functional network its maps are those of the functional network."""
    image = keras.Input((6, 6, 2))
    plain = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(_branch(image))))
    x = RNG.random((3, 6, 6, 2), np.float32)
    model(x)
    plain.set_weights(model.get_weights())
    assert saliency.default_layer(model, x) == name
    for c in range(4):
        expected = saliency.grad_cam(plain, x, c)
        np.testing.assert_allclose(saliency.grad_cam(model, x, c), expected, atol=1e-6)
        np.testing.assert_allclose(saliency.grad_cam(model, x, c, name), expected, atol=1e-6)
    with pytest.raises(ValueError, match=f"layer must be one of the convolutional {name}.*got 'nowhere'"):
        saliency.grad_cam(model, x, 0, "nowhere")
    assert "call" not in vars(layers.parts_by_name(model)[name])  # as it was


@pytest.mark.parametrize("layer", [keras.layers.SeparableConv2D(3, 3, name="only"),
                                   keras.layers.DepthwiseConv2D(3, name="only"),
                                   keras.layers.Conv2DTranspose(3, 3, name="only")],
                         ids=lambda layer: type(layer).__name__)
def test_grad_cam_of_other_convolutions(layer):
    model = keras.Sequential([keras.Input((6, 6, 2)), layer, keras.layers.MaxPooling2D(),
                              keras.layers.Flatten(),
                              keras.layers.Dense(4)])
    maps = saliency.grad_cam(model, RNG.random((3, 6, 6, 2), np.float32), [0, 1, 2])
    assert saliency.default_layer(model) == "only" and np.ptp(maps, axis=(1, 2)).max() > 0


def test_maps_of_one_pixel_say_nowhere():
    model = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=10, alpha=0.25,
                                         classifier_activation=None)
    # They are of 2 by 2, and of 3 by 3 where they are only padded.
    assert saliency.default_layer(model) == "conv_pw_11_relu"
    assert all(layers.called(model)[name][1:3] != (1, 1) for name in saliency.convolutional(model))
    with pytest.raises(ValueError, match="layer must be one of"):
        saliency.grad_cam(model, RNG.random((1, 32, 32, 3), np.float32), 0, "conv_pw_13_relu")


def test_a_layer_that_is_used_twice_is_explained_where_it_is_used_last():
    image = keras.Input((6, 6, 2))
    conv = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")
    once = keras.layers.Activation("linear", name="once")(conv(image))
    twice = keras.layers.Activation("linear", name="twice")(conv(once))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(twice)))
    x = RNG.random((3, 6, 6, 2), np.float32)
    last, first, found = (saliency.grad_cam(model, x, 1, name) for name in ("twice", "once", "conv"))
    np.testing.assert_allclose(found, last, atol=1e-6)
    assert not np.allclose(found, first, atol=1e-3)


def test_a_layer_without_a_gradient_is_refused():
    image = keras.Input((6, 6, 2))
    z = keras.layers.Lambda(tf.stop_gradient)(keras.layers.Conv2D(2, 3, name="conv")(image))
    z = keras.layers.Concatenate()([keras.layers.Flatten()(z), keras.layers.Flatten()(image)])
    with pytest.raises(ValueError, match="no gradient passes from the logits to layer conv"):
        saliency.grad_cam(keras.Model(image, keras.layers.Dense(4)(z)), RNG.random((1, 6, 6, 2), np.float32),
                          0, "conv")


def test_measures_refuse_what_is_no_pair_of_maps():
    maps = RNG.random((3, 9, 9))
    hole = maps.copy()
    hole[1, 2, 3] = np.nan
    for measure in (saliency.spearman, saliency.ssim, saliency.overlap, saliency.centroid_shift,
                    saliency.jensen_shannon):
        for other, words in ((maps[:1], "of one shape"), (hole, "1 of 243 "
                                                                "values are not"),
                             (maps[:, :0], "N >= 1, got")):
            with pytest.raises(ValueError, match=words):
                measure(maps, other)
    for measure in (saliency.ssim, saliency.centroid_shift, saliency.jensen_shannon):
        with pytest.raises(ValueError, match="maps must be >= 0, got -"):
            measure(maps, -maps)
    with pytest.raises(ValueError, match="at least 7 pixels"):
        saliency.ssim(maps[:, :6], maps[:, :6])
    with pytest.raises(ValueError, match="of one shape"):
        saliency.energy_share(np.ones((1, 9, 9, 1)), maps)
    assert np.isnan(saliency.alignment(np.full((1, 3, 3, 3), 0.1), RNG.random((1, 3, 3, 3)))).all()
    np.testing.assert_allclose(saliency.ssim(1e-33 * maps, maps), 1, atol=1e-5)


def test_alignment_and_edges():
    rng = np.random.default_rng(0)
    x = rng.random((3, 8, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(saliency.alignment(x, 0.5 - 3 * x), 1, atol=1e-6)
    assert np.isnan(saliency.alignment(x, np.ones_like(x))).all()
    step = np.zeros((1, 8, 8, 1), np.float32)
    step[:, :, 4:] = 1
    found = saliency.edges(step)[0]
    assert np.all(found[:, 3:5] == 4) and np.all(found[:, [0, 1, 2, 5, 6, 7]] == 0)  # Sobel's weights 1, 2, 1
