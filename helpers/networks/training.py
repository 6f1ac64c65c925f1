"""Training from a recipe: deterministic, resumable, one file a network."""
import dataclasses
import functools
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from helpers.artifacts import store
from helpers.datasets import loading as datasets
from helpers.jpeg import codec as jpeg
from helpers.networks import adversarial, batches, keras_files, models
from helpers.artifacts.progress import tqdm

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
    validation_share: of the training images, held out of training. train_size: use the first
    train_size / 10 training images of each class; None, all. eps: 0, natural training; else
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


# The networks that ship with the project. Usual settings, fixed beforehand; the test set had no part.
RECIPES = {
    ("mnist", "lenet"): Recipe("mnist", "lenet", epochs=20, learning_rate=0.05, shift=2,
                               weight_decay=1e-3),
    ("mnist", "resnet"): Recipe("mnist", "resnet", epochs=5, learning_rate=0.1, shift=2,
                                weight_decay=5e-3),
    ("cifar10", "lenet"): Recipe("cifar10", "lenet", epochs=60, learning_rate=0.05, shift=4,
                                 flip=True, weight_decay=1e-3),
    ("cifar10", "resnet"): Recipe("cifar10", "resnet", epochs=45, learning_rate=0.1, shift=4,
                                  flip=True, weight_decay=5e-3, warmup_epochs=2),
}


# Adversarially trained: after Madry et al. 2018 on MNIST, with N-FGSM (de Jorge et al. 2022) on CIFAR-10.
ADVERSARIAL = {
    ("mnist", "lenet"): Recipe("mnist", "lenet", epochs=40, learning_rate=0.05, warmup_epochs=10,
                               weight_decay=0.0, eps=0.3, nb_iter=10),
    ("cifar10", "resnet"): Recipe("cifar10", "resnet", epochs=30, learning_rate=0.1, shift=4,
                                  flip=True, weight_decay=2e-3, warmup_epochs=2, eps=8 / 255),
}


# Trained on JPEG images, Das et al.'s (2017) vaccination, with the qualities of SHIELD (2018).
VACCINATED = {key: dataclasses.replace(RECIPES[key], epochs=epochs, qualities=(20, 40, 60, 80))
              for key, epochs in ((("mnist", "lenet"), 20), (("cifar10", "resnet"), 30))}

KINDS = {"natural": RECIPES, "adversarial": ADVERSARIAL, "jpeg": VACCINATED}
ENDS = {"natural": "", "adversarial": "-adv", "jpeg": "-jpeg"}  # of a network's name in tables


def recipes(dataset="all", architecture="all", *, kind="natural", seed=0, epochs=None,
            train_size=None):
    """Return the recipes of these data sets and architectures; "all" takes both.

    kind: one of KINDS; of the others there may be none. epochs, train_size: instead of the recipes'
    own, where given. Without train_size, a recipe that neither ships nor has been trained takes the
    training images at hand: all of them, or the tracked part of CIFAR-10. So every seed can be
    trained on a fresh clone, and the recipe says on what. Raises ValueError for a name that is not
    in RECIPES or KINDS.
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


def recipe_of(dataset, model, seed):
    """Return the recipe that a row of a table names: its data set, model ("lenet-adv") and seed."""
    architecture, _, end = model.partition("-")
    kind = next((kind for kind, known in ENDS.items() if known == (end and "-" + end)), None)
    if (dataset, architecture) not in KINDS.get(kind, {}):
        raise ValueError(f"there is no recipe of {model} on {dataset}")
    recipe, = recipes(dataset, architecture, kind=kind, seed=int(seed))
    return recipe


def recipe_named(filename):
    """Return the recipe of a kept network's file name, read from its record; raise NotHere without one."""
    found = store.find(filename)
    if not found:
        raise store.NotHere(f"{filename} is not there")
    recipe = from_json(found[1]["parameters"])
    if recipe.filename != filename:
        raise ValueError(f"{found[0]} was trained by another recipe than its name says")
    return recipe


def load_or_train(recipe):
    """Return (model, history) of a Recipe: loaded if its file is there, else trained and kept.

    history: dict of lists with one value an epoch: loss, accuracy, val_loss, val_accuracy,
    learning_rate. A network that is loaded again is the same object, so that what was compiled for it
    serves again: do not change its weights. Training goes on from the last finished epoch if it was
    interrupted. Raises ValueError where the network's file, or its interrupted training, is damaged,
    and where the recipe needs more training images than there are.
    """
    return _kept(recipe, _network) or _train(recipe)


