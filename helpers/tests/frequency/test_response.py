"""The transfer function, recomputed independently: linear models, blurs, rescaling, small and large waves."""
import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import datasets, frequency, jpeg
from helpers.attacks import gradients

RNG = np.random.default_rng(0)


def _linear(size, channels, classes=3, seed=0):
    """Return (model, weights, bias): logits of a random linear model of small images."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, (size, size, channels, classes)).astype(np.float32)
    bias = rng.normal(0, 1, classes).astype(np.float32)
    return (lambda x: tf.tensordot(x, tf.constant(weights), 3) + bias), weights, bias


def _images(n, size, channels, low=0.3, high=0.7, seed=1):
    return np.random.default_rng(seed).uniform(low, high, (n, size, size, channels)).astype(np.float32)


def _slow_dft(plane):
    """The unitary transform by its definition, no FFT."""
    size = len(plane)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size)) / size)
    return wave @ plane @ wave / size


@pytest.mark.parametrize("size, u, v, phase", [(28, 3, -5, 0.4), (32, 16, 16, 0), (9, 4, 0, 1), (8, 0, 0, 0)])
def test_a_wave_has_unit_norm_and_its_frequency(size, u, v, phase):
    wave = frequency.fourier_basis(size, u, v, phase)
    assert wave.shape == (size, size)
    np.testing.assert_allclose(np.square(wave).sum(), 1)
    power = np.square(np.abs(np.fft.fft2(wave, norm="ortho")))
    np.testing.assert_allclose(power[u % size, v % size] + power[-u % size, -v % size],
                               1 if (2 * u % size, 2 * v % size) != (0, 0) else 2)
    if (2 * u % size, 2 * v % size) != (0, 0):
        np.testing.assert_allclose(np.angle(np.fft.fft2(wave)[u % size, v % size]), phase, atol=1e-6)


@pytest.mark.parametrize("size", [7, 8, 28, 32])
def test_the_half_plane_holds_one_of_each_pair(size):
    half = frequency.half_plane(size)
    seen = np.zeros((size, size), int)
    for u, v in half:
        seen[u % size, v % size] += 1
        if (2 * u % size, 2 * v % size) != (0, 0):
            seen[-u % size, -v % size] += 1
    assert seen[0, 0] == 0 and (np.delete(seen.ravel(), 0) == 1).all()
    plane = frequency.whole_plane(half[:, 0] + 1j * half[:, 1], half, size, conjugate=True)
    assert plane.shape == (size, size) and np.isnan(plane[size // 2, size // 2])
    assert np.isnan(plane).sum() == 1


@pytest.mark.parametrize("size, channels", [(28, 1), (8, 3)])
def test_parseval_and_the_linear_model_s_own_spectrum(size, channels):
    model, weights, bias = _linear(size, channels)
    x = _images(4, size, channels)
    logits = np.tensordot(x, weights, 3) + bias
    y = logits.argmax(axis=1)
    response = frequency.gain(model, x, y)
    rival = np.where(np.arange(3) == y[:, None], -np.inf, logits).argmax(axis=1)
    for i in range(4):
        slope = weights[..., y[i]] - weights[..., rival[i]]
        np.testing.assert_allclose(np.square(np.abs(response.G[i])).sum(), np.square(slope).sum(), rtol=1e-5)
        luminance = slope.sum(axis=2) / np.sqrt(channels)
        np.testing.assert_allclose(response.G[i, 0], _slow_dft(luminance), atol=1e-4)
        np.testing.assert_allclose(response.X[i, 0], _slow_dft(x[i].sum(axis=2) / np.sqrt(channels)),
                                   atol=1e-4)
    np.testing.assert_allclose(response.margin,
                               np.sort(logits, axis=1)[:, -1] - np.sort(logits, axis=1)[:, -2],
                               rtol=1e-4)


def test_the_derivative_along_any_wave():
    model, weights, _ = _linear(8, 1, classes=2)
    x, y = _images(1, 8, 1), np.array([0])
    G = frequency.gain(model, x, y).G[0, 0]
    slope = (weights[..., 0] - weights[..., 1])[..., 0]
    for u, v, phase in [(1, 2, 0.3), (-3, 1, 2.0), (4, 4, 0.0), (0, 4, 0.5), (4, 1, 1.0)]:
        k = (u % 8, v % 8)
        own = (2 * u % 8, 2 * v % 8) == (0, 0)
        expected = np.abs(G[k]) * (np.sign(np.cos(phase)) * np.cos(np.angle(G[k])) if own
                                   else np.sqrt(2) * np.cos(phase - np.angle(G[k])))
        np.testing.assert_allclose((slope * frequency.fourier_basis(8, u, v, phase)).sum(), expected,
                                   atol=1e-5)


def test_a_blur_in_front_adds_its_own_decibels():
    model, *_ = _linear(16, 1)
    kernel = np.zeros((16, 16))
    kernel[:2, :3] = RNG.uniform(0, 1, (2, 3))
    kernel /= kernel.sum()
    spectrum = tf.constant(np.fft.fft2(kernel), tf.complex64)

    def blurred(x):  # circular
        return tf.math.real(
            tf.signal.ifft2d(tf.signal.fft2d(tf.cast(x[..., 0], tf.complex64)) * spectrum))[..., None]
    x = _images(3, 16, 1)
    y = gradients.logits(model, blurred(x).numpy()).argmax(axis=1)
    alone = frequency.gain(model, blurred(x).numpy(), y).G
    behind = frequency.gain(lambda x: model(blurred(x)), x, y).G
    own = 20 * np.log10(np.abs(np.fft.fft2(kernel)))
    np.testing.assert_allclose(frequency.decibels(behind) - frequency.decibels(alone), own[None], atol=1e-3)


def test_the_normalised_gain_does_not_change_with_the_scale_of_the_logits(lenet):
    data = datasets.load("mnist")
    x, y = data.x_test[:32], data.y_test[:32]
    plain = frequency.gain(lenet, x, y)
    scaled = frequency.gain(lambda images: 7.5 * gradients.call(lenet, images), x, y)
    np.testing.assert_allclose(frequency.normalised(scaled), frequency.normalised(plain), atol=1e-5)
    np.testing.assert_allclose(frequency.decibels(scaled.G) - frequency.decibels(plain.G),
                               20 * np.log10(7.5), atol=1e-3)
    np.testing.assert_allclose(np.square(np.abs(plain.G)).sum(axis=(1, 2, 3)),
                               _gradient_energy(lenet, x, y), rtol=1e-4)


def _gradient_energy(model, x, y):
    """||grad F||² by TensorFlow's own tape, F by sorting."""
    with tf.GradientTape() as tape:
        images = tf.constant(x)
        tape.watch(images)
        z = model(images)
        own = tf.gather(z, y, axis=1, batch_dims=1)
        rival = tf.reduce_max(z - 1e9 * tf.one_hot(y, z.shape[1]), axis=1)
        F = own - rival
    return np.square(tape.gradient(F, images).numpy()).sum(axis=(1, 2, 3))


