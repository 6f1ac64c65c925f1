"""Recipes, resuming, determinism, and the networks that ship."""
import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from helpers import attacks, datasets, jpeg, networks
from helpers.artifacts import paths, store
from helpers.networks import adversarial, batches, models, training
from helpers.networks.recipes import Recipe
from helpers.statistics import intervals
from helpers.study import accuracy
from helpers.tests import forgery

SMALL = Recipe("mnist", "lenet", epochs=3, train_size=300, shift=1, flip=True)

KILLED_AFTER_AN_EPOCH = """
import os, signal, sys
from pathlib import Path
from helpers import networks
from helpers.artifacts import paths
from helpers.networks import training
paths.MADE = Path(sys.argv[1])
save = training._save_partial
def save_and_die(*args):
    save(*args)
    os.kill(os.getpid(), signal.SIGKILL)
training._save_partial = save_and_die
networks.load_or_train(networks.Recipe("mnist", "lenet", epochs=3, train_size=300, shift=1, flip=True))
"""


def _weights(model):
    return model.get_weights()


def _same(a, b):
    return all(np.array_equal(u, v) for u, v in zip(_weights(a), _weights(b), strict=True))


def test_a_killed_training_resumes_to_the_very_same_weights(made, tmp_path):
    elsewhere = tmp_path / "killed"
    child = subprocess.run([sys.executable, "-c", KILLED_AFTER_AN_EPOCH, str(elsewhere)],
                           capture_output=True, cwd=paths.ROOT)
    assert child.returncode == -signal.SIGKILL
    names = {path.name for path in forgery.kept_files(elsewhere)}
    assert SMALL.filename not in names and len(names) == 2  # one epoch's weights and history
    whole, history = networks.load_or_train(SMALL)
    elsewhere.rename(tmp_path / "again")
    paths.MADE = tmp_path / "again"  # the fixture's monkeypatch puts it back
    resumed, resumed_history = networks.load_or_train(SMALL)
    assert _same(whole, resumed)
    assert resumed_history == history and len(history["loss"]) == SMALL.epochs
    assert not list(paths.MADE.rglob("*partial*"))


def test_a_finished_network_is_loaded_not_trained(made, monkeypatch):
    first, history = networks.load_or_train(SMALL)
    monkeypatch.setattr(training, "_train", None)
    second, again = networks.load_or_train(SMALL)
    assert _same(first, second) and again == history
    record = store.read_record(paths.place(made, SMALL.filename))
    assert record["parameters"] == networks.as_json(SMALL)
    assert record["accuracies"]["test"]["n"] == 10000
    assert {"history", "seconds", "versions", "data_sha256", "sha256"} <= record.keys()
    model, recipe, _ = networks.read_network(paths.place(made, SMALL.filename))
    assert recipe == SMALL and _same(model, first)
    path = paths.place(made, SMALL.filename)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=SMALL.filename):
        networks.load_or_train(SMALL)


def test_a_damaged_interrupted_training_is_refused_and_named(made):
    weights, history = training._partial_paths(paths.place(made, SMALL.filename))
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"half")
    history.write_text('{"started": 0, "seconds": 1, "history": {"loss": []}}')
    with pytest.raises(ValueError, match=weights.name):
        networks.load_or_train(SMALL)
    history.write_text('{"started"')
    with pytest.raises(ValueError, match=history.name):
        networks.load_or_train(SMALL)


def test_every_field_of_a_recipe_changes_the_name():
    other = {"dataset": "cifar10", "architecture": "resnet", "arguments": (("width", 2.0),),
             "epochs": 9, "batch_size": 64, "learning_rate": 0.01, "schedule": "constant",
             "warmup_epochs": 0, "shift": 3, "flip": False, "weight_decay": 0.1,
             "validation_share": 0.1, "train_size": 400, "seed": 1, "eps": 0.1, "nb_iter": 2,
             "qualities": (50,),
             "optimizer": "adam", "label_noise": 0.1}
    assert other.keys() == {field.name for field in dataclasses.fields(Recipe)}
    plain, robust = SMALL, dataclasses.replace(SMALL, eps=0.2)  # nb_iter is of adversarial training
    names = {dataclasses.replace(robust if key == "nb_iter" else plain, **{key: value}).filename
             for key, value in other.items()}
    assert len(names | {plain.filename, robust.filename}) == len(other) + 2
    assert not {"eps", "nb_iter", "qualities"} & networks.as_json(plain).keys()