def _kept(recipe, read):
    """Return (model, history) of a network that is kept, the model by read(path, digest); else None."""
    found = store.find(recipe.filename)
    if not found:
        return None
    path, record = found
    if record["parameters"] != as_json(recipe):
        raise ValueError(f"{path} was trained by another recipe than its name says")
    _check_record(path, record)
    if path.parent == store.MADE:
        _clear(recipe)  # what a training that died just before its end has left
    model = read(path, record["sha256"])
    store.note(path.name, "loaded", record)
    return model, record["history"]


@functools.lru_cache(maxsize=16)
def _network(path, sha256):
    """Return the network at `path`, whose file has this digest; always the same object."""
    return keras_files.load(path)


def _check_record(path, record):
    """Raise ValueError, naming it, unless the record of a network tells its history and accuracies."""
    def numbers(values):  # None: what was not measured
        return isinstance(values, list) and all(value is None or type(value) in (int, float) for value in values)

    def counts(part):
        return (isinstance(part, dict) and all(type(part.get(key)) is int for key in ("n", "correct"))
                and 0 <= part["correct"] <= part["n"])

    history, accuracies = (record.get(name) if isinstance(record.get(name), dict) else {}
                           for name in ("history", "accuracies"))
    why = None
    lists = list(history.values())
    if "loss" not in history or not all(map(numbers, lists)) or len(set(map(len, lists))) > 1:
        why = "its history is not a list of numbers for each quantity"
    elif not all(counts(accuracies.get(name)) for name in ("validation", "test")):
        why = "its accuracies are not counts of right images"
    if why:
        raise store.damaged(store.record_path(path), why, f"the record of {path}")


def trajectory(recipe, epochs):
    """Yield (epoch, model) of one run of a recipe as it passes these of its epochs, in order.

    The networks are kept as those of the recipe with so many epochs, which they are, the rate being
    constant. Trains only what is not kept, and goes on from the last finished epoch. The model is one
    object whose weights change. Raises ValueError unless the epochs are in 1..recipe.epochs and the
    schedule is constant.
    """
    epochs = sorted(set(epochs))
    if recipe.schedule != "constant" or recipe.eps:
        raise ValueError("a trajectory needs a constant schedule and natural training: else fewer "
                         f"epochs are another run; got {recipe.schedule!r}, eps {recipe.eps}")
    if not epochs or epochs[0] < 1 or epochs[-1] > recipe.epochs:
        raise ValueError(f"epochs must be in 1..{recipe.epochs}, got {epochs}")
    recipe = dataclasses.replace(recipe, epochs=epochs[-1])
    passed = [dataclasses.replace(recipe, epochs=epoch) for epoch in epochs]
    missing = [stage.epochs for stage in passed if not store.find(stage.filename)]
    running, shown = iter(()), None
    if missing:  # what is passed beyond the last of these needs no training
        running = _run(dataclasses.replace(recipe, epochs=missing[-1]), missing)
    for stage in passed:
        network = (next(running) if stage.epochs in missing
                   else _kept(stage, lambda path, _: keras_files.load(path))[0])
        if shown is None:
            shown = network
        shown.set_weights(network.get_weights())
        yield stage.epochs, shown
    next(running, None)  # it clears up


def first_epoch(recipe):
    """Return the network of a recipe after its first epoch: trained anew, and not kept."""
    (x, y), validation, *_ = images(recipe)
    epoch = batches.Batches(x, y, recipe, 0)
    model, state = _start(recipe, x, len(epoch))
    with tqdm(total=len(epoch), desc=f"{recipe.architecture} {recipe.dataset}", unit="batch",
              leave=False) as bar:
        _train_epoch(model, epoch, validation, state, bar)
    return model


