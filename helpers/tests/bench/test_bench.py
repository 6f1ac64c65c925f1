"""The benchmark's statistics and book-keeping, without the peers (they have their own environment)."""
import random

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from helpers import attacks
from helpers.artifacts import store
from helpers.bench import measure, peers, table

CW = measure.Cell("mnist", "lenet", "carlini_wagner", 2.0, False)
FGSM = measure.Cell("mnist", "lenet", "fgsm", np.inf, False)


@pytest.fixture
def measured():
    """Made-up measurements of one cell: the peer's norms are ours plus 1 % and noise."""
    rng = np.random.default_rng(0)
    ours = rng.uniform(1, 2, 50)
    peer = ours * (1.01 + rng.normal(0, 0.002, 50))
    ours[3], peer[7] = np.nan, np.nan
    return {(CW, "ours", "compiled"): {"seconds": np.array([3.0, 1.0, 2.0]), "l2": ours,
                                       "bare_seconds": np.array([0.5, 1.5, 0.5, 1.5])},
            (CW, "foolbox", "compiled"): {"seconds": np.array([9.0]), "l2": peer,
                                          "ours_seconds": np.array([2.0, 4.0])},
            (CW, "art", "as shipped"): {"seconds": np.array([99.0]), "l2": np.full(2, np.nan)}}


def _value(rows, library, metric):
    return rows[(rows.library == library) & (rows.metric == metric)].squeeze()


def test_rows_by_hand(measured):
    rows = table.combine(measured)
    seconds = _value(rows, "ours", "seconds")
    assert (seconds.value, seconds.low, seconds.high) == (2, 1, 3)
    limit, slower = _value(rows, "ours", "limit"), _value(rows, "foolbox", "slower")
    assert (limit.value, limit.low, limit.high) == (2, 1, 3)  # each call over the mean of those around it
    assert slower.value == 3 and _value(rows, "ours", "slower").empty
    assert table.summary(rows).slower.dropna().tolist() == [3]
    assert _value(rows, "foolbox", "success").value == 49 / 50
    l2 = measured[CW, "ours", "compiled"]["l2"]
    assert _value(rows, "ours", "mean_l2").value == pytest.approx(np.delete(l2, 3).mean())
    assert _value(rows, "ours", "median_l2").value == pytest.approx(np.median(np.delete(l2, 3)))
    assert _value(rows, "art", "success").value == 0 and _value(rows, "art", "mean_l2").empty
    assert (rows.low <= rows.value).all() and (rows.value <= rows.high).all()


def test_the_difference_is_paired(measured):
    rows = table.combine(measured)
    row = _value(rows, "foolbox", "difference")
    ours, peer = (np.delete(measured[key]["l2"], [3, 7]) for key in list(measured)[:2])
    assert row.n == 48 and row.value == pytest.approx(100 * (ours.sum() - peer.sum()) / peer.sum())
    assert row.low < -0.99 < row.high and row.high - row.low < 0.2  # unpaired it would be 10 times wider
    assert _value(rows, "art", "difference").empty
    assert table.difference(np.ones(9), np.ones(2))[0]["value"] == 0


def test_a_single_image_has_no_interval(measured):
    measured[CW, "art", "as shipped"] |= {"l2": np.array([measured[CW, "ours", "compiled"]["l2"][0] * 2])}
    rows = table.combine(measured)
    row, mean = _value(rows, "art", "difference"), _value(rows, "art", "mean_l2")
    assert row.n == 1 and row.value == pytest.approx(-50)
    assert np.isnan([row.low, row.high, mean.low, mean.high]).all()
    assert _value(rows, "art", "success").low < 0.5 < _value(rows, "art", "success").high
    assert table.text(rows).splitlines()[-1].endswith("-50.00")


def test_every_cell_is_named_once_and_ours_comes_first():
    names = [table.name(cell, *peer) for cell in measure.CELLS for peer in measure.libraries(cell)]
    assert len(set(names)) == len(names)
    assert all(measure.libraries(cell)[0] == ("ours", "compiled") for cell in measure.CELLS)


