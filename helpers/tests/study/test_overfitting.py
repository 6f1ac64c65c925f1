"""The study of over-fitting: what it measures is right, and sees masking where there is masking."""
import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from distributed import Client, LocalCluster

from helpers import datasets, networks, saliency
from helpers.artifacts import paths, store, sweeps
from helpers.attacks import gradients
from helpers.study import accuracy, overfitting
from helpers.tests import forgery

SIZES = {"n": 20, "n_distance": 3}
SETTINGS = {"settings": store.as_kept(overfitting.SETTINGS)}


def test_checkpoints_of_one_run_are_measured_by_themselves(made):
    recipe = overfitting.recipe(0, epochs=2, label_noise=0.2, train_size=300)
    found = overfitting.measure_run(networks.as_json(recipe), [1, 2], **SIZES, **SETTINGS)
    data = datasets.load("mnist")
    x, y = data.x_test[:20], data.y_test[:20]
    for k, epochs in enumerate((1, 2)):
        model, _ = networks.load_or_train(overfitting.recipe(0, epochs=epochs, label_noise=0.2,
                                                             train_size=300))
        logits = accuracy.predict(model, data.x_test)
        np.testing.assert_allclose(found["test_accuracy"][k], np.mean(logits.argmax(axis=1) == data.y_test),
                                   atol=2e-4)
        loss = keras.losses.sparse_categorical_crossentropy(data.y_test, logits, from_logits=True)
        np.testing.assert_allclose(found["test_loss"][k], np.mean(loss), rtol=1e-3)
        (seen, told), *_ = networks.images(recipe)
        np.testing.assert_allclose(found["train_accuracy"][k],
                                   np.mean(accuracy.predict(model, seen).argmax(axis=1) == told))
        with tf.GradientTape() as tape:  # FGSM by hand, from the probabilities
            images = tf.constant(x)
            tape.watch(images)
            p = tf.clip_by_value(tf.nn.softmax(model(images)), 1e-7, 1 - 1e-7)
            value = -tf.math.log(tf.gather(p / tf.reduce_sum(p, axis=1, keepdims=True), y, axis=1,
                                           batch_dims=1))
        step = np.sign(tape.gradient(value, images))
        for e in (2, 5):
            by_hand = accuracy.predict(model,
                                       np.clip(x + overfitting.EPS[e] * step, 0, 1)).argmax(axis=1) == y
            assert np.mean(found["right"][k, 0, e] == by_hand) >= 0.95
        clean = accuracy.predict(model, x).argmax(axis=1) == y
        assert (found["right"][k, :, 0] == clean).all()
        assert ((found["l2"][k] == 0) == ~clean[:3]).all() and np.isfinite(found["l2"][k]).all()
        assert (np.diff(found["right"][k, -1].astype(int), axis=0) <= 0).all()  # PGD's balls are nested
        np.testing.assert_allclose(found["profile"][k, 0, 0],
                                   gradients.margins(accuracy.predict(model, x[:3]), y[:3]),
                                   rtol=1e-3, atol=1e-4)


def test_large_margins_mask_fgsm_and_nothing_else(lenet):
    """Logits × 30: the same classifier, whose gradients of the cross-entropy are lost."""
    masked = saliency.randomised(lenet, 0)  # an equal copy
    last = masked.get_layer("logits")
    last.set_weights([30 * weights for weights in last.get_weights()])
    plain, hidden = (overfitting._attacked(overfitting.recipe(0), model, 60) for model in (lenet, masked))
    at = overfitting.EPS.index(0.2)
    share = lambda found, search: np.mean(found["right"][overfitting.SEARCHES.index(search)][at])
    assert np.mean(hidden["zero"][1]) > 0.9 > 0.5 > np.mean(plain["zero"][1])
    assert share(hidden, "probabilities") > 0.9
    for search in ("margin", "tempered", "float64", "pgd_margin"):
        assert abs(share(hidden, search) - share(plain, search)) < 0.15, search
    near = [overfitting._near(overfitting.recipe(0), model, 4) for model in (lenet, masked)]
    np.testing.assert_allclose(near[0]["l2"], near[1]["l2"], rtol=0.1)
    np.testing.assert_allclose(np.array(near[1]["profile"])[0], 30 * np.array(near[0]["profile"])[0],
                               rtol=1e-2, atol=1e-2)


