"""Recipes: all that decides a network's weights, and those of the networks that ship."""
import dataclasses
import functools
import json
import math
from dataclasses import dataclass

import keras

from helpers import datasets, jpeg
from helpers.artifacts import store
from helpers.networks import models

OPTIMIZERS = {"sgd": functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
              "adam": keras.optimizers.Adam}


def _require_integer(name, value, smallest):
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(f"{name} must be an integer >= {smallest}, got {value!r}")


def _require_real(name, value, allowed, fits):
    if type(value) not in (int, float) or not math.isfinite(value) or not fits(value):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


@dataclass(frozen=True)
class Recipe:
    """All that decides a network's weights, on one machine and with one number of threads.

    Whatever else the process does: all that is drawn has a generator of its own, seeded by the recipe. But
    other processors, and other numbers of threads, add the same numbers in another order, and training makes
    much of such rounding (one thread and two: other weights). A network's record tells its threads.

    arguments: of the architecture (models.ARGUMENTS), as pairs (name, value). learning_rate: its
    peak; schedule: "constant", or "cosine" down to 0 after a linear warm-up of warmup_epochs (at
    most half of all epochs). shift, flip: augmentation, by up to `shift` pixels each way (mirrored at the
    border) and by horizontal flips. weight_decay: decoupled from the gradient, as in Keras's SGD.
    validation_share: of the training images, held out of training. train_size: use as many
    training images, the first of each class; None, all. eps: 0, natural training; else
    adversarial training, of `nb_iter` steps in the L-infinity ball of radius eps (see adversarial.py),
    which grows from 0 during the warm-up. qualities: train on JPEG images, each of a quality drawn
    from these; (), on the images as they are. optimizer: "sgd", with Nesterov's momentum, or "adam".
    label_noise: this share of the training labels is another class, drawn at random once for all epochs.
    """
    dataset: str
    architecture: str
    arguments: tuple = ()
    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 0.05
    schedule: str = "cosine"
    warmup_epochs: int = 1
    shift: int = 0
    flip: bool = False
    weight_decay: float = 0.0
    validation_share: float = 0.05
    train_size: int | None = None
    seed: int = 0
    eps: float = 0.0
    nb_iter: int = 1
    qualities: tuple = ()
    optimizer: str = "sgd"
    label_noise: float = 0.0

    def __post_init__(self):
        for field, allowed in {"dataset": datasets.NAMES, "architecture": tuple(models.ARCHITECTURES),
                               "schedule": ("constant", "cosine"),
                               "optimizer": tuple(OPTIMIZERS)}.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, "
                                 f"got {getattr(self, field)!r}")
        for name in ("epochs", "batch_size", "nb_iter"):
            _require_integer(name, getattr(self, name), 1)
        for name in ("warmup_epochs", "shift"):
            _require_integer(name, getattr(self, name), 0)
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:  # beyond, generators share numbers
            raise ValueError(f"seed must be an integer in 0..{2**32 - 1}, got {self.seed!r}")
        if self.train_size is not None:
            _require_integer("train_size", self.train_size, 100)
        if type(self.flip) is not bool:
            raise ValueError(f"flip must be True or False, got {self.flip!r}")
        _require_real("validation_share", self.validation_share, "in (0, 1)", lambda value: 0 < value < 1)
        _require_real("learning_rate", self.learning_rate, "positive", lambda value: value > 0)
        for name in ("weight_decay", "eps", "label_noise"):
            _require_real(name, getattr(self, name), "in [0, 1)", lambda value: 0 <= value < 1)
        for quality in self.qualities:
            jpeg.check_quality(quality)
        models.check_arguments(self.architecture, self.arguments)

    @property
    def warmup(self):
        """The epochs of warm-up: at most half of all."""
        return min(self.warmup_epochs, self.epochs // 2)

    @property
    def model(self):
        """The network's name in tables: its architecture, with the end of its kind, if not natural."""
        kind = "adversarial" if self.eps else "jpeg" if self.qualities else "natural"
        return self.architecture + ENDS[kind]

    @property
    def filename(self):
        """The network's file name: dataset, architecture, seed and a digest of the whole recipe."""
        return (f"network-{self.dataset}-{self.model}-seed{self.seed}-"
                f"{store.digest(as_json(self))}.keras")


def _by_network(*recipes):
    """Return recipes by their data set and architecture."""
    return {(recipe.dataset, recipe.architecture): recipe for recipe in recipes}


# The networks that ship with the project. Usual settings, fixed beforehand; the test set had no part.
RECIPES = _by_network(
    Recipe("mnist", "lenet", epochs=20, learning_rate=0.05, shift=2, weight_decay=1e-3),
    Recipe("mnist", "resnet", epochs=5, learning_rate=0.1, shift=2, weight_decay=5e-3),
    Recipe("cifar10", "lenet", epochs=60, learning_rate=0.05, shift=4, flip=True, weight_decay=1e-3),
    Recipe("cifar10", "resnet", epochs=45, learning_rate=0.1, shift=4, flip=True, weight_decay=5e-3,
           warmup_epochs=2))


# Adversarially trained: after Madry et al. 2018 on MNIST, with N-FGSM (de Jorge et al. 2022) on CIFAR-10.
ADVERSARIAL = _by_network(
    Recipe("mnist", "lenet", epochs=40, learning_rate=0.05, warmup_epochs=10, weight_decay=0.0, eps=0.3,
           nb_iter=10),
    Recipe("cifar10", "resnet", epochs=30, learning_rate=0.1, shift=4, flip=True, weight_decay=2e-3,
           warmup_epochs=2, eps=8 / 255))


# Trained on JPEG images, Das et al.'s (2017) vaccination, with the qualities of SHIELD (2018).
VACCINATED = _by_network(
    dataclasses.replace(RECIPES["mnist", "lenet"], epochs=20, qualities=(20, 40, 60, 80)),
    dataclasses.replace(RECIPES["cifar10", "resnet"], epochs=30, qualities=(20, 40, 60, 80)))


KINDS = {"natural": RECIPES, "adversarial": ADVERSARIAL, "jpeg": VACCINATED}
ENDS = {"natural": "", "adversarial": "-adv", "jpeg": "-jpeg"}  # of a network's name in tables


def recipes_for(dataset="all", architecture="all", *, kind="natural", seed=0, epochs=None,
                train_size=None):
    """Return the recipes of these data sets and architectures; "all" takes both.

    kind: one of KINDS; of the others there may be none. epochs, train_size: instead of the recipes'
    own, where given. Without train_size, a recipe that neither ships nor has been trained takes the
    training images at hand: all of them, or the tracked part. So every seed can be trained on a fresh clone,
    and the recipe says on what. Raises ValueError for a name that is not in RECIPES or KINDS.
    """
    allowed = [("all", *names) for names in map(sorted, map(set, zip(*RECIPES)))]
    if dataset not in allowed[0] or architecture not in allowed[1]:
        raise ValueError(f"dataset and architecture must be among {list(RECIPES)} or 'all', "
                         f"got {dataset!r} and {architecture!r}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    chosen = []
    for (name, built), recipe in KINDS[kind].items():
        if dataset in ("all", name) and architecture in ("all", built):
            recipe = dataclasses.replace(recipe, seed=seed, train_size=train_size,
                                         epochs=recipe.epochs if epochs is None else epochs)
            if train_size is None and not store.find(recipe.filename):
                data = datasets.load(name)
                if not data.complete:
                    recipe = dataclasses.replace(recipe, train_size=len(data.y_train))
            chosen.append(recipe)
    return chosen


def recipe_named(filename):
    """Return the recipe of a kept network's file name, read from its record; raise NotHere without one."""
    found = store.find(filename)
    if not found:
        raise store.NotHere(f"{filename} is not there")
    recipe = from_json(found[1]["parameters"])
    if recipe.filename != filename:
        raise ValueError(f"{found[0]} was trained by another recipe than its name says")
    return recipe


def from_json(fields):
    """Return the recipe of which `as_json` made these fields."""
    return Recipe(**{**fields, "arguments": tuple(map(tuple, fields["arguments"])),
                     "qualities": tuple(fields.get("qualities", ()))})


def as_json(recipe):
    """Return the recipe as JSON, without the fields of the kinds of training that it is not."""
    fields = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if not recipe.eps:
        del fields["eps"], fields["nb_iter"]
    if not recipe.qualities:
        del fields["qualities"]
    for name in ("optimizer", "label_noise"):
        if fields[name] == getattr(Recipe, name):
            del fields[name]
    return fields
