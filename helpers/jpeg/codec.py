"""JPEG as a defence: the real codec, a differentiable one, and what attackers put in front of a model.

Images are float32 (N, H, W, C) in [0, 1], C = 1 or 3. The real codec is libjpeg-turbo, with 8-bit
rounding before and after. The differentiable one follows it step by step, rounding included (Shin &
Song 2017), so that a gradient passes through.
"""
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import tensorflow as tf

from helpers.attacks import gradients

# How many luma pixels a chroma pixel covers: (rows, columns).
SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
BLOCK = 8

# Annex K of the JPEG standard (ITU-T T.81): luma and chroma, at quality 50 as libjpeg scales them.
LUMA = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]])
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# RGB to YCbCr of JFIF, as rows; the inverse as JFIF prints it.
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5],
                   [0.5, -0.418687589, -0.081312411]], np.float32)
TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]], np.float32)
CENTRE = np.array([0, 128, 128], np.float32)


def compress(x, quality, subsampling="4:2:0"):
    """Return images after JPEG by the real codec, float32 in [0, 1], as x.

    quality: an integer in 1..100, or (N,) of them. subsampling: of the chroma, one of SUBSAMPLINGS.
    Equals Pillow at the same settings bit for bit. Raises ValueError for anything else.
    """
    levels, quality, mode = _checked(x, quality, subsampling)
    result = np.empty(levels.shape, np.uint8)

    def run(rows):
        for i in range(*rows):
            image = levels[i] if levels.shape[3] == 3 else levels[i, ..., 0]
            code = imagecodecs.jpeg8_encode(image, level=quality[i], subsampling=mode)
            result[i] = imagecodecs.jpeg8_decode(code).reshape(levels.shape[1:])
    _in_threads(run, len(levels))
    return result.astype(np.float32) / np.float32(255)


def compressed_size(x, quality, subsampling="4:2:0"):
    """Return how many bytes each image's JPEG file has, int64 (N,), its headers included."""
    levels, quality, mode = _checked(x, quality, subsampling)
    images = levels if levels.shape[3] == 3 else levels[..., 0]
    return np.array([len(imagecodecs.jpeg8_encode(image, level=q, subsampling=mode))
                     for image, q in zip(images, quality)])


