"""Answers to waves: kept, proved on loading, and the same behind the real codec as by hand."""
import itertools

import numpy as np
import pytest

from helpers import datasets, frequency, jpeg, networks
from helpers.artifacts import files, paths, store
from helpers.attacks import gradients
from helpers.study import overfitting
from helpers.study import waves

RECIPE = networks.RECIPES["mnist", "lenet"]


def _tamper(path, **changed):
    """Change arrays of a kept artifact, with a record that says so."""
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    np.savez(path, **(arrays | changed))
    record = store.read_record(path)
    files.write_json(store.record_path(path), record | {"sha256": store.file_sha256(path)})


def test_waves_are_the_describing_function(lenet):
    kept = waves.waves(RECIPE, n=2)
    data = datasets.load("mnist")
    sample, ring = frequency.ring_sample(28)
    assert np.array_equal(kept["frequency"], sample) and np.array_equal(kept["ring"], ring)
    found = frequency.describing_function(lenet, data.x_test[:2], data.y_test[:2],
                                          amplitudes=data.record.amplitudes, frequencies=sample)
    np.testing.assert_allclose(kept["gain"], found.gain, atol=1e-3)
    mean, _ = frequency.error_map(lenet, data.x_test[:2], data.y_test[:2],
                                  amplitudes=data.record.amplitudes, frequencies=sample)
    np.testing.assert_allclose(kept["wrong"] / 8, mean)
    every = frequency.half_plane(28)
    assert len(every) == 393 > len(sample)


def test_behind_jpeg_the_real_codec_answers(lenet):
    data = datasets.load("mnist")
    x, y = data.x_test[:2], data.y_test[:2]
    np.testing.assert_allclose(gradients.logits(waves.behind(lenet, 10), x),
                               gradients.logits(lenet, jpeg.compress(x, 10)),
                               atol=1e-4)
    assert waves.behind(lenet, 0) is lenet
    kept = waves.waves(RECIPE, n=2, quality=10)
    (u, v), amplitude = kept["frequency"][30], data.record.amplitudes[2]
    change = [gradients.logits(lenet, jpeg.compress(np.clip(
        x + amplitude * frequency.fourier_basis(28, u, v, phase)[..., None], 0, 1).astype(np.float32), 10))
        for phase in 2 * np.pi * np.arange(8) / 8]
    margins = np.stack([gradients.margin(y, z).numpy() for z in change], axis=1)
    by_hand = 2 / 8 / amplitude * (margins * np.exp(2j * np.pi * np.arange(8) / 8)).sum(axis=1)
    np.testing.assert_allclose(kept["gain"][:, 2, 30], by_hand, atol=5e-3)


RECOMPUTE = {"waves": waves.recompute_waves, "wave_errors": waves.recompute_wave_errors,
             "least_amplitude": waves.recompute_least_amplitude, "codec_waves": waves.recompute_codec_waves}


@pytest.mark.parametrize("kind, make, forge", [
    ("waves", lambda n: waves.waves(RECIPE, n=n), {"margin": np.zeros_like}),
    ("waves", lambda n: waves.waves(RECIPE, n=n), {"gain": lambda gain: 1.5 * gain}),
    ("waves", lambda n: waves.waves(RECIPE, n=n, quality=50),
     {"gain": lambda gain: 0 * gain, "wrong": np.zeros_like}),
    ("wave_errors", lambda n: waves.errors(RECIPE, n=n, amplitude=8.0), {"wrong": lambda wrong: 8 - wrong}),
    ("least_amplitude", lambda n: waves.least_amplitudes(RECIPE, n=n), {"l2": lambda l2: 3 * l2}),
    ("least_amplitude", lambda n: waves.least_amplitudes(RECIPE, n=n), {"l2": lambda l2: 0 * l2})])