@pytest.fixture
def in_process(made, monkeypatch):
    """Sweeps run in a thread of this process: a worker of its own would write to the project's own data."""
    @contextlib.contextmanager
    def client(*_):
        with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
                          silence_logs="ERROR") as cluster, Client(cluster, set_as_default=False) as client:
            yield client
    monkeypatch.setattr(sweeps, "_client", client)


def test_a_study_joins_its_runs_in_order(made, in_process):
    parts = {("epochs", 0.0): [1, 2, 3], ("layers", 0.2): [0, 1, 2]}
    found = overfitting.studies(parts, seeds=range(2), epochs=1, train_size=200, workers=1, **SIZES)
    assert list(found) == list(parts)
    epochs, layers = found.values()
    assert epochs["value"].tolist() == [1, 2, 3] and epochs["right"].shape == (3, 2, 6, 13, 20)
    assert layers["parameters"][2, 0] - layers["parameters"][0, 0] == 2 * (84 * 84 + 84)
    run = {"recipe": networks.as_json(overfitting.recipe(1, epochs=3, train_size=200)), "epochs": [1, 2, 3],
           **SIZES, **SETTINGS}
    one = store.cached("overfitting_run", run, None)  # of the second seed, as the worker sent it
    for name in ("test_loss", "l2", "right"):
        assert np.array_equal(epochs[name][:, 1], one[name])
    deep = {"recipe": networks.as_json(overfitting.recipe(0, epochs=1, extra_layers=2, label_noise=0.2,
                                                          train_size=200)),
            "epochs": [1], **SIZES, **SETTINGS}
    assert np.array_equal(layers["profile"][2, 0], store.cached("overfitting_run", deep, None)["profile"][0])
    kept = {path.name for path in forgery.kept_files(made)}
    again = overfitting.studies(parts, seeds=range(2), epochs=1, train_size=200, workers=1, **SIZES)
    assert {path.name for path in forgery.kept_files(made)} == kept and np.array_equal(
        again["epochs", 0.0]["l2"], epochs["l2"])
    with pytest.raises(ValueError, match="axis must be one of epochs, layers, width, got 'depth'"):
        overfitting.studies({("depth", 0.0): None}, seeds=range(2))


@pytest.mark.parametrize("axis, values, message", [
    ("epochs", [0, 1, 2],
     r"epochs must be a list of 3 or more that increase, each an integer in 1..1000, got \[0, 1, 2\]"),
    ("epochs", [], r"epochs must be a list of 3 or more .*got \[\]"),
    ("epochs", 3, "epochs must be a list .*got 3"),
    ("epochs", [1, 1.5, 2], "epochs must be a list"), ("epochs", [True, 2, 3], r"got \[True, 2, 3\]"),
    ("layers", [2, 0, 4], "layers must be a list of 3 or more that increase, each an integer in 0..100"),
    ("layers", [0, 2, 100_000], "in 0..100, got"), ("layers", [0, 2, 2, 4], "layers must be a list"),
    ("width", [1.0, 2], r"width must be a list .*each a number in \[0.05, 16\], got \[1.0, 2\]"),
    ("width", [-1, 1, 2], "width must be a list"), ("width", [1, 2, float("nan")], "width must be"),
    ("width", [1, 2, float("inf")], "width must be"),
    ("depth", [1, 2, 3], "axis must be one of epochs, layers, width")])
def test_values_that_are_none_of_an_axis(axis, values, message, made):
    for refused in (lambda: overfitting.studies({(axis, 0.0): values}, seeds=range(2)),
                    lambda: overfitting.study({axis: values})):  # an empty list is not the default
        with pytest.raises(ValueError, match=message):
            refused()
    assert not made.exists() or not list(forgery.kept_files(made))