def read_network(path):
    """Return (model, recipe, record) of the trained network at `path`; ValueError where it is damaged."""
    record = store.read_record(path)
    _check_record(path, record)
    try:
        recipe = from_json(record["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise store.damaged(store.record_path(path), f"its recipe is none ({error})",
                            f"the record of {path}") from error
    return keras_files.load(path), recipe, record


def read_checkpoint(path):
    """Return (model, dataset) of a network saved by Keras, not necessarily by this project.

    The data set is that whose images the network takes. Raises ValueError where there is no such file, where
    it is no network that can be read (keras_files.load), takes other images, or does not answer with a logit
    for each class.
    """
    if not str(path):
        raise ValueError(f"the path of a network must not be empty, got {path!r}: give that of a .keras file")
    model = keras_files.load(path)
    if not model.built or not model.inputs:
        raise ValueError(f"{path} does not say what images it takes: it needs a keras.Input as it is saved")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs: a network "
                         "must take images alone, and answer with logits alone")
    taken, given = (tuple(part[0].shape[1:]) for part in (model.inputs, model.outputs))
    for name in datasets.NAMES:
        shape, classes = datasets.load(name).x_test.shape[1:], len(datasets.CLASS_NAMES[name])
        if len(taken) == 3 and all(side in (None, own) for side, own in zip(taken, shape)):
            if given != (classes,):
                raise ValueError(f"{path} answers with shape {given}: {name} needs {classes} logits an image")
            return model, name
    raise ValueError(f"{path} takes images of shape {taken}: those of no data set here")


class _StepBar(keras.callbacks.Callback):
    """Moves a tqdm bar by one a batch and shows the running accuracy."""

    def __init__(self, bar):
        super().__init__()
        self.bar = bar

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()
        if batch % 10 == 0:
            self.bar.set_postfix(accuracy=f"{logs['accuracy']:.3f}", refresh=False)


def _train(recipe):
    *_, model = _run(recipe, (recipe.epochs,))
    return model, store.find(recipe.filename)[1]["history"]


def _run(recipe, epochs):
    """Train a recipe; yield its network, kept and loaded again, at each of these epochs."""
    store.check_making(recipe.filename)
    (x, y), validation, test, data_digest = images(recipe)
    steps = len(batches.Batches(x, y, recipe, 0))
    path = store.MADE / recipe.filename
    model, state = _resume(path, recipe, steps) or _start(recipe, x, steps)
    done = len(state["history"]["loss"])
    if done > min(epochs):  # it has passed what is asked for
        (model, state), done = _start(recipe, x, steps), 0
    subsets = {"validation": validation, "test": test}
    with tqdm(total=recipe.epochs * steps, initial=done * steps, unit="batch") as bar:
        for epoch in range(done, recipe.epochs + 1):
            if epoch in epochs:
                yield _finish(model, dataclasses.replace(recipe, epochs=epoch), state, data_digest, subsets)
            if epoch < recipe.epochs:
                bar.set_description(f"{recipe.architecture} {recipe.dataset} "
                                    f"epoch {epoch + 1}/{recipe.epochs}")
                _train_epoch(model, batches.Batches(x, y, recipe, epoch), validation, state, bar)
                _save_partial(path, model, state)
    _clear(recipe)


def _train_epoch(model, epoch, validation, state, bar):
    start = time.perf_counter()
    fitted = (_fit_adversarial if epoch.recipe.eps else _fit)(model, epoch, validation, bar)
    fitted["learning_rate"] = float(model.optimizer.learning_rate)
    for key, values in state["history"].items():
        values.append(round(fitted[key], 6))
    state["seconds"] += time.perf_counter() - start


def _fit(model, epoch, validation, bar):
    """Train one epoch; return its losses and accuracies, by name."""
    fitted = model.fit(epoch, validation_data=validation, verbose=0, shuffle=False,
                       callbacks=[_StepBar(bar)]).history
    return {key: values[0] for key, values in fitted.items()}


def _fit_adversarial(model, epoch, validation, bar):
    """Train one epoch on images attacked as the network is at each step."""
    total, images = {"loss": 0.0, "accuracy": 0.0}, 0
    for i in range(len(epoch)):
        x, y = adversarial.batch(model, epoch, i)
        batch = model.train_on_batch(x, y, return_dict=True)  # the means of this batch alone
        images += len(y)
        total = {key: value + len(y) * float(batch[key]) for key, value in total.items()}
        bar.update()
        if i % 10 == 0:
            bar.set_postfix(accuracy=f"{total['accuracy'] / images:.3f}", refresh=False)
    fitted = {key: value / images for key, value in total.items()}
    measured = model.evaluate(*validation, batch_size=500, verbose=0, return_dict=True)
    robust = adversarial.accuracy(model, *validation, epoch.recipe)
    return fitted | {f"val_{key}": value for key, value in measured.items()} | robust