def test_what_is_kept_is_proved_and_serves_fewer_images(lenet, made, kind, make, forge):
    many = make(3)
    few = make(2)
    path, = made.rglob("*.npz")  # nothing else was computed
    for name in few:
        cut = len(many[name]) == 3 and name not in ("ring", "frequency")
        expected = many[name][:2] if cut else many[name]
        assert np.array_equal(few[name], expected, equal_nan=few[name].dtype.kind in "fc")
    parameters, kept = store.read_record(path)["parameters"], store.read(path)
    outcomes = [agrees for *_, agrees in itertools.islice(
        RECOMPUTE[kind](parameters, kept, np.random.default_rng(0)), 5)]
    assert outcomes == [True] * 5
    _tamper(path, **{name: change(kept[name]) for name, change in forge.items()})
    with pytest.raises(ValueError, match="answers to waves of .* are not those that it computes"):
        make(3)


def test_all_that_decides_is_in_the_key(made, lenet, monkeypatch):
    waves.least_amplitudes(RECIPE, n=1)
    monkeypatch.setitem(waves.SEARCH, "halvings", 2)
    waves.least_amplitudes(RECIPE, n=1)
    monkeypatch.setitem(datasets.RECORDS, "mnist", datasets.record("mnist")._replace(largest_amplitude=4.0))
    waves.least_amplitudes(RECIPE, n=1)
    assert len(list(made.rglob("least_amplitude-*.npz"))) == 3


def test_seeds_are_each_network_s_own_gain(made, lenet):
    recipes = [overfitting.recipe(seed, epochs=1, train_size=200) for seed in (0, 1)]
    kept = waves.seeds(recipes, n=20)
    data = datasets.load("mnist")
    for row, recipe in zip(kept["power"], recipes):
        response = frequency.gain(networks.load_or_train(recipe)[0], data.x_test[:20], data.y_test[:20])
        profile = frequency.radial_profile(np.square(np.abs(frequency.normalised(response)[:, 0])))[1].mean(
            axis=0)
        np.testing.assert_allclose(row, profile, rtol=1e-4)
    path, = made.rglob("gain_seeds*.npz")
    _tamper(path, power=2 * kept["power"])
    with pytest.raises(ValueError, match="are not those that it computes"):
        waves.seeds(recipes, n=20)
    _tamper(path, power=kept["power"])
    for recipe in recipes:  # they need not be there when it is loaded
        paths.place(made, recipe.filename).unlink()
    assert np.array_equal(waves.seeds(recipes, n=20)["power"], kept["power"])
    path, = made.rglob("gain_seeds*.npz")
    found = list(waves.recompute_gain_seeds(store.read_record(path)["parameters"], kept,
                                            np.random.default_rng(0)))
    assert [agrees for *_, agrees in found] == [True, None, None] and "does not ship" in found[-1][2]


def test_jpeg_alone_is_the_harmonic_matrix(made):
    kept = waves.codec_waves("mnist", 50, n=3)
    x = 0.25 + 0.5 * np.pad(datasets.load("mnist").x_test[:3], ((0, 0), (2, 2), (2, 2), (0, 0)))
    k = 20
    found = frequency.harmonic_matrix(x, 50, amplitude=1.0, frequencies=kept["frequency"][k:k + 1])
    np.testing.assert_allclose(kept["matrix"][k], found["matrix"][0], atol=1e-4)
    assert np.abs(kept["predicted"][:, 0, 0]).max() <= 1 + 1e-6
    path, = made.rglob("codec_waves*.npz")
    parameters, rng = store.read_record(path)["parameters"], np.random.default_rng(0)
    assert all(agrees
               for *_, agrees in itertools.islice(waves.recompute_codec_waves(parameters, kept, rng), 3))
    for name in ("matrix", "predicted", "energy"):
        _tamper(path, **kept | {name: 1.1 * kept[name]})
        with pytest.raises(ValueError, match="answers of JPEG alone of mnist are not those that it computes"):
            waves.codec_waves("mnist", 50, n=3)
