"""Training from a recipe: deterministic, resumable, one file a network."""
import dataclasses
import functools
import json
import os
import time

import keras
import numpy as np
import tensorflow as tf

from helpers import datasets
from helpers.artifacts import files, paths, store
from helpers.artifacts.progress import tqdm
from helpers.networks import adversarial, batches, keras_files, models, recipes


def recipe_of(dataset, model, seed):
    """Return the recipe that a row of a table names: its data set, model ("lenet-adv") and seed."""
    architecture, _, end = model.partition("-")
    kind = next((kind for kind, known in recipes.ENDS.items() if known == (end and "-" + end)), None)
    if (dataset, architecture) not in recipes.KINDS.get(kind, {}):
        raise ValueError(f"there is no recipe of {model} on {dataset}")
    recipe, = recipes.recipes_for(dataset, architecture, kind=kind, seed=int(seed))
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
    if record["parameters"] != recipes.as_json(recipe):
        raise ValueError(f"{path} was trained by another recipe than its name says")
    _check_record(path, record)
    if path.parent.parent == paths.MADE:
        _clear(recipe)  # what a training that died just before its end has left
    model = read(path, record["sha256"])
    store.note(path.name, "loaded", record)
    return model, record["history"]


@functools.lru_cache(maxsize=16)
def _network(path, sha256):
    """Return the network at `path`, whose file has this digest; always the same object."""
    return keras_files.load_model(path)


def _check_record(path, record):
    """Raise ValueError, naming it, unless the record of a network tells its history and accuracies."""
    def numbers(values):  # None: what was not measured
        return isinstance(values, list) and all(
            value is None or type(value) in (int, float) for value in values)

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
                   else _kept(stage, lambda path, _: keras_files.load_model(path))[0])
        if shown is None:
            shown = network
        shown.set_weights(network.get_weights())
        yield stage.epochs, shown
    next(running, None)  # it clears up


def first_epoch(recipe):
    """Return the network of a recipe after its first epoch: trained anew, and not kept."""
    (x, y), validation, *_ = batches.images(recipe)
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
        recipe = recipes.from_json(record["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise store.damaged(store.record_path(path), f"its recipe is none ({error})",
                            f"the record of {path}") from error
    return keras_files.load_model(path), recipe, record


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
    (x, y), validation, test, data_digest = batches.images(recipe)
    steps = len(batches.Batches(x, y, recipe, 0))
    path = paths.place(paths.MADE, recipe.filename)
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
    build, classes = models.ARCHITECTURES[recipe.architecture], datasets.record(recipe.dataset).classes
    model = build(x.shape[1:], classes, **dict(recipe.arguments), seed=recipe.seed)
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
    return recipes.OPTIMIZERS[recipe.optimizer](rate, weight_decay=recipe.weight_decay or None)


def _clear(recipe):
    """Remove what is kept of an interrupted training of this recipe."""
    for partial in _partial_paths(paths.place(paths.MADE, recipe.filename)):
        partial.unlink(missing_ok=True)


def _partial_paths(path):
    return path.with_name(f"{path.stem}.partial.keras"), path.with_name(f"{path.stem}.partial.json")


def _save_partial(path, model, state):
    """Keep a finished epoch. The weights come last: the history may be one epoch ahead of them."""
    weights, history = _partial_paths(path)
    files.write_json(history, state)
    with files.atomic(weights) as partial:
        model.save(partial)


def _resume(path, recipe, steps):
    weights, history = _partial_paths(path)
    if not (weights.exists() and history.exists()):
        return None
    state = _read_state(history)
    if state["started"] < store.fresh_since():
        return None
    model = keras_files.load_model(weights, compiled=True)
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
    path, optimizer = paths.place(paths.MADE, recipe.filename), model.optimizer
    accuracies = {}
    for name, (x, y) in subsets.items():
        correct = np.argmax(model.predict(x, batch_size=500, verbose=0), axis=1) == y
        accuracies[name] = {"n": len(y), "correct": int(correct.sum()),
                            "correct_of_first_2000": int(correct[:2000].sum())}
    model.optimizer = None  # a finished network needs no momenta: half the size
    record = store.write(path, model.save, recipes.as_json(recipe), state["seconds"],
                         history=state["history"], accuracies=accuracies, data_sha256=data_digest,
                         threads=_threads())
    model.optimizer = optimizer
    store.note(path.name, "computed", record)
    return keras_files.load_model(path)


def _threads():
    """Return how many threads an operation of TensorFlow uses: as many as cores, if not told."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (tf.config.threading.get_intra_op_parallelism_threads()
            or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or cores)
