"""What a network looks at: maps of saliency, and measures between maps.

`model` is what gradients.py calls one, of TensorFlow; for Grad-CAM and the cascade, a Keras model.
class_index, (N,) or one for all, is the class whose logit z_c is explained. A map is (N, H, W), >= 0; maps
that take a sign are (N, H, W, C). Measures raise ValueError for maps that are not finite or of one shape.
"""
from numbers import Real

import keras
import numpy as np
import tensorflow as tf
from scipy.ndimage import correlate1d
from scipy.special import rel_entr
from scipy.stats import rankdata

from helpers.attacks import copies, gradients, layers

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Conv2DTranspose, keras.layers.DepthwiseConv2D,
                keras.layers.SeparableConv2D)
MOVING = tuple(getattr(keras.layers, name) for name in (
    "AveragePooling2D", "Cropping2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "MaxPooling2D",
    "Permute", "Reshape", "Resizing", "UpSampling2D", "ZeroPadding2D"))


def grad_cam(model, x, class_index, layer=None, *, batch_size=128):
    """Return ReLU(Σ_k α_k A_k) of a convolutional layer's maps A, enlarged to the image: (N, H, W).

    model: a Keras model of any kind. α_k is the mean over the pixels of the derivative of the class's logit
    by A_k. layer: the name of one of `convolutional(model)`, "inner/conv3" of one in a model inside; None,
    the last of them that computes. Of a layer that is used more than once, the last use is explained. Where
    nothing speaks for the class the map is zero. Raises ValueError for what does not fit.
    Selvaraju et al. 2019, doi:10.1007/s11263-019-01228-7.
    """
    layers.named(model)  # raises for what is no Keras model
    x, y = _checked(model, x, class_index)
    layer = default_layer(model, x) if layer is None else _known(model, layer, x)
    run = gradients.cached(_cam, model, layer)
    maps = np.concatenate([run(*batch).numpy()[:rows.stop - rows.start] for rows, *batch
                           in gradients.batches(batch_size, x, y, description="Grad-CAM")])
    gradients.check_finite(np.isfinite(maps).all(axis=(1, 2)), f"maps of layer {layer}")
    return tf.image.resize(maps[..., None], x.shape[1:3], method="bilinear").numpy()[..., 0]


def convolutional(model, x=None):
    """Return the names of the layers whose output is maps (N, h, w, channels), from the first convolution on.

    In the order in which they are last called; maps of a single pixel do not count, for they say nowhere.
    x: images, whose size decides that; None, for a model that says what it takes.
    """
    convolve = {name: [part for part in layers.flat(own) if isinstance(part, CONVOLUTIONS)]
                for name, own in layers.named(model).items()}
    for name, found in convolve.items():
        if any(part.data_format == "channels_first" for part in found):
            raise ValueError(f"layer {name} has its channels first, and maps are read with them last")
    begun = set()  # the layers that are called from the first convolution on
    for name, _ in layers.calls(model, x):
        if begun or convolve[name]:
            begun.add(name)
    return [name for name, shape in layers.called(model, x).items()
            if name in begun and len(shape) == 4 and shape[0] == 2 and shape[1] * shape[2] > 1]


def default_layer(model, x=None):
    """Return the last convolutional layer that computes: c3 of LeNet-5, the last block of ResNet-20.

    None that only pools, pads or moves its maps, and no model, but the layers inside. x: as `convolutional`.
    """
    parts = layers.named(model)
    maps = [name for name in convolutional(model, x) if not isinstance(parts[name], (keras.Model, *MOVING))]
    if not maps:
        raise ValueError("the model has no convolutional layer that returns maps (N, h, w, channels) larger "
                         "than 1×1, and Grad-CAM needs one")
    return maps[-1]


def input_gradient(model, x, class_index, *, batch_size=128):
    """Return the derivative of the class's logit by the image, (N, H, W, C). Simonyan et al. 2014."""
    x, y = _checked(model, x, class_index)
    return gradients.slopes(model, x, y, _logit, batch_size)


def integrated_gradients(model, x, class_index, *, baseline=0.0, steps=64, batch_size=128):
    """Return (x - baseline) times the mean gradient on the way from the baseline to x, (N, H, W, C).

    They add up to z_c(x) - z_c(baseline) (completeness), but for the midpoint rule's error with these
    steps. baseline: a grey level in [0, 1]. Sundararajan et al. 2017, arXiv:1703.01365.
    """
    x, y = _checked(model, x, class_index)
    gradients.check_count("steps", steps)
    if not isinstance(baseline, Real) or not 0 <= baseline <= 1:
        raise ValueError(f"baseline must be in [0, 1], got {baseline!r}")
    total = 0
    for t in (np.arange(steps) + 0.5) / steps:
        total = total + input_gradient(model, baseline + np.float32(t) * (x - np.float32(baseline)), y,
                                       batch_size=batch_size)
    return (x - np.float32(baseline)) * total / steps