def test_the_relative_phase_of_a_shift():
    """A model whose gradient is each image moved by d: its phase against the image is -2π k·d."""
    d = (1, 2)

    def model(x):
        moved = tf.stop_gradient(tf.roll(x, d, axis=(1, 2)))
        F = tf.reduce_sum(x * moved, axis=(1, 2, 3))
        return tf.stack([F, tf.zeros_like(F)], axis=1)
    x = _images(20, 8, 1)
    phase, resultant = frequency.relative_phase(frequency.gain(model, x, np.zeros(20, int)))
    np.testing.assert_allclose(resultant, 1, atol=1e-4)
    u, v = np.meshgrid(np.fft.fftfreq(8), np.fft.fftfreq(8), indexing="ij")
    expected = -2 * np.pi * (u * d[0] + v * d[1])
    np.testing.assert_allclose(np.exp(1j * phase), np.exp(1j * expected), atol=1e-3)
    noise = frequency.Gain(np.exp(2j * np.pi * RNG.random((400, 1, 8, 8))), np.ones((400, 1, 8, 8)),
                           np.ones(400), None)
    assert np.mean(frequency.relative_phase(noise)[1] > np.sqrt(3 / 400)) < 0.15  # 5 % of them, by chance


@pytest.mark.parametrize("channels, plane", [(1, 0), (3, 0), (3, 1), (3, 2)])
def test_the_describing_function_is_the_gain_of_a_linear_model(channels, plane):
    model, *_ = _linear(8, channels, classes=2)
    x, y = _images(3, 8, channels), np.array([0, 1, 0])
    half = frequency.half_plane(8)
    found = frequency.describing_function(model, x, y, amplitudes=[0.01, 0.2], plane=plane)
    G = frequency.gain(model, x, y).G[:, plane]
    for a in range(2):
        np.testing.assert_allclose(found.gain[:, a], np.sqrt(2) * G[:, half[:, 0] % 8, half[:, 1] % 8],
                                   atol=2e-2)
    assert np.abs(found.bias).max() < 1e-4
    assert np.nanmax(found.distortion[:, 1]) < 1e-1
    assert np.isnan(found.distortion).sum() == 2 * 3 * 3  # the three frequencies with a sign only


