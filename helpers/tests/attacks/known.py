"""What both searches for small perturbations are tried on: linear models, and images that LeNet has right."""
import numpy as np
import tensorflow as tf

from helpers import datasets, networks
from helpers.artifacts import paths
from helpers.attacks import gradients

N, SHAPE, CLASSES = 12, (6, 6, 3), 4


def linear(scale=1.0):
    """Return (model, W): logits are `scale` times the products of W (H·W·C, classes) and the image."""
    weights = np.random.default_rng(0).normal(0, 0.2, (np.prod(SHAPE), CLASSES)).astype(np.float32)
    return lambda x: scale * tf.reshape(x, (-1, len(weights))) @ weights, weights.astype(np.float64)


def images(n=N, low=0.3, high=0.7):
    """Return n images of SHAPE with pixels in [low, high)."""
    return np.random.default_rng(1).uniform(low, high, (n, *SHAPE)).astype(np.float32)


def boundaries(W, x, y, own):
    """Return the distance from x to the boundary between y and each other class, (N, classes), `own` at y."""
    z = x.reshape(len(x), -1).astype(np.float64) @ W
    gaps = z[np.arange(len(y)), y][:, None] - z
    lengths = np.linalg.norm(W[:, y].T[:, :, None] - W[None], axis=1)
    return np.divide(gaps, lengths, out=np.full_like(gaps, own), where=lengths > 0)


def right_by_lenet(count):
    """Return (model, x, y): the shipped LeNet of MNIST and the first test images that it has right."""
    filename = networks.RECIPES["mnist", "lenet"].filename
    model, _, _ = networks.read_network(paths.place(paths.SHIPPED, filename))
    data = datasets.load("mnist")
    right = np.flatnonzero(gradients.logits(model, data.x_test[:50]).argmax(1) == data.y_test[:50])[:count]
    return model, data.x_test[right], data.y_test[right]