def smooth_grad(model, x, class_index, *, sigma=0.1, draws=32, seed=0, batch_size=128):
    """Return the mean gradient of the class's logit at `draws` noisy copies of the image, (N, H, W, C).

    sigma: the deviation of the Gaussian noise, in pixel values, at most 1; what it takes out of [0, 1] is clipped.
    Smilkov et al. 2017, arXiv:1706.03825.
    """
    x, y = _checked(model, x, class_index)
    gradients.check_count("draws", draws)
    gradients.check_count("seed", seed, smallest=0)
    if not isinstance(sigma, Real) or isinstance(sigma, bool) or not 0 <= sigma <= 1:
        raise ValueError(f"sigma must be in [0, 1], as pixels are, got {sigma!r}")
    total = 0
    for draw in range(draws):
        noise = np.random.default_rng([seed, draw]).normal(0, sigma, x.shape)
        total = total + input_gradient(model, np.clip(x + noise, 0, 1), y, batch_size=batch_size)
    return total / draws


def magnitude(attribution):
    """Return the L2 norm over the channels of an attribution (N, H, W, C): a map (N, H, W)."""
    _check_maps(attribution, rank=4)
    return np.sqrt(np.square(attribution).sum(axis=3))


def randomised(model, count, seed=0):
    """Return a copy of a network whose last `count` layers with weights have random ones.

    The cascade of Adebayo et al. 2018, arXiv:1810.03292: from the logits downwards, each layer as it is
    before training (copies.py), those of models inside too. With the seed of its recipe, a network of
    models.py gets the weights with which it began. count 0: an equal copy. The normalisation of the images
    stays. Raises ValueError for a model that cannot be copied.
    """
    names = layers.weighted(model)
    gradients.check_count("count", count, smallest=0)
    if count > len(names):
        raise ValueError(f"count must be at most {len(names)}, the layers with weights, got {count}")
    return copies.redrawn(model, names[len(names) - count:], seed)


def count_layers(model):
    """Return how many layers `randomised` can make random."""
    return len(layers.weighted(model))


def spearman(one, two):
    """Return the rank correlation of each pair of maps, (N,); NaN where a map is constant."""
    _check_maps(one, two)
    return _correlation(*(rankdata(part.reshape(len(part), -1), axis=1) for part in (one, two)))


def ssim(one, two):
    """Return the structural similarity of each pair of maps, each brought to a largest value of 1: (N,).

    NaN where one is zero. Wang et al. 2004, doi:10.1109/TIP.2003.819861: windows of 7 pixels.
    """
    _check_maps(one, two, smallest=0)
    if min(one.shape[1:]) < 7:
        raise ValueError("maps must be at least 7 pixels high and wide, got "
                         f"{one.shape[1]} by {one.shape[2]}")
    tops = [part.max(axis=(1, 2)) for part in (one, two)]
    scaled = [(part / np.where(top > 0, top, 1)[:, None, None])[..., None].astype(np.float32)
              for part, top in zip((one, two), tops)]
    found = tf.image.ssim(*map(tf.constant, scaled), max_val=1.0, filter_size=7).numpy()
    return np.where((tops[0] > 0) & (tops[1] > 0), found, np.nan)