def test_slow_peers_get_the_first_of_our_images():
    for cell in measure.CELLS:
        for n in (None, 1):
            ours, *others = [measure.parameters(cell, *peer, n)["n"] for peer in measure.libraries(cell)]
            assert all(1 <= other <= ours for other in others) and ours == (n or ours)
    resnet = CW._replace(dataset="cifar10", model="resnet")
    assert measure.parameters(resnet, "foolbox",
                              "compiled")["n"] < measure.parameters(resnet, "ours", "compiled")["n"]


def test_black_images_and_failures_have_no_distance():
    def model(x):  # says 1 for dark images, else 0
        dark = np.asarray(x).mean(axis=(1, 2, 3)) < 0.5
        return np.stack([~dark, dark], axis=1).astype(np.float32)
    x = np.full((5, 4, 4, 1), 0.6, np.float32)
    x_adv = x - np.float32([0.2, 0.6, 0.0, 0.0, 0.7]).reshape(-1, 1, 1, 1)
    x_adv[3, 0, 0, 0] = np.nan  # adversarial, black, unchanged, not a number, out of the box
    l2 = measure.achieved_distances(model, x, np.zeros(5, int), x_adv, targeted=False)
    assert l2[0] == pytest.approx(0.8) and np.isnan(l2[1:]).all()
    l2 = measure.achieved_distances(model, x, np.ones(5, int), x_adv, targeted=True)
    assert np.array_equal(np.isnan(l2), [False, True, True, True, True])


def test_an_interrupted_benchmark_goes_on_and_a_finished_one_is_read(made, monkeypatch):
    calls = []

    def stand_in(cell, library, variant, n, repeats):
        calls.append(library)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"seconds": np.ones(repeats), "l2": np.arange(1.0, n + 1)}
    monkeypatch.setattr(measure, "measure", stand_in)
    monkeypatch.setattr(measure, "prove_cell", lambda of, kept: None)
    monkeypatch.setattr(measure, "parameters", lambda cell, library, variant, n, repeats: {
        "cell": cell.name, "library": library, "variant": variant, "n": 4, "repeats": 1})
    with pytest.raises(KeyboardInterrupt):
        table.benchmark([FGSM])
    rows = table.benchmark([FGSM])
    assert len(calls) == len(measure.libraries(FGSM)) + 1
    pd.testing.assert_frame_equal(table.benchmark([FGSM]), rows)
    assert len(calls) == len(measure.libraries(FGSM)) + 1
    assert "foolbox as shipped" in table.text(rows)
    assert set(np.load(next(made.rglob("bench_l2-*.npz"))).files) == {
        table.name(FGSM, *peer) for peer in measure.libraries(FGSM)}


def test_what_takes_the_most_is_measured_last_and_listed_in_its_place(made, monkeypatch):
    called = []
    monkeypatch.setattr(measure, "measure", lambda cell, library, variant, n, repeats: (
        called.append((cell, library)), {"seconds": np.ones(1), "l2": np.ones(1)})[1])
    cells = [CW._replace(dataset="cifar10", model="resnet"), FGSM]
    rows = table.benchmark(cells)
    assert [measure.goes_last(*key) for key in called] == [False] * (len(called) - 1) + [True]
    assert rows.library[rows.attack == "carlini_wagner"].unique().tolist() == [
        "ours", "foolbox", "art", "cleverhans"]


@pytest.fixture
def run(made, lenet, monkeypatch):
    """A measurement of our FGSM on few images, as it is kept: (parameters, arrays)."""
    of = measure.parameters(FGSM, "ours", "compiled", 20, 2)
    model, x, y = measure.subject("mnist", "lenet", 20)
    x_adv = attacks.fgsm(model, x, y, eps=FGSM.settings["eps"])
    return of, {"seconds": np.array([1.1, 1.2]), "bare_seconds": np.ones(3), "passes": np.ones(1),
                "l2": measure.achieved_distances(model, x, y, x_adv, targeted=False)}


def _outcomes(of, kept):
    return [agrees for *_, agrees in measure.recompute_bench_run(of, kept, np.random.default_rng(0))]


def test_a_measurement_is_proved_by_our_attack_made_anew(run):
    of, kept = run
    measure.prove_cell(of, kept)
    # The last are seconds of another machine.
    assert _outcomes(of, kept)[:-1] == [True] * 7 and _outcomes(of, kept)[-1] is None
    peer = measure.parameters(FGSM, "cleverhans", "as shipped", 20, 2)
    kept = {"seconds": kept["seconds"], "l2": kept["l2"], "ours_seconds": kept["bare_seconds"]}
    measure.prove_cell(peer, kept)


