"""What a network looks at: maps of saliency, and measures between maps.

`model` is what gradients.py calls one, of TensorFlow; for Grad-CAM and the cascade, a Keras model.
class_index, (N,) or one for all, is the class whose logit z_c is explained. A map is (N, H, W), >= 0; maps
that take a sign are (N, H, W, C). Measures raise ValueError for maps that are not finite or of one shape.
"""
from numbers import Real

import keras
import numpy as np
import tensorflow as tf

from helpers.attacks import copies, gradients, layers
from helpers.saliency import measures

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
    layers.parts_by_name(model)  # raises for what is no Keras model
    x, y = _checked(model, x, class_index)
    layer = default_layer(model, x) if layer is None else _known(model, layer, x)
    run = gradients.made_once(_cam, model, layer)
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
                for name, own in layers.parts_by_name(model).items()}
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
    parts = layers.parts_by_name(model)
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

    sigma: the deviation of the Gaussian noise, in pixel values, at most 1; what it takes out of [0, 1] is
    clipped. Smilkov et al. 2017, arXiv:1706.03825.
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
    measures._check_maps(attribution, rank=4)
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