def test_training_on_jpeg_images_shows_jpeg_images(made):
    recipe = dataclasses.replace(SMALL, qualities=(5, 95), shift=0, flip=False)
    x, y = datasets.load("mnist").x_train[:200], datasets.load("mnist").y_train[:200]
    batch = batches.Batches(x, y, dataclasses.replace(recipe, batch_size=200), 0)
    shown, labels = batch[0]
    versions = [jpeg.compress(x[batch.order], q) for q in (5, 95)]
    drawn = np.stack([(shown == version).all(axis=(1, 2, 3)) for version in versions])
    assert drawn.any(axis=0).all() and 60 < drawn[0].sum() < 140
    assert np.array_equal(labels, y[batch.order]) and np.array_equal(shown, batch[0][0])
    networks.load_or_train(recipe)
    _, read, _ = networks.read_network(paths.place(paths.MADE, recipe.filename))
    assert read == recipe and "-jpeg-" in recipe.filename and recipe.model == "lenet-jpeg"
    assert training.recipe_of("mnist", "lenet-jpeg", 0) == networks.VACCINATED["mnist", "lenet"]


def test_names_of_networks_and_of_kinds():
    for kind, known in networks.KINDS.items():
        for (dataset, _), recipe in known.items():
            assert training.recipe_of(dataset, recipe.model, 0).architecture == recipe.architecture
    for model in ("lenet-foo", "vgg", "resnet-jpeg"):
        with pytest.raises(ValueError, match=f"no recipe of {model} on mnist"):
            training.recipe_of("mnist", model, 0)
    with pytest.raises(ValueError, match="kind must be one of natural, adversarial, jpeg, got 'adv'"):
        networks.recipes_for(kind="adv")


def test_adversarial_training_shows_what_it_says(made):
    recipe = dataclasses.replace(SMALL, epochs=2, warmup_epochs=1, eps=0.2)
    x = np.random.default_rng(0).random((40, 28, 28, 1), np.float32)
    y = np.arange(40) % 10
    model, history = networks.load_or_train(recipe)
    for steps, radius in ((1, 0.6), (3, 0.2)):
        for epoch, share in ((0, 0.0), (1, 1.0)):
            batch = batches.Batches(x, y, dataclasses.replace(recipe, shift=0, flip=False, nb_iter=steps),
                                    epoch)
            x_adv, labels = adversarial.batch(model, batch, 0)
            delta = x_adv.numpy() - x[batch.order]
            assert np.array_equal(labels, y[batch.order])
            assert np.abs(delta).max() <= radius * share + 1e-6
            assert np.abs(delta).max() >= 0.9 * 0.2 * share
            assert x_adv.numpy().min() >= 0 and x_adv.numpy().max() <= 1
            assert np.array_equal(x_adv, adversarial.batch(model, batch, 0)[0])
    assert len(history["val_robust_accuracy"]) == len(history["loss"]) == 2
    assert "-adv-" in recipe.filename and recipe.model == "lenet-adv"
    assert training.recipe_of("mnist", "lenet-adv", 0) == networks.ADVERSARIAL["mnist", "lenet"]


@pytest.mark.parametrize("key", networks.ADVERSARIAL, ids="-".join)
def test_shipped_adversarial_networks_resist_as_promised(key):
    promised, eps = {("mnist", "lenet"): (0.85, 0.3), ("cifar10", "resnet"): (0.30, 8 / 255)}[key]
    recipe = networks.ADVERSARIAL[key]
    model, read, record = networks.read_network(paths.place(paths.SHIPPED, recipe.filename))
    assert read == recipe and recipe.eps == eps
    history = record["history"]["val_robust_accuracy"]
    assert max(history) - history[-1] < 0.05  # no catastrophic overfitting
    x, y = (part[:100] for part in (datasets.load(recipe.dataset).x_test,
                                    datasets.load(recipe.dataset).y_test))
    x_adv = attacks.pgd(model, x, y, eps=eps, eps_iter=eps / 4, nb_iter=20, loss="margin")
    correct = accuracy.predict(model, x_adv).argmax(axis=1) == y
    assert intervals.interval(correct.sum(), 100)[1] > promised