def compress_blocks(x, qualities, *, seed, subsampling="4:2:0"):
    """Return images each 8 x 8 block of which is JPEG at a quality drawn at random from `qualities`.

    As SHIELD does (Das et al. 2018): the image is compressed whole at every quality, then assembled.
    """
    versions = np.stack([compress(x, quality, subsampling) for quality in qualities])
    _, n, height, width, _ = versions.shape
    drawn = np.random.default_rng(seed).integers(
        len(versions), size=(n, -(-height // BLOCK), -(-width // BLOCK)))
    drawn = drawn.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)[:, :height, :width, np.newaxis]
    return np.take_along_axis(versions, drawn[np.newaxis], axis=0)[0]


def tables(quality):
    """Return libjpeg's quantisation tables at this quality, int (2, 8, 8): luma and chroma."""
    check_quality(quality)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.stack([LUMA, CHROMA]) * scale + 50) // 100, 1, 255)


def dct_matrix():
    """Return the orthonormal DCT-II of 8 samples, float64 (8, 8): its rows are the basis."""
    k = np.arange(BLOCK)
    basis = np.cos(np.pi * (2 * k + 1) * k[:, np.newaxis] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return basis


def cubic(v):
    """Return v rounded, plus the cube of what was rounded off: its slope is 0 at the integers.

    The differentiable rounding of Shin & Song 2017.
    """
    nearest = tf.stop_gradient(_nearest(v))
    return nearest + (v - nearest) ** 3


def straight(v):
    """Return v rounded, with the gradient of the identity."""
    return v + tf.stop_gradient(_nearest(v) - v)


ROUNDINGS = {"cubic": cubic, "straight": straight}


def compress_differentiable(x, quality, subsampling="4:2:0", *, rounding="cubic"):
    """Return images after JPEG as a float32 tensor, with a gradient.

    x: tensor or array (N, H, W, C) in [0, 1], not checked. quality: an integer in 1..100. rounding:
    of the quantised coefficients, one of ROUNDINGS; pixels are rounded with the identity's gradient.
    With "straight" the values are the real codec's up to the rounding of its integer arithmetic.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    check_subsampling(subsampling)
    luma, chroma = tables(quality).astype(np.float32)
    levels, soft = straight(255 * tf.convert_to_tensor(x, tf.float32)), ROUNDINGS[rounding]
    if levels.shape[3] == 1:
        return _through_blocks(levels[..., 0], luma, soft)[..., tf.newaxis] / 255
    height, width = levels.shape[1:3]
    planes = straight(levels @ TO_YCC.T + CENTRE)
    restored = [_through_blocks(planes[..., 0], luma, soft)]
    for k in (1, 2):
        small = _through_blocks(_floored(*_downsampled(planes[..., k], subsampling)), chroma, soft)
        restored.append(_floored(*_upsampled(small, subsampling, height, width)))
    rgb = straight((tf.stack(restored, axis=3) - CENTRE) @ TO_RGB.T)
    return tf.clip_by_value(rgb, 0, 255) / 255


def coefficients(x, subsampling="4:2:0"):
    """Return the DCT of each plane of images or of differences of images, in levels of 0..255.

    x: (N, H, W, C). A list of arrays (N, rows, columns, 8, 8), float32: luma and, of colour, two of
    chroma. Nothing is rounded; planes are filled up to whole blocks as the codec does.
    """
    check_subsampling(subsampling)
    levels = 255 * tf.convert_to_tensor(x, tf.float32)
    return [_to_blocks(plane).numpy() for plane in _planes(levels, subsampling)]


def steps(x, quality):
    """Return what JPEG makes of one image (H, W, C): a list of planes, each a dict, all float.

    plane (H, W), its values as they are coded, 0..255; dct and coded, (rows, columns, 8, 8): the
    coefficients, and the integers that are kept; table (8, 8). Colour: luma and two of chroma.
    """
    blocks = coefficients(x[np.newaxis])
    basis, planes = dct_matrix(), []
    for values, table, centre in zip(blocks, tables(quality)[[0, 1, 1]], (0, 128, 128)):
        pixels = np.einsum("ui,rcuv,vs->rics", basis, values[0], basis)
        rows, columns = values.shape[1:3]
        coded = values[0].copy()
        coded[..., 0, 0] -= 8 * (128 - centre)
        planes.append({"plane": pixels.reshape(8 * rows, 8 * columns) + centre, "dct": coded,
                       "coded": np.round(coded / table), "table": table})
    return planes


def filtered(difference, gains, subsampling="4:2:0"):
    """Return a difference of images after JPEG as a linear filter: its DCT times the gains.

    difference: (N, H, W, C). gains: one array (8, 8), or (N, rows, columns, 8, 8), a plane. With gains
    of one and "4:4:4", the difference itself.
    """
    check_subsampling(subsampling)
    difference = tf.convert_to_tensor(difference, tf.float32)
    kept = [_from_blocks(_to_blocks(plane) * gain, *plane.shape[1:])
            for plane, gain in zip(_planes(difference, subsampling), gains, strict=True)]
    if len(kept) == 1:
        return kept[0][..., tf.newaxis].numpy()
    large = (_upsampled(small, subsampling, *difference.shape[1:3])[0] for small in kept[1:])
    return (tf.stack([kept[0], *large], axis=3) @ TO_RGB.T).numpy()


def real(x, quality, subsampling="4:2:0"):
    """Return what `compress` returns, as a tensor with the gradient of the identity (BPDA).

    After Athalye, Carlini & Wagner 2018. x: tensor, clipped to [0, 1].
    """
    @tf.custom_gradient
    def codec(x):
        result = tf.numpy_function(
            lambda x: compress(np.clip(x, 0, 1), quality, subsampling), [x], tf.float32)
        return tf.ensure_shape(result, x.shape), lambda upstream: upstream
    return codec(x)


def defended(model, quality, how="differentiable", subsampling="4:2:0"):
    """Return the model behind JPEG, as a callable from images to logits that gradients pass through.

    quality: an integer, or several, whose logits are averaged: the expectation over a defender who
    draws one of them. how: "differentiable" (cubic rounding), "straight" (the same with the identity's
    gradient at the rounding), or "identity": the real codec, with the gradient of the identity.
    """
    through = {"differentiable": compress_differentiable, "identity": real,
               "straight": functools.partial(compress_differentiable, rounding="straight")}
    if how not in through:
        raise ValueError(f"how must be one of {', '.join(through)}, got {how!r}")
    qualities = [quality] if np.ndim(quality) == 0 else list(quality)
    if not qualities:
        raise ValueError("quality must hold at least one quality, got none")
    for value in qualities:
        check_quality(value)
    check_subsampling(subsampling)

    def logits(x):
        return tf.add_n([gradients.call(model, through[how](x, int(value), subsampling))
                         for value in qualities]) / len(qualities)
    return logits


def _nearest(v):
    """Return v rounded to integers, halves away from zero as libjpeg does."""
    return tf.sign(v) * tf.floor(tf.abs(v) + 0.5)


def check_quality(quality):
    """Raise ValueError unless the quality is an integer in 1..100."""
    whole = isinstance(quality, (int, np.integer)) and not isinstance(quality, bool)
    if not (whole and 1 <= quality <= 100):
        raise ValueError(f"quality must be an integer in 1..100, got {quality!r}")


def check_subsampling(subsampling):
    """Raise ValueError unless this is one of SUBSAMPLINGS."""
    if not isinstance(subsampling, str) or subsampling not in SUBSAMPLINGS:
        raise ValueError(f"subsampling must be one of {', '.join(SUBSAMPLINGS)}, got {subsampling!r}")


def _checked(x, quality, subsampling):
    """Return (8-bit levels, a list of one quality an image, subsampling as imagecodecs names it)."""
    check_subsampling(subsampling)
    x = gradients.checked_images(x)
    if x.shape[3] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {x.shape[3]}")
    quality = [quality] * len(x) if np.ndim(quality) == 0 else list(quality)
    if len(quality) != len(x):
        raise ValueError(f"quality must be one, or one for each of {len(x)} images, got {len(quality)}")
    for value in set(quality):
        check_quality(value)
    return np.round(x * 255).astype(np.uint8), list(map(int, quality)), subsampling.replace(":", "")


def _in_threads(run, n):
    """Call run((start, stop)) for parts of range(n), in as many threads as there are processors."""
    workers = os.cpu_count() or 1
    bounds = np.linspace(0, n, min(workers, -(-n // 256)) + 1).astype(int)
    if len(bounds) == 2:
        return run((0, n))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, zip(bounds[:-1], bounds[1:])))


def _planes(x, subsampling):
    """Return the planes of images or differences (N, H, W, C): grey, or luma and two smaller of chroma."""
    if x.shape[3] == 1:
        return [x[..., 0]]
    planes = x @ TO_YCC.T
    return [planes[..., 0], *(_downsampled(planes[..., k], subsampling)[0] for k in (1, 2))]


def _through_blocks(plane, table, soft):
    """Return a plane (N, H, W) of 0..255 after DCT, quantisation and back, its size kept."""
    values = _to_blocks(plane - 128)
    values += tf.stop_gradient(_nearest(8 * values) / 8 - values)  # libjpeg's DCT gives eighths
    values = soft(values / table) * table
    return tf.clip_by_value(straight(_from_blocks(values, *plane.shape[1:]) + 128), 0, 255)


def _to_blocks(plane):
    """Return the DCT of each block of a plane (N, H, W), filled up: (N, rows, columns, 8, 8)."""
    plane = _padded(plane, -plane.shape[1] % BLOCK, -plane.shape[2] % BLOCK)
    rows, columns = plane.shape[1] // BLOCK, plane.shape[2] // BLOCK
    dct = tf.constant(dct_matrix(), tf.float32)
    blocks = tf.reshape(plane, (-1, rows, BLOCK, columns, BLOCK))
    return tf.einsum("ui,nrics,vs->nrcuv", dct, blocks, dct)


def _from_blocks(values, height, width):
    """Return the plane (N, height, width) that has these DCTs."""
    rows, columns = values.shape[1:3]
    dct = tf.constant(dct_matrix(), tf.float32)
    blocks = tf.einsum("ui,nrcuv,vs->nrics", dct, values, dct)
    return tf.reshape(blocks, (-1, rows * BLOCK, columns * BLOCK))[:, :height, :width]


def _downsampled(plane, subsampling):
    """Return the means of the pixels that share a chroma value, and by how much to round them up."""
    down, across = SUBSAMPLINGS[subsampling]
    plane = _padded(plane, -plane.shape[1] % down, -plane.shape[2] % (across * BLOCK))
    height, width = plane.shape[1] // down, plane.shape[2] // across
    mean = tf.reduce_mean(tf.reshape(plane, (-1, height, down, width, across)), axis=(2, 4))
    bias = {1: [0], 2: [0, 1 / 2], 4: [1 / 4, 1 / 2]}[down * across]
    return mean, np.resize(bias, width).astype(np.float32)


def _upsampled(plane, subsampling, height, width):
    """Return the plane interpolated as libjpeg does, and by how much to round it up.

    Each new value is 3/4 of the nearer one and 1/4 of the farther.
    """
    down, across = SUBSAMPLINGS[subsampling]
    plane = plane[:, :-(-height // down), :-(-width // across)]
    for axis, factor in ((1, down), (2, across)):
        if factor == 2:
            plane = _interpolated(plane, axis)
    bias = {1: [0], 2: [1 / 4, 1 / 2], 4: [1 / 2, 7 / 16]}[down * across]
    return plane[:, :height, :width], np.resize(bias, width).astype(np.float32)


def _floored(plane, bias):
    """Return the plane rounded down after the bias is added, with the gradient of the identity."""
    return plane + tf.stop_gradient(tf.floor(plane + bias + 1e-4) - plane)


def _interpolated(plane, axis):
    """Return twice as many samples along an axis, the ends repeated beyond the border."""
    before, after = ([tf.gather(plane, [index], axis=axis) for index in (0, plane.shape[axis] - 1)])
    wide = tf.concat([before, plane, after], axis=axis)
    size = plane.shape[axis]
    left, right = (tf.gather(wide, np.arange(size) + offset, axis=axis) for offset in (0, 2))
    pairs = tf.stack([(3 * plane + left) / 4, (3 * plane + right) / 4], axis=axis + 1)
    shape = [-1, *plane.shape[1:]]
    shape[axis] *= 2
    return tf.reshape(pairs, shape)


def _padded(plane, rows, columns):
    """Return the plane with its last row and column repeated, as the codec fills up its blocks."""
    if columns:
        plane = tf.concat([plane, tf.repeat(plane[:, :, -1:], columns, axis=2)], axis=2)
    if rows:
        plane = tf.concat([plane, tf.repeat(plane[:, -1:], rows, axis=1)], axis=1)
    return plane
