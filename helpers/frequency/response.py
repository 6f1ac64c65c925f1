"""The transfer function of a classifier: how its margin answers to sinusoids added to the image.

F is the margin; the basis is that of fourier.py. The wave of frequency k = (u, v), of phase θ and unit
norm, over P pixels,

    φ(p) = √(2/P) cos(2π k·p/size + θ),

moves the margin, where the gradient's transform is G, by √2 |G(k)| cos(θ - arg G(k)) for each unit of
its amplitude. Where k and -k are the same frequency, cos is ±1, √2 goes from both, and θ is 0 or π.
"""
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from helpers import attacks
from helpers.attacks import gradients, layers
from helpers.frequency.fourier import checked_frequencies, checked_plane, half_plane, ring_of, transform

PHASES = 8  # the fewest that tell the fundamental from the harmonics up to the fourth


class Gain(NamedTuple):
    """The small-signal response of N images; complex arrays are (N, planes, H, W), in np.fft's order."""
    G: np.ndarray       # the unitary transform of the margin's gradient
    X: np.ndarray       # that of the image
    margin: np.ndarray  # F, (N,)
    slope: np.ndarray   # the margin's gradient, (N, H, W, C)


class Describing(NamedTuple):
    """The response of N images to waves of A amplitudes and K frequencies, each (N, A, K)."""
    gain: np.ndarray        # complex: the fundamental a unit of amplitude; √2 G for small ones
    bias: np.ndarray        # the mean over the phases of what the margin changes by
    distortion: np.ndarray  # the energy of the harmonics over that of the fundamental, square root


def gain(model, x, y, *, batch_size=128):
    """Return the small-signal response at images x (N, H, W, C) of labels y: a Gain.

    One backward pass an image. G says how the margin's derivative is made of waves:
    Σ |G|² = ||grad F||² (Parseval), over all planes and frequencies.
    """
    x, y = gradients.checked(model, x, y)
    run, slope, margin = gradients.function(model, "margin"), np.empty_like(x), np.empty(len(x), np.float32)
    for rows, images, labels in gradients.batches(batch_size, x, y, description="gain"):
        logits, g = run(images, labels)  # g of -F
        count = rows.stop - rows.start
        slope[rows], margin[rows] = -g.numpy()[:count], gradients.margin(labels, logits).numpy()[:count]
    gradients.check_finite(np.isfinite(margin) & np.isfinite(slope).all(axis=(1, 2, 3)))
    return Gain(transform(slope), transform(x), margin, slope)


def normalised(response):
    """Return G over the mean margin of the images that are right, (N, planes, H, W).

    It does not change when all logits are multiplied by a number. Raises ValueError where none is right.
    """
    right = response.margin > 0
    if not right.any():
        raise ValueError("no image is classified right: there is no margin to divide by")
    return response.G / response.margin[right].mean()


def relative_phase(response, plane=0):
    """Return (phase, resultant): of arg G - arg X over the images, each (H, W), phase in radians.

    Circular mean and resultant length R in [0, 1] (Mardia & Jupp 2000, section 2.2): R = 1, all images
    agree; for phases at random R² N is exponential of mean 1 (Rayleigh), so R is significant at 5 % from
    √(3 / N) on.
    """
    product = response.G[:, plane] * response.X[:, plane].conj()
    size = np.abs(product)
    mean = np.divide(product, size, out=np.zeros_like(product), where=size > 0).mean(axis=0)
    return np.angle(mean), np.abs(mean)


def ring_phase(response, plane=0, bins=10):
    """Return (frequency, phase, resultant, significant), (R,) each: the relative phase in rings.

    The circular mean over the images and over the half plane (u >= 0) of each ring. An image is one
    observation, the mean over its ring; significant: the mean of them differs from 0 at 5 % (χ² of two
    degrees of freedom).
    """
    size = response.X.shape[-1]
    u, v = half_plane(size).T
    product = (response.G[:, plane] * response.X[:, plane].conj())[:, u % size, v % size]
    unit = np.divide(product, np.abs(product), out=np.zeros_like(product), where=product != 0)
    radius = np.hypot(u, v) / size
    ring = ring_of(radius, size, bins)
    rings = [ring == number for number in np.unique(ring)]
    one = np.stack([unit[:, inside].mean(axis=1) for inside in rings], axis=1)  # (N, R)
    mean = one.mean(axis=0)
    along = (one * np.exp(-1j * np.angle(mean))).real
    error = along.std(axis=0, ddof=1) / np.sqrt(len(one))
    return (np.array([radius[inside].mean() for inside in rings]), np.angle(mean), np.abs(mean),
            np.abs(mean) > np.sqrt(5.99) * error)