@pytest.mark.parametrize("name, change", [
    ("seconds", lambda seconds: -seconds), ("seconds", lambda seconds: seconds / 10),
    ("seconds", lambda seconds: seconds * 10),
    ("seconds", lambda seconds: np.append(seconds, 1.0)), ("bare_seconds", lambda seconds: seconds * np.nan),
    ("passes", lambda passes: passes * 2), ("l2", lambda l2: l2 * 0.9), ("l2", lambda l2: l2 * 3),
    ("l2", lambda l2: l2 * 0),
    ("l2", lambda l2: l2 * np.nan), ("l2", lambda l2: np.where(np.isnan(l2), 4.0, l2))])
def test_a_forged_measurement_is_refused(run, name, change):
    of, kept = run
    with pytest.raises(ValueError, match="kept measurements of ours's fgsm on .* are not those that it "
                                         "computes"):
        measure.prove_cell(of, kept | {name: change(kept[name])})


def test_a_forged_table_is_refused(made, monkeypatch):
    monkeypatch.setattr(measure, "prove_cell", lambda of, kept: None)
    monkeypatch.setattr(measure, "measure", lambda cell, library, variant, n, repeats: {
        "seconds": np.ones(repeats), "l2": np.arange(1.0, n + 1)})
    monkeypatch.setattr(measure, "parameters", lambda cell, library, variant, n, repeats: {
        "cell": cell.name, "library": library, "variant": variant, "n": 4, "repeats": 1})
    rows = table.benchmark([FGSM])
    pd.testing.assert_frame_equal(table.benchmark([FGSM]), rows)
    path, = made.rglob("bench-*.csv")
    rows["value"] *= 2
    store.write(path, lambda partial: rows.to_csv(partial, index=False),
                store.read_record(path)["parameters"], 1.0)
    with pytest.raises(ValueError, match="is not that of its measurements"):
        table.benchmark([FGSM])


@pytest.fixture(scope="module")
def linear():
    """A linear network of two classes and its weights."""
    inputs = keras.Input((2, 2, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    w = np.random.default_rng(0).normal(0, 1, (12, 2)).astype(np.float32)
    model.set_weights([w, np.zeros(2, np.float32)])
    return model, w


def test_gradients_are_counted(linear):
    x, y = np.random.default_rng(1).random((20, 2, 2, 3), np.float32), np.zeros(20, int)
    settings = {"attack": "pgd", "norm": np.inf, "eps": 0.1, "eps_iter": 0.1, "nb_iter": 3,
                "batch_size": 32}
    assert measure.gradients_used(linear[0], x, y, False, settings) == 3 * 20


def test_the_patched_cleverhans_runs_on_a_linear_model(linear):
    model, w = linear
    x = np.random.default_rng(2).uniform(0.4, 0.6, (3, 2, 2, 3)).astype(np.float32)
    z = x.reshape(3, 12) @ w
    y, exact = z.argmax(axis=1), np.abs(z[:, 0] - z[:, 1]) / np.linalg.norm(w[:, 0] - w[:, 1])
    settings = {"attack": "carlini_wagner", "norm": 2.0, "learning_rate": 0.05, "confidence": 0.0,
                "binary_search_steps": 2, "max_iterations": 25, "initial_const": 2.0, "batch_size": 2}
    for targeted in (False, True):
        told = 1 - y if targeted else y
        x_adv = peers.cleverhans(model, x, told, targeted, settings)
        l2 = measure.achieved_distances(model, x, told, x_adv, targeted)
        assert (l2 >= exact - 1e-4).all() and l2.mean() < 1.5 * exact.mean()


def test_the_seeds_that_peers_need_are_put_back():
    def states():
        return random.getstate(), str(np.random.get_state()), tf.compat.v1.random.get_seed(None)[0]
    before, drawn = states(), []
    for _ in range(2):
        with measure.seeded(0):
            drawn.append((random.random(), np.random.random(), float(tf.random.uniform([]))))
    assert states() == before and drawn[0] == drawn[1]