@pytest.mark.parametrize("field, value", [
    ("dataset", "fashion"), ("architecture", "vgg"), ("schedule", "steps"), ("epochs", -1),
    ("epochs", 1.5), ("batch_size", 0), ("learning_rate", 0.0), ("weight_decay", -1.0),
    ("validation_share", 0.0), ("train_size", 5), ("seed", -1), ("shift", -1), ("eps", -0.1), ("eps", 1.0),
    ("nb_iter", 0)])
def test_bad_recipes_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} must .*{value}"):
        dataclasses.replace(SMALL, **{field: value})


def test_more_training_images_than_there_are():
    with pytest.raises(ValueError, match="train_size must be at most 60000.*got 70000"):
        networks.load_or_train(dataclasses.replace(SMALL, train_size=70000))


def test_the_split_holds_out_each_class_and_nothing_twice():
    y = np.repeat(np.arange(10), 50)
    train, validation = batches.split(y, 0.1, seed=0)
    assert np.bincount(y[validation]).tolist() == [5] * 10
    assert sorted([*train, *validation]) == list(range(500))
    assert not np.array_equal(validation, batches.split(y, 0.1, seed=1)[1])


def test_augmentation_shifts_and_mirrors():
    x = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
    assert np.array_equal(batches.augment(x, np.random.default_rng(0), shift=0, flip=False), x)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    candidates = np.stack([view for top in range(5) for left in range(5) for view in
                           (padded[:, top:top + 8, left:left + 8],
                            padded[:, top:top + 8, left:left + 8][:, :, ::-1])])
    moved = batches.augment(x, np.random.default_rng(0), shift=2, flip=True)
    hits = (candidates == moved).all(axis=(2, 3, 4))
    assert hits.any(axis=0).all() and not np.array_equal(moved, x)
    assert len(set(hits.argmax(axis=0))) > 5  # images move independently


@pytest.mark.parametrize("key", networks.RECIPES, ids="-".join)
def test_shipped_networks_are_as_good_as_promised(key):
    promised = {("mnist", "lenet"): 0.990, ("mnist", "resnet"): 0.994,
                ("cifar10", "lenet"): 0.68, ("cifar10", "resnet"): 0.905}[key]
    recipe = networks.RECIPES[key]
    path = paths.place(paths.SHIPPED, recipe.filename)
    model, read, record = networks.read_network(path)
    assert read == recipe and store.file_sha256(path) == record["sha256"]
    test = record["accuracies"]["test"]
    assert test["n"] == 10000 and test["correct"] / 10000 >= promised
    data = datasets.load(recipe.dataset)
    correct = accuracy.predict(model, data.x_test[:500]).argmax(1) == data.y_test[:500]
    low, high = intervals.interval(correct.sum(), 500)
    assert low - 0.01 <= test["correct"] / 10000 <= high + 0.01


PLAIN = Recipe("mnist", "lenet", epochs=4, train_size=300, optimizer="adam", learning_rate=1e-3,
               schedule="constant", label_noise=0.2)


def test_a_trajectory_passes_the_networks_of_shorter_recipes(made, monkeypatch):
    shorter = dataclasses.replace(PLAIN, epochs=2)
    alone, _ = networks.load_or_train(shorter)
    for path in forgery.kept_files(made):
        path.unlink()
    passed = {epoch: model.get_weights() for epoch, model in networks.trajectory(PLAIN, [4, 2])}
    assert list(passed) == [2, 4]
    assert all(np.array_equal(a, b) for a, b in zip(passed[2], alone.get_weights(), strict=True))
    names = {path.name for path in forgery.kept_files(made)}
    assert names == {name + end for name in (shorter.filename, PLAIN.filename) for end in ("", ".json")}
    monkeypatch.setattr(training, "_run", None)  # now nothing is trained
    again = {epoch: model.get_weights() for epoch, model in networks.trajectory(PLAIN, [2, 4])}
    assert all(np.array_equal(a, b) for epoch in (2, 4)
               for a, b in zip(passed[epoch], again[epoch], strict=True))