def test_small_waves_see_the_gradient_and_half_of_it_at_the_border_of_the_box(lenet):
    """Of images with a little noise: on flat ones max pooling has ties, and no derivative."""
    data = datasets.load("mnist")
    half, y = frequency.half_plane(28)[::7], data.y_test[:8]
    u, v = half[:, 0] % 28, half[:, 1] % 28
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (8, 28, 28, 1))
    inside, clipped = 0.25 + 0.5 * data.x_test[:8] + noise, np.clip(data.x_test[:8] + noise, 0, 1)
    for x in (inside.astype(np.float32), clipped.astype(np.float32)):
        response = frequency.gain(lenet, x, y)
        expected = frequency.one_sided(response, x)[:, 0][:, u, v]
        errors = []
        for amplitude in (0.1, 0.003):
            found = frequency.describing_function(lenet, x, y, amplitudes=[amplitude], frequencies=half,
                                                  phases=16)
            error = np.square(np.abs(found.gain[:, 0] - expected)).mean() / np.square(np.abs(expected)).mean()
            errors.append(np.sqrt(error))
        assert errors[1] < 0.03 and errors[1] < errors[0] / 3, errors
        G = np.sqrt(2) * response.G[:, 0][:, u, v]
        assert np.allclose(expected, G, atol=1e-5) == (x.min() > 0)  # of pixels at 0 the half is missing


def test_respond_adds_the_very_wave_and_clips():
    model, *_ = _linear(8, 3, classes=2)
    x, y = _images(2, 8, 3, low=0, high=1), np.array([0, 1])
    waves = np.array([(1, 2), (4, 0), (3, -1)])
    margins = frequency.respond(model, x, y, amplitudes=[0.5, 3], frequencies=waves, phases=10, plane=2)
    assert margins.shape == (2, 2, 3, 10)
    direction = np.array([1, 1, -2]) / np.sqrt(6)
    for a, k, m in [(0, 0, 0), (1, 0, 3), (1, 2, 9), (0, 1, 7), (1, 1, 2)]:
        own = tuple(waves[k]) == (4, 0)
        phase = (0 if m < 5 else np.pi) if own else 2 * np.pi * m / 10
        wave = frequency.fourier_basis(8, *waves[k], phase)
        x_adv = np.clip(x + (0.5, 3)[a] * wave[..., None] * direction, 0, 1).astype(np.float32)
        z = gradients.logits(model, x_adv)
        np.testing.assert_allclose(margins[:, a, k, m], np.where(y == 0, 1, -1) * (z[:, 0] - z[:, 1]),
                                   atol=2e-4)


