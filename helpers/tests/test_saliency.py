"""Saliency: Grad-CAM by hand in NumPy, completeness, linear models, and measures on known maps."""
import keras
import numpy as np
import pytest
from scipy.spatial import distance
from scipy.stats import spearmanr

from helpers import datasets, gradients, saliency, training

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
    maps = np.maximum(bias + sum(padded[:, i:i + 6, j:j + 6] @ kernel[i, j] for i in range(3) for j in range(3)), 0)
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


@pytest.mark.parametrize("key, layer, side", [(("mnist", "lenet"), "c3", 10), (("cifar10", "resnet"), "stage3_block3_relu", 8)])
def test_default_layers_and_sizes(key, layer, side):
    model, _ = training.load_or_train(training.RECIPES[key])
    data = datasets.load(key[0])
    assert saliency.default_layer(model) == layer and model.get_layer(layer).output.shape[1] == side
    maps = saliency.grad_cam(model, data.x_test[:3], data.y_test[:3])
    assert maps.shape == data.x_test[:3].shape[:3] and (maps >= 0).all() and maps.max() > 0
    for name in saliency.convolutional(model)[:3]:
        assert np.isfinite(saliency.grad_cam(model, data.x_test[:2], 0, name)).all()


def test_nothing_gives_zeros():
    model = _tiny()
    model.get_layer("logits").kernel.assign(np.zeros((27, 4)))
    maps = saliency.grad_cam(model, RNG.random((2, 6, 6, 2), np.float32), 0)
    assert maps.shape == (2, 6, 6) and (maps == 0).all()


def test_a_linear_model_s_gradient():
    weights = RNG.normal(0, 1, (8, 3)).astype(np.float32)
    inputs = keras.Input((2, 2, 2))
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, name="logits")(keras.layers.Flatten()(inputs)))
    model.get_layer("logits").kernel.assign(weights)
    x = RNG.random((4, 2, 2, 2), np.float32)
    for c in range(3):
        exact = weights[:, c].reshape(2, 2, 2)
        np.testing.assert_allclose(saliency.input_gradient(model, x, c), np.broadcast_to(exact, x.shape), atol=1e-6)
        np.testing.assert_allclose(saliency.integrated_gradients(model, x, c, steps=2), x * exact, atol=1e-5)
        np.testing.assert_allclose(saliency.smooth_grad(model, x, c, draws=2), np.broadcast_to(exact, x.shape), atol=1e-6)
    np.testing.assert_allclose(saliency.magnitude(exact[None]), np.linalg.norm(exact, axis=2)[None], atol=1e-6)


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
    np.testing.assert_allclose(saliency.smooth_grad(lenet, x, y, sigma=0, draws=3), saliency.input_gradient(lenet, x, y),
                               atol=1e-5)
    one, two = (saliency.smooth_grad(lenet, x, y, draws=4, seed=s) for s in (0, 1))
    assert not np.allclose(one, two) and np.array_equal(one, saliency.smooth_grad(lenet, x, y, draws=4, seed=0))


def test_the_cascade_changes_the_last_layers_only(lenet):
    x = datasets.load("mnist").x_test[:4]
    np.testing.assert_allclose(gradients.logits(saliency.randomised(lenet, 0), x), gradients.logits(lenet, x), atol=1e-4)
    copy = saliency.randomised(lenet, 2, seed=3)
    for part in lenet.layers:
        same = all(np.array_equal(a, b) for a, b in zip(part.get_weights(), copy.get_layer(part.name).get_weights()))
        assert same == (part.name not in ("logits", "f6"))
    with pytest.raises(ValueError, match="count must be at most 5, the layers with weights, got 6"):
        saliency.randomised(lenet, 6)


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
    np.testing.assert_allclose(saliency.energy_share(np.ones((2, 4, 4, 1)), RNG.random((2, 4, 4)), 0.25), 0.25)
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
    for function in (saliency.grad_cam, saliency.input_gradient, saliency.integrated_gradients, saliency.smooth_grad):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.3, got 4"):
            function(model, x, 4)
        with pytest.raises(ValueError, match="a Keras model is needed"):
            function(lambda x: x, x, 0)
    for layer in ("nowhere", "logits"):
        with pytest.raises(ValueError, match=f"layer must be one of the convolutional first, pool, got '{layer}'"):
            saliency.grad_cam(model, x, 0, layer)
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        saliency.integrated_gradients(model, x, 0, steps=0)
    with pytest.raises(ValueError, match=r"baseline must be in \[0, 1\], got 2"):
        saliency.integrated_gradients(model, x, 0, baseline=2)
    with pytest.raises(ValueError, match="sigma must be finite and >= 0, got -1"):
        saliency.smooth_grad(model, x, 0, sigma=-1)
    dense = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="no convolutional layer"):
        saliency.grad_cam(dense, x, 0)


def test_alignment_and_edges():
    rng = np.random.default_rng(0)
    x = rng.random((3, 8, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(saliency.alignment(x, 0.5 - 3 * x), 1, atol=1e-6)
    assert np.isnan(saliency.alignment(x, np.ones_like(x))).all()
    step = np.zeros((1, 8, 8, 1), np.float32)
    step[:, :, 4:] = 1
    found = saliency.edges(step)[0]
    assert np.all(found[:, 3:5] == 4) and np.all(found[:, [0, 1, 2, 5, 6, 7]] == 0)  # Sobel's weights 1, 2, 1