def test_a_trajectory_goes_on_where_it_was_left(made, monkeypatch):
    whole = [model.get_weights() for _, model in networks.trajectory(PLAIN, [1, 3, 4])]
    for path in forgery.kept_files(made):
        path.unlink()
    for epoch, _ in networks.trajectory(PLAIN, [1, 3, 4]):
        if epoch == 3:
            break
    assert sum("partial" in path.name for path in forgery.kept_files(made)) == 2
    trained, train = [], training._train_epoch
    monkeypatch.setattr(training, "_train_epoch", lambda model, epoch, *more: (
        trained.append(epoch.epoch), train(model, epoch, *more)))
    again = [(epoch, model.get_weights()) for epoch, model in networks.trajectory(PLAIN, [1, 3, 4])]
    assert [epoch for epoch, _ in again] == [1, 3, 4] and trained == [3]  # the fourth epoch alone
    for old, (_, new) in zip(whole, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("more, epochs, message", [
    ({}, [0], r"epochs must be in 1\.\.4, got \[0\]"), ({}, [5], r"epochs must be in 1\.\.4"),
    ({}, [], "epochs must"),
    ({"schedule": "cosine"}, [1], "constant schedule"), ({"eps": 0.1}, [1], "natural training")])
def test_a_trajectory_that_is_none_is_refused(more, epochs, message):
    with pytest.raises(ValueError, match=message):
        next(networks.trajectory(dataclasses.replace(PLAIN, **more), epochs))


def test_wrong_labels_are_as_many_as_asked_for_and_other_ones():
    (x, told), (_, held), (_, test), _ = networks.images(PLAIN)
    plain = networks.images(dataclasses.replace(PLAIN, label_noise=0.0))
    (same, true), (_, held_true), (_, test_true), _ = plain
    assert np.array_equal(x, same)
    assert np.sum(told != true) == round(0.2 * len(true)) and set(told) == set(range(10))
    assert np.array_equal(held, held_true) and np.array_equal(test, test_true)  # what is measured is right
    assert np.array_equal(told, networks.images(PLAIN)[0][1])
    other = networks.images(dataclasses.replace(PLAIN, seed=1))[0][1]
    assert not np.array_equal(np.flatnonzero(told != true)[:20], np.flatnonzero(other != true)[:20])
    moved = (told - true)[told != true] % 10
    assert (np.bincount(moved, minlength=10)[1:] > 0).all()


@pytest.mark.parametrize("more, message", [
    ({"optimizer": "rprop"}, "optimizer must be one of sgd, adam, got 'rprop'"),
    ({"label_noise": 1.0}, r"label_noise must be in \[0, 1\), got 1.0"),
    ({"label_noise": -0.1}, "label_noise must be")])
def test_bad_optimizers_and_noise(more, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAIN, **more)


def test_a_recipe_survives_json():
    for recipe in (PLAIN, *networks.RECIPES.values(), *networks.VACCINATED.values()):
        assert networks.from_json(networks.as_json(recipe)) == recipe
    assert not {"optimizer", "label_noise"} & networks.as_json(SMALL).keys()  # names of what ships stay


def test_any_checkpoint_can_be_read(made, tmp_path):
    model, _ = networks.load_or_train(SMALL)
    read, name = networks.read_checkpoint(str(paths.place(made, SMALL.filename)))
    assert name == "mnist" and _same(model, read)
    with pytest.raises(ValueError, match="there is no network at .*none.keras"):
        networks.read_checkpoint(tmp_path / "none.keras")
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bad.keras is damaged") as caught:
        networks.read_checkpoint(tmp_path / "bad.keras")
    assert "elete" not in str(caught.value)  # it is the user's
    models.ARCHITECTURES["lenet"]((20, 20, 1)).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other.keras takes images of shape \(20, 20, 1\)"):
        networks.read_checkpoint(tmp_path / "other.keras")


TINY = Recipe("mnist", "lenet", epochs=1, train_size=200, shift=1, flip=True, label_noise=0.1)
KINDS = {"natural": TINY, "adam": dataclasses.replace(TINY, optimizer="adam", learning_rate=1e-3),
         "adversarial": dataclasses.replace(TINY, eps=0.2, nb_iter=2, warmup_epochs=0),
         "jpeg": dataclasses.replace(TINY, qualities=(20, 80))}


def _trained(recipe):
    """Return the weights of a recipe as trained now, as bytes."""
    shutil.rmtree(paths.MADE, ignore_errors=True)
    return b"".join(part.tobytes() for part in networks.load_or_train(recipe)[0].get_weights())


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_decides_the_weights_whatever_else_draws(made, kind):
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tobytes()
    first, stop = _trained(KINDS[kind]), threading.Event()

    def draw():  # as a background thread of Dask's does
        while not stop.is_set():
            random.random(), np.random.random(3)
            stop.wait(1e-5)
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert {_trained(KINDS[kind]) for _ in range(3)} == {first}
    finally:
        stop.set()
        thread.join()
    assert _trained(dataclasses.replace(KINDS[kind], seed=1)) != first
    assert before[1] != np.random.get_state()[1].tobytes()  # the thread did draw


def test_training_draws_from_no_global_generator(made):
    random.seed(2)
    np.random.seed(2)
    before = np.random.get_state()[1].tobytes()
    _trained(KINDS["natural"])
    assert np.random.get_state()[1].tobytes() == before


@pytest.mark.parametrize("field, value, message", [
    ("arguments", (("seed", 3),), "arguments of lenet must be extra_layers, width, each once, got 'seed'"),
    ("arguments", (("num_classes", 3),), "got 'num_classes'"), ("arguments", (("depth", 8),), "got 'depth'"),
    ("arguments", (("width", 1.0), ("width", 2.0)), "each once, got 'width'"),
    ("seed", 2**32, "seed must be an integer in 0..4294967295"), ("seed", True, "seed must"),
    ("learning_rate", float("inf"), "learning_rate must be positive, got inf"),
    ("learning_rate", "0.1", "learning_rate must be positive, got '0.1'"),
    ("eps", float("nan"), "eps must"), ("weight_decay", True, "weight_decay must"), ("flip", 1, "flip must")])
def test_what_would_be_drawn_without_a_seed_or_is_no_number_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **{field: value})