def respond(model, x, y, *, amplitudes, frequencies=None, phases=PHASES, plane=0, batch_size=512):
    """Return the margins of images x with waves added, clipped to [0, 1]: float32 (N, A, K, phases).

    amplitudes: (A,), positive, the L2 norm of the wave. frequencies: (K, 2) integers in cycles per
    image; None, the half plane. phases: how many, an even number of at least 8, equally spaced from 0.
    plane: of frequency.plane_names, by number. Images must be square. Raises ValueError for what does not
    fit.
    """
    x, y = gradients.checked(model, x, y)
    amplitudes, frequencies = _checked(x, amplitudes, frequencies, phases, plane)
    shape = (len(x), len(amplitudes), len(frequencies), phases)
    image, amplitude, wave, phase = np.indices(shape, np.int32).reshape(4, -1)
    margins = _margins(model, x, y, frequencies, phases, plane, batch_size)
    return margins(image, amplitudes[amplitude], wave, phase).reshape(shape)


def describing_function(model, x, y, *, amplitudes, frequencies=None, phases=PHASES, plane=0, margins=None):
    """Return the response of the margin at images x to waves of finite amplitude: a Describing.

    N(A, k) = 2/(M A) Σ over the M phases of [F(clip(x + A φ)) - F(x)] e^{iθ}, as in the theory of
    non-linear control (Gelb & Vander Velde 1968). Arguments as in `respond`; margins: what that
    returned, not to be computed again. With A -> 0, N tends to √2 G where F has a derivative and no pixel
    is at 0 or 1; a pixel that is there follows half of the wave only, so that its gradient counts half
    (`one_sided`).
    """
    x, y = gradients.checked(model, x, y)
    amplitudes, frequencies = _checked(x, amplitudes, frequencies, phases, plane)
    if margins is None:
        margins = respond(model, x, y, amplitudes=amplitudes, frequencies=frequencies, phases=phases,
                          plane=plane)
    change = margins - gradients.margin(y, gradients.logits(model, x)).numpy()[:, None, None, None]
    _, weights = _waves(frequencies, x.shape[1], phases)
    bias = change.mean(axis=-1)
    first = 2 * np.square(np.abs(np.fft.fft(change, axis=-1)[..., 1] / phases))
    rest = np.maximum(np.square(change - bias[..., None]).mean(axis=-1) - first, 0)
    distortion = np.sqrt(np.divide(rest, first, out=np.full(first.shape, np.nan), where=first > 0))
    distortion[..., _own(frequencies, x.shape[1])] = np.nan  # two phases have no harmonics
    return Describing((change * weights).sum(axis=-1) / amplitudes[:, None], bias, distortion)


def one_sided(response, x):
    """Return √2 G of the gradient as a clipped wave finds it: half of it where a pixel is at 0 or 1.

    response: a Gain at images x (N, H, W, C); the result is (N, planes, H, W). The limit of
    `describing_function` for small amplitudes.
    """
    return np.sqrt(2) * transform(np.where((x > 0) & (x < 1), 1, 0.5) * response.slope)


def error_map(model, x, y, *, amplitudes, frequencies=None, phases=PHASES, plane=0, margins=None):
    """Return (mean, worst), each (N, A, K): how often an image with a wave added is misclassified.

    mean: the share of the phases at which it is; worst: 1.0 where it is at any of them. The mean over the
    images of the first, at one phase, is the Fourier heat map of Yin et al. 2019, arXiv:1906.08988.
    Arguments as in `describing_function`.
    """
    x, y = gradients.checked(model, x, y)
    if margins is None:
        margins = respond(model, x, y, amplitudes=amplitudes, frequencies=frequencies, phases=phases,
                          plane=plane)
    wrong = margins <= 0
    return wrong.mean(axis=-1), wrong.any(axis=-1).astype(float)


