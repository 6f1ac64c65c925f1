"""What a training sees, and in what order: the validation split, augmentation and batches."""

import keras
import numpy as np

from helpers import datasets, jpeg


def split(y, share, seed):
    """Return (training, validation) indices of labels y: `share` of each class is for validation."""
    rng = np.random.default_rng([seed, 0])
    validation = np.concatenate([
        rng.permutation(np.flatnonzero(y == k))[:max(1, round(share * np.sum(y == k)))]
        for k in np.unique(y)])
    mask = np.zeros(len(y), bool)
    mask[validation] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def mislabelled(y, share, seed):
    """Return labels y, this share of them (at random) replaced by another of their classes, at random."""
    if not share:
        return y
    rng, y = np.random.default_rng([seed, 3]), y.copy()
    wrong = rng.permutation(len(y))[:round(share * len(y))]
    classes = y.max() + 1
    y[wrong] = (y[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return y


def augment(x, rng, *, shift, flip):
    """Return a copy of images x, each moved by up to `shift` pixels each way and maybe mirrored."""
    if shift:
        n, height, width, _ = x.shape
        pads = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        padded = np.pad(x, pads, mode="reflect")
        top, left = rng.integers(0, 2 * shift + 1, (2, n))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        x = np.moveaxis(windows[np.arange(n), top, left], 1, -1)
    if flip:
        mirrored = rng.random(len(x)) < 0.5
        x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
    return np.ascontiguousarray(x)


class Batches(keras.utils.PyDataset):
    """One epoch's batches: their order and augmentation depend only on the recipe and the epoch."""

    def __init__(self, x, y, recipe, epoch):
        super().__init__()
        self.x, self.y, self.recipe, self.epoch = x, y, recipe, epoch
        self.order = np.random.default_rng([recipe.seed, 1, epoch]).permutation(len(x))

    def __len__(self):
        return -(-len(self.x) // self.recipe.batch_size)

    def __getitem__(self, i):
        chosen = self.order[i * self.recipe.batch_size:(i + 1) * self.recipe.batch_size]
        rng = np.random.default_rng([self.recipe.seed, 2, self.epoch, i])
        x = augment(self.x[chosen], rng, shift=self.recipe.shift, flip=self.recipe.flip)
        if self.recipe.qualities:
            x = jpeg.compress(x, rng.choice(self.recipe.qualities, len(x)))
        return x, self.y[chosen]


def images(recipe):
    """Return what a recipe trains on: ((x, y) training, (x, y) validation, (x, y) test, digest).

    Training labels are those told, wrong ones among them; the digest is of training and validation
    images. Raises ValueError where there are fewer images than the recipe needs.
    """
    data = datasets.load(recipe.dataset)
    available = len(data.x_train)
    if recipe.train_size is None and not data.complete:
        raise ValueError(f"this recipe trains on all of {recipe.dataset}, and data/ holds only "
                         f"{available} training images: run `make data`, or give a train_size of "
                         f"at most {available}")
    if recipe.train_size is not None and recipe.train_size > available:
        raise ValueError(f"train_size must be at most {available}, the training images of "
                         f"{recipe.dataset} under data/, got {recipe.train_size}")
    used = (slice(None) if recipe.train_size is None
            else datasets.first_per_class(data.y_train, recipe.train_size))
    x, y = data.x_train[used], data.y_train[used]
    train, validation = split(y, recipe.validation_share, recipe.seed)
    if not len(train):
        raise ValueError(f"validation_share must leave images to train on, got {recipe.validation_share!r}")
    digest = datasets.array_sha256(x)
    told = mislabelled(y[train], recipe.label_noise, recipe.seed)
    return (x[train], told), (x[validation], y[validation]), (data.x_test, data.y_test), digest