def test_harmonics_and_bias_of_a_square():
    """F = 1 + s + s², s the image's component on a wave: bias A²/2, harmonic over fundamental A/2."""
    wave = tf.constant(frequency.fourier_basis(8, 1, 2)[..., None], tf.float32)

    def model(x):
        s = tf.reduce_sum((x - 0.5) * wave, axis=(1, 2, 3))
        return tf.stack([1 + s + s**2, tf.zeros_like(s)], axis=1) + 3
    x = np.full((1, 8, 8, 1), 0.5, np.float32)
    found = frequency.describing_function(model, x, np.array([0]), amplitudes=[0.5],
                                          frequencies=[(1, 2), (2, 1)])
    np.testing.assert_allclose(found.gain[0, 0], [1, 0], atol=1e-4)
    np.testing.assert_allclose(found.bias[0, 0], [0.5**2 / 2, 0], atol=1e-4)
    np.testing.assert_allclose(found.distortion[0, 0, 0], 0.5 / 2, rtol=1e-2)


def test_error_maps_count_phases(lenet):
    data = datasets.load("mnist")
    x, y = data.x_test[:6], data.y_test[:6]
    ask = {"amplitudes": [1.0, 6.0], "frequencies": [(1, 1), (2, 0), (3, 3), (2, -3), (9, 9)]}
    mean, worst = frequency.error_map(lenet, x, y, **ask)
    margins = frequency.respond(lenet, x, y, **ask)
    np.testing.assert_array_equal(mean, (margins <= 0).mean(axis=-1))
    np.testing.assert_array_equal(worst > 0, margins.min(axis=-1) <= 0)
    assert (worst >= mean).all() and worst[:, 1].mean() > worst[:, 0].mean()


def test_the_minimal_norm_of_a_linear_model_is_margin_over_gain():
    model, *_ = _linear(8, 1)
    x = _images(4, 8, 1, low=0.45, high=0.55)
    y = gradients.logits(model, x).argmax(axis=1)
    two = _linear(8, 1, classes=2)[0]
    for model, y in ((model, y), (two, gradients.logits(two, x).argmax(axis=1))):
        half = frequency.half_plane(8)
        found = frequency.minimal_norm_at(model, x, y, high=3.0, phases=32, halvings=12)
        response = frequency.gain(model, x, y)
        unrestricted = response.margin / np.sqrt(np.square(np.abs(response.G)).sum(axis=(1, 2, 3)))
        assert (found >= 0.999 * unrestricted[:, None]).all()
        if model is two:
            own = (2 * half % 8 == 0).all(axis=1)
            G = np.abs(response.G[:, 0][:, half[:, 0] % 8, half[:, 1] % 8])
            exact = response.margin[:, None] / np.where(own, 1, np.sqrt(2)) / G
            inside = exact < 2.0  # there no pixel is clipped
            assert inside.sum() > 20
            np.testing.assert_allclose(found[inside], exact[inside], rtol=1 / np.cos(np.pi / 32) - 1 + 1e-3)


def test_the_minimal_norm_is_zero_of_errors_and_infinite_beyond_the_range(lenet):
    data = datasets.load("mnist")
    x, y = data.x_test[:2], data.y_test[:2].copy()
    y[1] = (y[1] + 1) % 10
    found = frequency.minimal_norm_at(lenet, x, y, high=0.01, frequencies=[(1, 1), (2, 3)])
    assert np.isinf(found[0]).all() and (found[1] == 0).all()
    found = frequency.minimal_norm_at(lenet, x[:1], y[:1], high=20.0, frequencies=[(3, 3)])
    margins = frequency.respond(lenet, x[:1], y[:1], amplitudes=found[0], frequencies=[(3, 3)])
    assert margins.min() <= 0