def test_a_validation_share_that_leaves_nothing_is_refused(made):
    with pytest.raises(ValueError, match="validation_share must leave images"):
        networks.load_or_train(dataclasses.replace(SMALL, validation_share=0.999))


def test_what_an_interrupted_training_left_goes_when_its_network_is_there(made):
    """Killed between keeping the network and clearing up."""
    networks.load_or_train(TINY)
    for path in training._partial_paths(paths.place(made, TINY.filename)):
        path.write_bytes(b"half")
    networks.load_or_train(TINY)
    assert not list(made.rglob("*partial*"))


def test_a_trajectory_trains_nothing_beyond_what_is_missing(made, monkeypatch):
    networks.load_or_train(dataclasses.replace(PLAIN, epochs=3))
    trained, train = [], training._train_epoch
    monkeypatch.setattr(training, "_train_epoch", lambda model, epoch, *more: (
        trained.append(epoch.epoch), train(model, epoch, *more)))
    assert [epoch for epoch, _ in networks.trajectory(PLAIN, [1, 3])] == [1, 3]
    assert trained == [0] and not list(made.rglob("*partial*"))


@pytest.mark.parametrize("field, value", [
    ("history", None), ("history", []), ("history", {"loss": 3}), ("history", {"loss": [1], "accuracy": []}),
    ("history", {"loss": ["1"]}), ("accuracies", None), ("accuracies", {"test": {"n": 1, "correct": 1}}),
    ("accuracies", {name: {"n": 1, "correct": 2} for name in ("validation", "test")}), ("parameters", {}),
    ("parameters", {"dataset": "mnist", "architecture": "lenet", "arguments": [], "width": 3})])
def test_a_networks_record_that_is_none_is_refused_by_name(lenet, field, value):
    path = paths.place(paths.SHIPPED, networks.RECIPES["mnist", "lenet"].filename)
    record = json.loads(store.record_path(path).read_text())
    for content in ({**record, field: value}, {key: record[key] for key in record if key != field}):
        store.record_path(path).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"record of .*{path.name} is damaged"):
            networks.read_network(path)


def test_all_networks_that_ship_have_sound_records():
    shipped = list(paths.SHIPPED.rglob("network-*.keras"))
    assert len(shipped) > 10
    for path in shipped:
        record = store.read_record(path)
        training._check_record(path, record)
        assert path.name == networks.from_json(record["parameters"]).filename


@pytest.mark.parametrize("text", ["[]", "{}", '{"started": "x", "seconds": 1, "history": {"loss": []}}',
                                  '{"started": 1, "seconds": 1, "history": {"loss": 1}}'])
def test_a_history_that_is_none_is_refused_by_name(made, text):
    weights, history = training._partial_paths(paths.place(made, TINY.filename))
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"half")
    history.write_text(text)
    with pytest.raises(ValueError, match=f"{history.name} is damaged.*Delete it"):
        networks.load_or_train(TINY)