def _start(recipe, x, steps):
    model = models.ARCHITECTURES[recipe.architecture](x.shape[1:], **dict(recipe.arguments), seed=recipe.seed)
    models.normalize(model, x)
    model.compile(optimizer=_optimizer(recipe, steps),
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"], jit_compile=False)  # XLA is 3 times slower here on a CPU
    keys = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    if recipe.eps:
        keys.append("val_robust_accuracy")
    return model, {"started": time.time(), "seconds": 0.0, "history": {key: [] for key in keys}}


def _optimizer(recipe, steps):
    rate, warmup = recipe.learning_rate, recipe.warmup * steps
    if recipe.schedule == "cosine":
        decay = recipe.epochs * steps - warmup
        start, target = (0.0, rate) if warmup else (rate, None)
        rate = keras.optimizers.schedules.CosineDecay(start, decay, alpha=0.0, warmup_target=target,
                                                      warmup_steps=warmup)
    return OPTIMIZERS[recipe.optimizer](rate, weight_decay=recipe.weight_decay or None)


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
    train, validation = batches.split(y, recipe.validation_share, recipe.seed)
    if not len(train):
        raise ValueError(f"validation_share must leave images to train on, got {recipe.validation_share!r}")
    digest = datasets.array_sha256(x)
    told = batches.mislabelled(y[train], recipe.label_noise, recipe.seed)
    return (x[train], told), (x[validation], y[validation]), (data.x_test, data.y_test), digest


def _clear(recipe):
    """Remove what is kept of an interrupted training of this recipe."""
    for partial in _partial_paths(store.MADE / recipe.filename):
        partial.unlink(missing_ok=True)


def _partial_paths(path):
    return path.with_name(f"{path.stem}.partial.keras"), path.with_name(f"{path.stem}.partial.json")


def _save_partial(path, model, state):
    """Keep a finished epoch. The weights come last: the history may be one epoch ahead of them."""
    weights, history = _partial_paths(path)
    store.write_json(history, state)
    with store.atomic(weights) as partial:
        model.save(partial)


def _resume(path, recipe, steps):
    weights, history = _partial_paths(path)
    if not (weights.exists() and history.exists()):
        return None
    state = _read_state(history)
    if state["started"] < store.fresh_since():
        return None
    model = keras_files.load(weights, compiled=True)
    if model.optimizer is None:
        raise store.damaged(weights, "it has no optimiser")
    done = int(model.optimizer.iterations) // steps
    state["history"] = {key: values[:done] for key, values in state["history"].items()}
    return model, state


def _read_state(path):
    """Return the history of an interrupted training; raise ValueError, naming the file, where it is none."""
    try:
        state = json.loads(path.read_text("utf8"))
        lists = list(state["history"].values())
        sound = (all(type(state[key]) in (int, float) for key in ("started", "seconds"))
                 and all(isinstance(values, list) for values in lists) and "loss" in state["history"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise store.damaged(path, repr(error)) from error
    if not sound:
        raise store.damaged(path, "it is no history of a training")
    return state


def _finish(model, recipe, state, data_digest, subsets):
    """Keep the network as it is now; return it as loaded."""
    path, optimizer = store.MADE / recipe.filename, model.optimizer
    accuracies = {}
    for name, (x, y) in subsets.items():
        correct = np.argmax(model.predict(x, batch_size=500, verbose=0), axis=1) == y
        accuracies[name] = {"n": len(y), "correct": int(correct.sum()),
                            "correct_of_first_2000": int(correct[:2000].sum())}
    model.optimizer = None  # a finished network needs no momenta: half the size
    record = store.write(path, model.save, as_json(recipe), state["seconds"],
                         history=state["history"], accuracies=accuracies, data_sha256=data_digest,
                         threads=_threads())
    model.optimizer = optimizer
    store.note(path.name, "computed", record)
    return keras_files.load(path)


def _threads():
    """Return how many threads an operation of TensorFlow uses: as many as cores, if not told."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (tf.config.threading.get_intra_op_parallelism_threads()
            or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or cores)


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