def minimal_norm_at(model, x, y, *, high, frequencies=None, phases=PHASES, plane=0, steps=16, halvings=6):
    """Return the smallest amplitude of a wave, at its worst phase, that changes the class: (N, K).

    0 where the image is misclassified; inf where none up to `high` does. First by `steps` amplitudes
    that grow by √2 up to high, then by bisection between the last that failed and the first that did
    not. An upper bound, at least F / (√2 |G|) where the margin is linear: of M phases the worst is
    missed by a factor of at most 1 / cos(π/M). Arguments as in `respond`.
    """
    x, y = gradients.checked(model, x, y)
    (high,), frequencies = _checked(x, [high], frequencies, phases, plane)
    gradients.check_count("steps", steps)
    gradients.check_count("halvings", halvings, smallest=0)
    margins = _margins(model, x, y, frequencies, phases, plane)

    def breaks(pairs, amplitude):
        image, wave = (np.repeat(values, phases) for values in pairs)
        phase = np.tile(np.arange(phases, dtype=np.int32), len(pairs[0]))
        found = margins(image, np.repeat(amplitude, phases), wave, phase)
        return (found <= 0).reshape(-1, phases).any(axis=1)

    found = np.full((len(x), len(frequencies)), np.inf, np.float32)
    below = np.zeros_like(found)
    found[gradients.margin(y, gradients.logits(model, x)).numpy() <= 0] = 0
    for amplitude in np.float32(high) * np.sqrt(np.float32(2)) ** np.arange(1 - steps, 1, dtype=np.float32):
        left = np.nonzero(np.isinf(found))
        if not len(left[0]):
            break
        hit = breaks(left, np.full(len(left[0]), amplitude))
        found[tuple(part[hit] for part in left)] = amplitude
        below[tuple(part[~hit] for part in left)] = amplitude
    pairs = np.nonzero(np.isfinite(found) & (found > 0))
    for _ in range(halvings if len(pairs[0]) else 0):
        middle = (below[pairs] + found[pairs]) / 2
        hit = breaks(pairs, middle)
        found[pairs], below[pairs] = np.where(hit, middle, found[pairs]), np.where(hit, below[pairs], middle)
    return found


def stage_gain(model, x, layer, *, draws=8, seed=0, batch_size=64):
    """Return ||J e_k|| / ||h|| of a layer of a Keras model, (N, planes, H, W): its relative gain.

    h is what the layer gives for an image, J its derivative, e_k the complex wave of unit norm. The mean
    over `draws` random v ~ N(0, 1) of |transform of J^T v|² is ||J e_k||² without bias (Hutchinson 1990).
    layer: its name, "inner/conv3" of one in a model inside; of one that is used more than once, h is that of
    the last use. NaN where h is zero. Raises ValueError, with those that are there, for a layer that is not.
    """
    x = gradients.checked_images(x)
    shape = layers.checked_shape(model, layer, x)
    gradients.check_count("draws", draws)
    gradients.check_count("seed", seed, smallest=0)
    run = gradients.made_once(_projected, model, layer)
    power, size = 0, np.empty(len(x), np.float32)
    for draw in range(draws):
        rng, slope = np.random.default_rng([seed, draw]), np.empty_like(x)
        for rows, images in gradients.batches(batch_size, x, description=layer):
            v = rng.standard_normal((len(images), *shape[1:])).astype(np.float32)
            h, g = run(images, tf.constant(v))
            count = rows.stop - rows.start
            slope[rows] = g.numpy()[:count]
            size[rows] = attacks.l2(h.numpy()[:count])
        fine = np.isfinite(slope).all(axis=(1, 2, 3)) & np.isfinite(size)
        gradients.check_finite(fine, f"layer {layer} or its gradient")
        power = power + np.square(np.abs(transform(slope))) / draws
    size = size[:, None, None, None]
    return np.divide(np.sqrt(power), size, out=np.full_like(power, np.nan), where=size > 0)


def _projected(model, layer):
    return gradients.compile(_projection, model, layer)


def _projection(model, layer, x, v):
    with tf.GradientTape() as tape:
        tape.watch(x)
        h = tf.cast(layers.tapped(model, layer, x)[1], tf.float32)
        value = tf.reduce_sum(h * v, axis=tuple(range(1, h.shape.rank)))
    gradient = tape.gradient(value, x)
    if gradient is None:
        raise ValueError(f"no gradient passes from layer {layer} to the images")
    return h, gradient