def test_profiles_are_means_over_rings():
    values = RNG.random((2, 12, 12))
    radius, profile = frequency.radial_profile(values, bins=6)
    assert profile.shape == (2, len(radius)) and (np.diff(radius) > 0).all()
    every = frequency.radial_frequency(12, 12)
    edges = np.geomspace(0.999 / 12, 1.001 * np.sqrt(0.5), 7)
    ring = (every >= edges[2]) & (every < edges[3])
    np.testing.assert_allclose(profile[:, 2], values[:, ring].mean(axis=1))
    flat = frequency.radial_profile(np.ones((8, 8)))[1]
    np.testing.assert_allclose(flat, 1)
    with_mean = np.zeros((8, 8))
    with_mean[0, 0] = 100
    assert frequency.radial_profile(with_mean)[1].max() == 0


def test_decibels():
    np.testing.assert_allclose(frequency.decibels(np.array([[1, 10j], [1, 10]])), [0, 20])
    np.testing.assert_allclose(frequency.decibels(np.array([0.1, 1, 0]), axis=None), [-20, 0, -np.inf])


def test_the_gain_of_a_stage_is_that_of_its_derivative():
    """Of a dense layer h = W x the derivative is W: ||W e_k|| / ||h||, exactly."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(name="flat"),
                              keras.layers.Dense(5, use_bias=False, name="dense"),
                              keras.layers.Dense(3, name="logits")])
    x = _images(2, 8, 1)
    W = model.get_layer("dense").kernel.numpy()
    found = frequency.stage_gain(model, x, "dense", draws=400)
    for u, v in [(0, 0), (1, 2), (4, 4)]:
        wave = np.exp(2j * np.pi * np.add.outer(u * np.arange(8), v * np.arange(8)) / 8).ravel() / 8
        for i in range(2):
            expected = np.linalg.norm(wave @ W) / np.linalg.norm(x[i].ravel() @ W)
            np.testing.assert_allclose(found[i, 0, u, v], expected, rtol=0.2)
    with pytest.raises(ValueError, match="layer must be one of .*flat, dense"):
        frequency.stage_gain(model, x, "nowhere")


def test_a_codec_without_quantisation_is_its_own_transfer_function():
    half = frequency.half_plane(16)[::7]
    plain = frequency.harmonics_of(np.ones((8, 8)), half, 16)
    np.testing.assert_allclose(plain[:, 0, 0], 1, atol=1e-9)
    assert np.abs(plain).sum(axis=(1, 2)).max() < 1 + 1e-6
    gains = RNG.random((8, 8))
    found = frequency.harmonics_of(gains, half, 16)
    row, column = np.mgrid[:16, :16]
    for k, (u, v) in enumerate(half):  # the blocks of a complex wave, filtered one by one
        wave = np.exp(2j * np.pi * (u * row + v * column) / 16)
        out = sum(jpeg.filtered(part[None, ..., None].astype(np.float32),
                                [gains.astype(np.float32)])[0, ..., 0] * unit
                  for part, unit in ((wave.real, 1), (wave.imag, 1j)))
        at = np.fft.fft2(out) / 256
        for i, j in [(0, 0), (1, 0), (3, 5), (7, 7)]:
            np.testing.assert_allclose(at[(u + 2 * i) % 16, (v + 2 * j) % 16], found[k, i, j], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_harmonic_matrix_of_a_fine_codec_is_the_identity(channels):
    x = _images(4, 16, channels)
    found = frequency.harmonic_matrix(x, 100, amplitude=1.0, frequencies=[(1, 2), (5, 3), (7, 7)])
    np.testing.assert_allclose(found["matrix"][:, 0, 0], 1, atol=0.05)
    found["matrix"][:, 0, 0] = 0
    assert np.abs(found["matrix"]).max() < 0.05
    np.testing.assert_allclose(found["energy"], 1, atol=0.1)
    coarse = frequency.harmonic_matrix(x, 5, amplitude=1.0, frequencies=[(7, 7)])
    assert np.abs(coarse["matrix"][0, 0, 0]) < 0.5


def test_the_energy_is_all_that_comes_out():
    """Coherent energy never exceeds it; and by hand for one image, one wave and one phase more or less."""
    x = _images(3, 16, 1)
    found = frequency.harmonic_matrix(x, 30, amplitude=0.8, frequencies=[(2, 5)], phases=8)
    assert np.square(np.abs(found["matrix"])).sum() <= found["energy"][0] + 1e-9
    total = 0
    for m in range(8):
        wave = frequency.fourier_basis(16, 2, 5, 2 * np.pi * m / 8)
        x_adv = np.clip(x + 0.8 * wave[..., None], 0, 1).astype(np.float32)
        total += np.square(jpeg.compress(x_adv, 30) - jpeg.compress(x, 30)).sum() / 8 / 3 / 0.8**2
    np.testing.assert_allclose(found["energy"][0], total, rtol=1e-4)


MODEL = _linear(8, 1)[0]


@pytest.mark.parametrize("more, message", [
    ({"amplitudes": [0.0]}, r"amplitudes must be finite and positive, got \[0.0\]"),
    ({"amplitudes": [np.nan]}, "amplitudes must be finite and positive"),
    ({"amplitudes": []}, "amplitudes must be finite and positive"),
    ({"amplitudes": [-1, 2]}, "amplitudes must be finite and positive"),
    ({"frequencies": [(5, 0)]}, r"within Nyquist's, 4 cycles per image of 8 pixels, got \[5, 0\]"),
    ({"frequencies": [(0, 0)]}, "must not be zero"),
    ({"frequencies": [(1.5, 0)]}, "must be integers"),
    ({"frequencies": [1, 2]}, r"must have shape \(K, 2\)"),
    ({"phases": 4}, "phases must be an even integer >= 8, got 4"),
    ({"phases": 9}, "phases must be an even integer >= 8, got 9"),
    ({"plane": 1}, r"plane must be in 0..0, of luminance, got 1")])
def test_what_does_not_fit_is_refused(more, message):
    x, y = _images(2, 8, 1), np.array([0, 1])
    for function in (frequency.respond, frequency.describing_function, frequency.error_map):
        with pytest.raises(ValueError, match=message):
            function(MODEL, x, y, **({"amplitudes": [1.0]} | more))
    if "amplitudes" not in more:
        with pytest.raises(ValueError, match=message):
            frequency.minimal_norm_at(MODEL, x, y, high=1.0, **more)


def test_other_bad_input():
    x, y = _images(2, 8, 1), np.array([0, 1])
    with pytest.raises(ValueError, match="images must be square, got 8 by 6"):
        frequency.respond(lambda x: MODEL(tf.pad(x, ((0, 0), (0, 0), (0, 2), (0, 0)))), x[:, :, :6], y,
                          amplitudes=[1])
    with pytest.raises(ValueError, match="at most 4, Nyquist's of 8 pixels, got 5 and 0"):
        frequency.fourier_basis(8, 5, 0)
    with pytest.raises(ValueError, match="is zero on 8 pixels"):
        frequency.fourier_basis(8, 4, 0, np.pi / 2)
    with pytest.raises(ValueError, match="multiple of 8 pixels, got 28 by 28"):
        frequency.harmonic_matrix(_images(1, 28, 1), 50, amplitude=1, frequencies=[(1, 1)])
    with pytest.raises(ValueError, match="amplitude must be finite and positive, got 0"):
        frequency.harmonic_matrix(x, 50, amplitude=0, frequencies=[(1, 1)])
    with pytest.raises(ValueError, match="quality must be"):
        frequency.harmonic_matrix(x, 0, amplitude=1, frequencies=[(1, 1)])
    with pytest.raises(ValueError, match="no image is classified right"):
        frequency.normalised(frequency.Gain(np.ones((1, 1, 8, 8)), np.ones((1, 1, 8, 8)), np.array([-1.0]),
                                            None))
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        frequency.minimal_norm_at(MODEL, x, y, high=1.0, steps=0)