def top(maps, share):
    """Return weights (N, H, W) of the top `share` of each map's pixels, which add up to that share of all.

    1 above the threshold, 0 below; pixels that are equal at the threshold share what is left.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share!r}")
    _check_maps(maps)
    flat = maps.reshape(len(maps), -1)
    count = share * flat.shape[1]
    threshold = -np.sort(-flat, axis=1)[:, int(np.ceil(count)) - 1][:, None]
    above, level = flat > threshold, flat == threshold
    left = (count - above.sum(axis=1, keepdims=True)) / level.sum(axis=1, keepdims=True)
    return np.where(above, 1.0, np.where(level, left, 0.0)).reshape(maps.shape)


def overlap(one, two, share=0.1):
    """Return how much of the top `share` of one map is in that of the other, (N,): by chance, `share`."""
    _check_maps(one, two)
    a, b = top(one, share), top(two, share)
    return (a * b).sum(axis=(1, 2)) / a.sum(axis=(1, 2))


def energy_share(delta, maps, share=0.1):
    """Return which part of a perturbation's energy falls on the top `share` of each map's pixels, (N,).

    delta: (N, H, W, C). By chance it is `share`; NaN where delta is zero.
    """
    _check_maps(delta, rank=4)
    _check_maps(maps, delta[..., 0])
    energy = np.square(delta.astype(np.float64)).sum(axis=3)
    total = energy.sum(axis=(1, 2))
    return np.divide((top(maps, share) * energy).sum(axis=(1, 2)), total, out=np.full(len(total), np.nan),
                     where=total > 0)


def centroid_shift(one, two):
    """Return the distance in pixels between the centres of mass of each pair of maps, (N,); NaN of zeros."""
    _check_maps(one, two, smallest=0)
    return np.hypot(*(_centroid(two) - _centroid(one)))


def jensen_shannon(one, two):
    """Return the Jensen-Shannon divergence of each pair of maps as distributions, in bits: (N,) in [0, 1].

    NaN where one is zero. Lin 1991, doi:10.1109/18.61115.
    """
    _check_maps(one, two, smallest=0)
    a, b = (part.reshape(len(part), -1).astype(np.float64) for part in (one, two))
    sums = [part.sum(axis=1, keepdims=True) for part in (a, b)]
    a, b = (part / np.where(size > 0, size, 1) for part, size in zip((a, b), sums))
    middle = (a + b) / 2
    found = (rel_entr(a, middle) + rel_entr(b, middle)).sum(axis=1) / (2 * np.log(2))
    return np.where((sums[0][:, 0] > 0) & (sums[1][:, 0] > 0), found, np.nan)


def alignment(x, gradient):
    """Return the absolute cosine between images and gradients (N, H, W, C), each less its mean: (N,).

    NaN where one is constant.
    """
    _check_maps(x, gradient, rank=4)
    return np.abs(_correlation(*(part.reshape(len(part), -1).astype(np.float64) for part in (x, gradient))))


def edges(x):
    """Return how steep images (N, H, W, C) are, (N, H, W): the norm of Sobel's two differences."""
    _check_maps(x, rank=4)
    steep = [correlate1d(correlate1d(x.astype(np.float64), [-1, 0, 1], across), [1, 2, 1], along)
             for across, along in ((1, 2), (2, 1))]
    return np.sqrt(np.square(steep).sum(axis=(0, 4)))


def _correlation(a, b):
    """Return the correlation of each row of two arrays (N, pixels); NaN where one is constant."""
    constant = (np.ptp(a, axis=1) == 0) | (np.ptp(b, axis=1) == 0)  # whose mean may round to another number
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    norm = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), norm, out=np.full(len(a), np.nan), where=(norm > 0) & ~constant)


def _check_maps(*maps, rank=3, smallest=-np.inf):
    """Raise ValueError unless maps are finite arrays of one shape and this rank, of values >= smallest."""
    for part in maps:
        shape = np.shape(part)
        if not isinstance(part, np.ndarray) or len(shape) != rank or 0 in shape:
            raise ValueError(f"maps must be arrays ({', '.join('NHWC'[:rank])}) with N >= 1, got {shape}")
        if shape != np.shape(maps[0]):
            raise ValueError(f"maps must be of one shape, got {np.shape(maps[0])} and {shape}")
        if not np.isfinite(part).all():
            raise ValueError(f"maps must be finite, and {(~np.isfinite(part)).sum()} of {part.size} values "
                             "are not")
        if part.min() < smallest:
            raise ValueError(f"maps must be >= {smallest}, got {part.min()}: of one with signs, take the "
                             "magnitude")


def _centroid(maps):
    """Return the (row, column) of the centres of mass, (2, N)."""
    total = maps.sum(axis=(1, 2))
    row, column = np.arange(maps.shape[1]), np.arange(maps.shape[2])
    weighed = np.stack([(maps.sum(axis=2) * row).sum(axis=1), (maps.sum(axis=1) * column).sum(axis=1)])
    return np.divide(weighed, total, out=np.full(weighed.shape, np.nan), where=total > 0)


def _logit(y, logits):
    return tf.gather(logits, y, axis=1, batch_dims=1)


def _cam(model, layer):
    return gradients.compile(_weighed, model, layer)


def _weighed(model, layer, x, y):
    with tf.GradientTape() as tape:
        tape.watch(x)  # so that the tape records the layer's maps
        logits, maps = layers.tapped(model, layer, x)
        value = _logit(y, logits)
    slope = tape.gradient(value, maps)
    if slope is None:
        raise ValueError(f"no gradient passes from the logits to layer {layer}: Grad-CAM needs one")
    slope, maps = (tf.cast(part, tf.float32) for part in (slope, maps))
    alpha = tf.reduce_mean(slope, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(alpha * maps, axis=3))


def _known(model, layer, x):
    if layer not in (known := convolutional(model, x)):
        raise ValueError(f"layer must be one of the convolutional {', '.join(known)}, got {layer!r}")
    return layer


def _checked(model, x, class_index):
    """Return (x, y) as float32 and int64 arrays; raise ValueError for what does not fit."""
    y = np.asarray(class_index)
    return gradients.checked(model, x, np.full(len(gradients.checked_images(x)), y) if y.ndim == 0 else y)