def _margins(model, x, y, frequencies, phases, plane, batch_size=512):
    """Return a function of (image, amplitude, wave, phase), four (R,), to the margins (R,)."""
    run, size = gradients.made_once(_waved, model), x.shape[1]
    polar, _ = _waves(frequencies, size, phases)
    basis = checked_plane(plane, x.shape[3])
    told = [tf.constant(x), tf.constant(y), *(tf.constant(part, tf.float32)
                                              for part in (basis, 2 * np.pi * frequencies / size, polar))]

    def margins(image, amplitude, wave, phase):
        found = np.empty(len(image), np.float32)
        parts = image.astype(np.int32), amplitude.astype(np.float32), wave.astype(np.int32), phase
        for rows, *batch in gradients.batches(batch_size, *parts, description="waves"):
            found[rows] = run(*batch, *told).numpy()[:rows.stop - rows.start]
        gradients.check_finite(np.isfinite(found), "logits")
        return found
    return margins


def _waved(model):
    return gradients.compile(_add_waves, model)


def _add_waves(model, image, amplitude, wave, phase, x, y, basis, angle, polar):
    pixels = tf.range(x.shape[1], dtype=tf.float32)
    row, column = tf.split(tf.gather(angle, wave)[:, :, None] * pixels, 2, axis=1)  # (R, 1, size) each
    row = tf.transpose(row, (0, 2, 1))
    cosine, sine = tf.split(tf.gather_nd(polar, tf.stack([wave, phase], axis=1)), 2, axis=1)
    wave = (cosine[..., None] * (tf.cos(row) * tf.cos(column) - tf.sin(row) * tf.sin(column))
            - sine[..., None] * (tf.sin(row) * tf.cos(column) + tf.cos(row) * tf.sin(column)))
    delta = (amplitude[:, None, None] * wave)[..., None] * basis
    x_adv = tf.ensure_shape(tf.clip_by_value(tf.gather(x, image) + delta, 0.0, 1.0), x.shape)
    return gradients.margin(tf.gather(y, image), gradients.call(model, x_adv))


def _waves(frequencies, size, phases):
    """Return (polar, weights): of each wave and phase its factors of cos and -sin, and those of the sum.

    polar: (K, phases, 2), such that the wave has unit norm; weights: complex (K, phases), by which the
    changes of the margin add up to A times the describing function.
    """
    theta = 2 * np.pi * np.arange(phases) / phases
    own = _own(frequencies, size)[:, None]
    sign = np.where(np.arange(phases) < phases / 2, 1, -1)
    polar = np.where(own[..., None], np.stack([sign, 0 * sign], axis=-1) / size,
                     np.sqrt(2) * np.stack([np.cos(theta), np.sin(theta)], axis=-1) / size)
    return polar, np.where(own, np.sqrt(2) * sign, 2 * np.exp(1j * theta)) / phases


def _own(frequencies, size):
    """Return which frequencies (K, 2) are their own opposites, where a wave has no phase but its sign."""
    return (2 * frequencies % size == 0).all(axis=1)


def _checked(x, amplitudes, frequencies, phases, plane):
    """Return (amplitudes, frequencies) as arrays; raise ValueError for what does not fit the images."""
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"images must be square, got {x.shape[1]} by {x.shape[2]}")
    amplitudes = np.atleast_1d(np.asarray(amplitudes, float))
    if not amplitudes.size or amplitudes.ndim != 1 or not (np.isfinite(amplitudes) & (amplitudes > 0)).all():
        raise ValueError(f"amplitudes must be finite and positive, got {amplitudes.tolist()}")
    attacks.checked_eps("amplitudes", float(amplitudes.max()), norm=2, shape=x.shape)
    if isinstance(phases, bool) or not isinstance(phases, (int, np.integer)) or phases < PHASES or phases % 2:
        raise ValueError(f"phases must be an even integer >= {PHASES}, got {phases!r}")
    checked_plane(plane, x.shape[3])
    return amplitudes, checked_frequencies(half_plane(x.shape[1]) if frequencies is None else frequencies,
                                           x.shape[1])
