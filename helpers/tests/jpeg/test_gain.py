"""JPEG as a filter: the closed form against sampling, and against the codec."""
import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks, datasets, jpeg
from helpers.attacks import gradients
from helpers.jpeg import gain
from helpers.statistics import intervals


def _images(name, n=150):
    """Images kept away from 0 and 1, so that no pixel is clipped."""
    return (0.25 + 0.5 * datasets.load(name).x_test[:n]).astype(np.float32)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_coefficients_keep_the_energy_and_ones_the_difference(name):
    delta = np.random.default_rng(0).normal(0, 0.01, datasets.load(name).x_test[:5].shape)
    ones = [np.ones((8, 8), np.float32)] * (3 if name == "cifar10" else 1)
    np.testing.assert_allclose(jpeg.filtered(delta, ones, "4:4:4"), delta, atol=1e-5)
    if name == "cifar10":  # whole blocks: the DCT is orthonormal
        luma = jpeg.coefficients(delta)[0]
        plane = 255 * delta @ jpeg.TO_YCC[0]
        np.testing.assert_allclose(np.square(luma).sum(axis=(1, 2, 3, 4)),
                                   np.square(plane).sum(axis=(1, 2)), rtol=1e-4)
    only_mean = [np.zeros((8, 8), np.float32) for _ in ones]
    only_mean[0][0, 0] = 1
    block = jpeg.filtered(delta, only_mean, "4:4:4")[:, :8, :8]
    assert np.ptp(block, axis=(1, 2)).max() < 1e-6


@pytest.mark.parametrize("q, deviation", [(16, 2), (16, 8), (16, 30), (40, 5), (3, 12)])
def test_the_closed_form_is_the_regression_of_the_quantiser(q, deviation):
    rng = np.random.default_rng(0)
    x, d = rng.laplace(0, 20, 400_000), rng.normal(0, deviation, 400_000)
    sampled = np.mean(np.round((x + d) / q) * q * d) / np.mean(d ** 2)
    values = x[:50_000].reshape(-1, 1, 1, 1, 1)
    slope = gain._mean_slope(values, np.full((1, 1, 1, 1), float(deviation)), np.full((1, 1), q))
    np.testing.assert_allclose(slope.item(), sampled, atol=0.03)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("quality", [25, 75])
def test_the_closed_form_is_what_the_codec_does_to_noise(name, quality):
    x = _images(name)
    x_adv = attacks.noise(x, eps=8 / 255, seed=0)
    variance = jpeg.variances(x_adv - x)
    gains, distortions = jpeg.measured_gain(x, x_adv, quality)
    expected = jpeg.predicted_gain(x, variance, quality)
    assert len(gains) == len(expected) == (3 if name == "cifar10" else 1)
    assert intervals.r_squared(gains[0], expected[0]) > 0.97
    assert all((distortion >= 0).all() for distortion in distortions)


def test_at_quality_100_all_passes_and_at_1_hardly_anything():
    x = _images("cifar10", 60)
    x_adv = attacks.noise(x, eps=8 / 255, seed=0)
    variance = jpeg.variances(x_adv - x)
    for quality, low, high in ((100, 0.97, 1.03), (1, -0.01, 0.1)):
        for gains in (jpeg.measured_gain(x, x_adv, quality)[0][0],
                      jpeg.predicted_gain(x, variance, quality)[0]):
            assert low < np.median(gains) < high


def test_r_squared():
    m = np.arange(6.0)
    assert intervals.r_squared(m, m) == 1
    assert intervals.r_squared(m, np.full(6, m.mean())) == 0
    assert intervals.r_squared(m, -m) < 0


def test_the_predicted_margin_is_exact_for_a_linear_model():
    x = _images("cifar10", 10)
    weights = np.random.default_rng(0).normal(0, 0.1, (x[0].size, 2)).astype(np.float32)
    model = lambda x: tf.reshape(x, (-1, len(weights))) @ weights
    y = np.zeros(len(x), int)
    delta = np.random.default_rng(1).normal(0, 0.01, x.shape).astype(np.float32)
    gains = [np.random.default_rng(2).random((8, 8)).astype(np.float32)] * 3
    after = gradients.logits(model, np.clip(jpeg.compress(x, 30), 0, 1))
    moved = jpeg.filtered(delta, gains).reshape(len(x), -1) @ (weights[:, 0] - weights[:, 1])
    np.testing.assert_allclose(jpeg.predicted_margin(model, x, y, delta, gains, 30),
                               after[:, 0] - after[:, 1] + moved, atol=1e-3)