@pytest.mark.parametrize("given, message", [
    ({"n_seeds": 0}, "n_seeds must be None or an integer in 1..1000, got 0"),
    ({"n_seeds": True}, "n_seeds must be"),
    ({"n": 10_001}, "n must be an integer in 1..10000, got 10001"),
    ({"n_distance": 0}, "n_distance must be an integer"),
    ({"n": 20, "n_distance": 21}, "n_distance must be an integer in 1..20, got 21"),
    ({"epochs": 0}, "epochs must be")])
def test_sizes_of_a_study_that_are_none(given, message, made):
    with pytest.raises(ValueError, match=message):
        overfitting.study(**given)
    for seeds in ([], [1, 0], [0, 0], [-1], [0.5]):
        with pytest.raises(ValueError, match="seeds must be a list of 1 or more that increase"):
            overfitting.studies({("epochs", 0.0): None}, seeds=seeds)


def test_the_values_of_the_study_are_allowed():
    for axis, values in overfitting.AXES.items():
        assert overfitting._checked(axis, None) == overfitting._checked(axis, list(values)) == values


def test_losses_of_attacks_that_are_mistaken_and_mended():
    z = np.float32([[30, 0, 0], [2, 1, 0], [-5, 3, 0]])
    y = np.array([0, 0, 0])
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = np.clip(p / p.sum(axis=1, keepdims=True), 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(gradients.of_probabilities(y, tf.constant(z)),
                               -np.log(p[:, 0] / p.sum(axis=1)), atol=1e-6)
    with tf.GradientTape(persistent=True) as tape:
        logits = tf.constant(z)
        tape.watch(logits)
        flat, mended = gradients.of_probabilities(y, logits), gradients.tempered(y, logits)
    assert not np.any(tape.gradient(flat, logits)[0]) and np.any(tape.gradient(flat, logits)[1])
    assert np.abs(tape.gradient(mended, logits)[0]).max() > 1e-3
    F = np.array([30, 1, -8.0])
    cooled = z / np.maximum(np.abs(F), 1)[:, None]
    np.testing.assert_allclose(mended, np.log(np.exp(cooled).sum(axis=1)) - cooled[:, 0], rtol=1e-5)


@pytest.fixture(scope="module")
def run():
    """A shipped run of several epochs, on all its images: (parameters, arrays)."""
    for path in sorted(paths.SHIPPED.rglob("overfitting_run-*.npz")):
        parameters = store.read_record(path)["parameters"]
        if len(parameters["epochs"]) > 1:
            return parameters, store.read(path)


def test_every_shipped_run_agrees_with_itself():
    runs = sorted(paths.SHIPPED.rglob("overfitting_run-*.npz"))
    for path in np.random.default_rng().permutation(runs)[:20]:
        overfitting.prove_run(store.read_record(path)["parameters"], store.read(path))


@pytest.mark.parametrize("forged", [
    {"l2": lambda l2: 3 * l2}, {"l2": lambda l2: l2 / 3}, {"l2": lambda l2: 0 * l2},
    {"l2": lambda l2: np.where(l2 > 0, np.inf, l2)},
    {"right": np.ones_like}, {"right": lambda right: right[:, ::-1]},
    {"right": lambda right: right[:, :, ::-1]},
    {"test_accuracy": lambda part: 0 * part + 0.5}, {"test_accuracy": lambda part: part + 0.2},
    {"train_accuracy": lambda part: 0 * part + 0.3}, {"test_loss": lambda part: 0 * part},
    {"test_margin": lambda part: part[:, ::-1]}, {"test_margin": lambda part: part - 100},
    {"zero": np.ones_like},
    {"profile": lambda part: 2 * part}, {"profile": lambda part: part[..., ::-1, :]},
    {"slope": lambda part: part[:, ::-1]},
    {"slope": lambda part: 10 * part}, {"epoch": lambda part: part + 1},
    {"right": lambda right: right[..., :5]}])
def test_forged_figures_of_a_run_are_refused(run, forged):
    parameters, kept = run
    refused = pytest.raises(ValueError, match="figures of a run of .* are not those")
    with np.errstate(invalid="ignore"), refused:
        overfitting.prove_run(parameters,
                              kept | {name: change(kept[name]) for name, change in forged.items()})


def test_a_forged_run_or_part_is_refused_when_it_is_loaded(made):
    parts = {("layers", 0.0): [0, 1, 2]}
    given = {"seeds": range(1), "epochs": 1, "train_size": 200, "workers": 1, **SIZES}
    first = overfitting.studies(parts, **given)
    whole, = made.rglob("overfitting-*.npz")
    record, kept = store.read_record(whole), store.read(whole)
    store.write(whole, lambda partial: np.savez(partial, **kept | {"test_loss": kept["test_loss"] + 1}),
                record["parameters"], 1.0)
    with pytest.raises(ValueError, match="kept study of"):
        overfitting.studies(parts, **given)
    whole.unlink(), store.record_path(whole).unlink()
    overfitting.studies(parts, **given)  # joined again, from the runs
    whole.unlink(), store.record_path(whole).unlink()
    path = sorted(made.rglob("overfitting_run-*.npz"))[0]
    record, kept = store.read_record(path), store.read(path)
    store.write(path, lambda partial: np.savez(partial, **kept | {"right": np.ones_like(kept["right"])}),
                record["parameters"], 1.0)
    with pytest.raises(ValueError, match="figures of a run of"):
        overfitting.studies(parts, **given)
    assert first


def test_fewer_images_of_a_run_are_the_first_of_those_kept(made):
    parts, given = {("layers", 0.0): [0, 1, 2]}, {"seeds": range(1), "epochs": 1, "train_size": 200,
                                                  "workers": 1, "n_distance": 2}
    many = overfitting.studies(parts, n=20, **given)["layers", 0.0]
    count = len(list(made.rglob("overfitting_run-*.npz")))
    few = overfitting.studies(parts, n=7, **given)["layers", 0.0]
    assert len(list(made.rglob("overfitting_run-*.npz"))) == count  # nothing was trained
    assert np.array_equal(few["right"], many["right"][..., :7]) and np.array_equal(few["l2"], many["l2"])


def test_a_worker_with_other_settings_says_so():
    recipe = networks.as_json(overfitting.recipe(0, epochs=1, train_size=200))
    with pytest.raises(ValueError, match="settings must be this code's"):
        overfitting.measure_run(recipe, [1], 20, 3, {**SETTINGS["settings"], "eps": [0, 0.1]})


def test_verify_trains_the_first_epoch_of_a_run_again(made, monkeypatch):
    monkeypatch.setattr(overfitting, "EPOCHS", (1, 2))
    recipe = overfitting.recipe(1, epochs=2)
    monkeypatch.setattr(networks, "images", lambda recipe, own=networks.images: _few(own(recipe)))
    parameters = {"recipe": networks.as_json(recipe), "epochs": [1, 2], **SIZES, **SETTINGS}
    kept = overfitting.measure_run(**parameters)
    outcomes = list(overfitting.recompute_overfitting_run(parameters, kept, np.random.default_rng(0)))
    assert all(agrees for *_, agrees in outcomes) and outcomes[-1][0] == "after an epoch, under attack"
    forged = kept | {"test_loss": kept["test_loss"] * 1.2, "train_margin": kept["train_margin"] * 1.5}
    assert not all(agrees for *_, agrees in overfitting.recompute_overfitting_run(parameters, forged,
                                                                                  np.random.default_rng(0)))
    other = parameters | {"recipe": networks.as_json(overfitting.recipe(0, epochs=2))}
    *_, last = overfitting.recompute_overfitting_run(other, kept, np.random.default_rng(0))
    assert last[-1] is None and "does not ship" in last[2]


def _few(images):
    (x, y), *rest = images
    return (x[:600], y[:600]), *rest
