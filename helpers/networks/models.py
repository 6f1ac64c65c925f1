"""The two architectures: LeNet-5 and the CIFAR form of ResNet.

Every network takes images in [0, 1], normalises them in a layer of its own (set from training
data by `normalize`) and returns logits. There are no custom classes, so that a saved network
loads in Keras's safe mode. The initial weights follow from `seed` alone, wherever the network is built:
no generator from which others draw too is set or read.
"""
import random

import keras
from keras import layers


def lenet(input_shape, num_classes=10, extra_layers=0, width=1.0, *, seed=0):
    """Return LeNet-5: two convolutions with pooling, then three dense layers.

    input_shape: (H, W, C), H and W at least 12. extra_layers: further hidden layers as wide as
    the last one (84), for the study of over-parameterisation. width: factor on every hidden size.
    LeCun et al. 1998, doi:10.1109/5.726791. What differs: ReLU instead of scaled tanh; max pooling
    instead of trainable averages; every map of C3 sees all of S2 (there, a table of 60 of the 96);
    a dense layer of logits instead of radial basis functions. As there, images of 28×28 are padded
    by 2; larger ones are not.
    """
    _check(input_shape, num_classes, width, smallest=12)
    if type(extra_layers) is not int or not 0 <= extra_layers <= 1000:
        raise ValueError(f"extra_layers must be an integer in 0..1000, got {extra_layers!r}")
    scaled, drawn = _scaler(width), _initializers("glorot_uniform", seed)
    inputs = keras.Input(input_shape, name="image")
    x = layers.Normalization(name="normalization")(inputs)
    padding = "same" if input_shape[0] < 32 else "valid"
    x = layers.Conv2D(scaled(6), 5, padding=padding, activation="relu", kernel_initializer=drawn(),
                      name="c1")(x)
    x = layers.MaxPooling2D(name="s2")(x)
    x = layers.Conv2D(scaled(16), 5, activation="relu", kernel_initializer=drawn(), name="c3")(x)
    x = layers.MaxPooling2D(name="s4")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(scaled(120), activation="relu", kernel_initializer=drawn(), name="c5")(x)
    x = layers.Dense(scaled(84), activation="relu", kernel_initializer=drawn(), name="f6")(x)
    for i in range(extra_layers):
        x = layers.Dense(scaled(84), activation="relu", kernel_initializer=drawn(), name=f"extra{i + 1}")(x)
    logits = layers.Dense(num_classes, kernel_initializer=drawn(), name="logits")(x)
    return keras.Model(inputs, logits, name="lenet")


def resnet(input_shape, num_classes=10, depth=20, width=1.0, *, seed=0):
    """Return the ResNet of 6n + 2 = `depth` layers for small images; 271k parameters at depth 20.

    input_shape: (H, W, C), H and W at least 8. width: factor on the 16, 32 and 64 filters.
    He et al. 2016, arXiv:1512.03385, section 4.2, with its shortcuts without parameters (option A:
    subsampling, and zeros for the new channels).
    """
    _check(input_shape, num_classes, width, smallest=8)
    if type(depth) is not int or not 8 <= depth <= 1202 or (depth - 2) % 6:
        raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 26, ..., 1202), got {depth!r}")
    scaled, drawn = _scaler(width), _initializers("he_normal", seed)
    inputs = keras.Input(input_shape, name="image")
    x = layers.Normalization(name="normalization")(inputs)
    x = _convolution(x, scaled(16), 1, "stem", drawn)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _residual(x, scaled(filters), stride, f"stage{stage}_block{block + 1}", drawn)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    logits = layers.Dense(num_classes, kernel_initializer=drawn(), name="logits")(x)
    return keras.Model(inputs, logits, name="resnet")


ARCHITECTURES = {"lenet": lenet, "resnet": resnet}
ARGUMENTS = {"lenet": ("extra_layers", "width"), "resnet": ("depth", "width")}  # which a recipe may give


def check_arguments(architecture, arguments):
    """Raise ValueError, naming it, where a pair (name, value) is not one of the ARGUMENTS, each once."""
    known, names = ARGUMENTS[architecture], [name for name, _ in arguments]
    for name in names:
        if name not in known or names.count(name) > 1:
            raise ValueError(f"arguments of {architecture} must be {', '.join(known)}, each once, "
                             f"got {name!r}")


def normalize(model, x):
    """Set the model's normalisation layer to the channel means and deviations of images x."""
    model.get_layer("normalization").adapt(x)


def blocks(model):
    """Return the model as rows (name, output shape without the batch, parameters), in order.

    Layers that share the beginning of their name up to "_" (stage1_…) are one row, and the zero
    channels of a shortcut belong to its stage.
    """
    rows = []
    for layer in model.layers:
        shape, name = tuple(layer.output.shape[1:]), layer.name.split("_")[0]
        parameters = layer.count_params()
        if name == "flatten":
            continue
        if rows and name in (rows[-1][0], "pad"):
            rows[-1] = (rows[-1][0], shape, rows[-1][2] + parameters)
        else:
            rows.append((name, shape, parameters))
    return rows


def _convolution(x, filters, stride, name, drawn):
    x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False,
                      kernel_initializer=drawn(), name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _residual(x, filters, stride, name, drawn):
    y = _convolution(x, filters, stride, f"{name}_1", drawn)
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = _convolution(y, filters, 1, f"{name}_2", drawn)
    if stride > 1:
        x = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)  # keeps every second pixel
    new = filters - x.shape[-1]
    if new:
        x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def _initializers(kind, seed):
    """Return a function that gives one layer after another an initialiser of Keras, each with its own seed.

    The seeds are those that Keras itself draws after keras.utils.set_random_seed(seed) where nobody else
    draws from Python's generator meanwhile: so networks that were trained that way can still be made.
    """
    rng = random.Random(seed)
    return lambda: keras.initializers.get({"class_name": kind, "config": {"seed": rng.randint(1, 10**9)}})


def _scaler(width):
    return lambda size: max(1, round(size * width))


def _check(input_shape, num_classes, width, smallest):
    if len(input_shape) != 3 or min(input_shape[:2]) < smallest:
        raise ValueError(f"input_shape must be (H, W, C) with H, W >= {smallest}, got {input_shape}")
    if type(num_classes) is not int or num_classes < 2:
        raise ValueError(f"num_classes must be an integer >= 2, got {num_classes!r}")
    if type(width) not in (int, float) or not 0 < width <= 100:
        raise ValueError(f"width must be in (0, 100], got {width!r}")
