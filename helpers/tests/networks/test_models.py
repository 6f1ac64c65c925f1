"""The architectures: the published sizes, logits out, and files that load in safe mode."""
import hashlib
import inspect
import random
import threading

import keras
import numpy as np
import pytest

from helpers import networks
from helpers.networks import models


@pytest.mark.parametrize("build, shape, count", [
    # LeCun et al. 1998 by hand: (25·1+1)·6, (25·6+1)·16, 401·120, 121·84, 85·10, and 3 of the layer
    # of normalisation (mean, variance and count)
    (models.lenet, (28, 28, 1), 156 + 2416 + 48120 + 10164 + 850 + 3),
    (models.lenet, (32, 32, 3), 456 + 2416 + 48120 + 10164 + 850 + 7),
    # He et al. 2016: 269,722 trainable ("0.27M"), two moving statistics for each of 688 channels
    (models.resnet, (32, 32, 3), 269722 + 2 * 688 + 7),
])
def test_parameter_counts(build, shape, count):
    assert build(shape).count_params() == count


def test_trainable_parameters_of_resnet20():
    trainable = sum(int(np.prod(w.shape)) for w in models.resnet((32, 32, 3)).trainable_weights)
    assert trainable == 269722


def test_extra_layers_add_hidden_layers_of_84():
    plain, deep = (models.lenet((28, 28, 1), extra_layers=n).count_params() for n in (0, 4))
    assert deep - plain == 4 * (84 * 84 + 84)


def test_width_scales_the_network():
    counts = [models.resnet((32, 32, 3), width=w).count_params() for w in (0.5, 1.0, 2.0)]
    assert 3.5 < counts[1] / counts[0] < 4.1 and 3.5 < counts[2] / counts[1] < 4.1


@pytest.mark.parametrize("build", models.ARCHITECTURES.values())
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_saved_networks_load_in_safe_mode_and_compute_the_same(build, shape, tmp_path):
    model = build(shape)
    x = np.random.default_rng(0).random((8, *shape), np.float32)
    models.normalize(model, x)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    logits = model(x).numpy()
    assert np.array_equal(logits, again(x).numpy())
    assert logits.shape == (8, 10)
    assert not np.allclose(logits.sum(axis=1), 1)  # logits, not probabilities


def test_normalisation_is_inside_and_from_the_data():
    model = models.lenet((32, 32, 3))
    x = np.random.default_rng(0).random((50, 32, 32, 3), np.float32) * [0.2, 0.5, 1.0]
    models.normalize(model, x.astype(np.float32))
    inside = model.get_layer("normalization")(x.astype(np.float32)).numpy()
    assert inside.mean((0, 1, 2)) == pytest.approx([0, 0, 0], abs=1e-4)
    assert inside.std((0, 1, 2)) == pytest.approx([1, 1, 1], abs=1e-3)


def test_blocks_account_for_every_parameter():
    for build in models.ARCHITECTURES.values():
        model = build((32, 32, 3))
        assert sum(count for _, _, count in networks.blocks(model)) == model.count_params()


@pytest.mark.parametrize("call, named", [
    (lambda: models.resnet((32, 32, 3), depth=21), "21"),
    (lambda: models.resnet((32, 32)), r"\(32, 32\)"),
    (lambda: models.lenet((8, 8, 1)), r"\(8, 8, 1\)"),
    (lambda: models.lenet((28, 28, 1), extra_layers=-1), "-1"),
    (lambda: models.lenet((28, 28, 1), width=0), "0"),
    (lambda: models.lenet((28, 28, 1), num_classes=1), "1"),
])
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


BUILT = [("lenet", (28, 28, 1), {}), ("lenet", (28, 28, 1), {"extra_layers": 3, "width": 0.5}),
         ("resnet", (32, 32, 3), {}), ("resnet", (16, 16, 1), {"depth": 14, "width": 2.0})]


@pytest.mark.parametrize("name, shape, more", BUILT)
def test_initial_weights_are_those_of_keras_seeded_alone(name, shape, more):
    """Layer after layer, with seeds from Python's generator: as networks were made by a global seed."""
    for seed in (0, 7):
        drawn = random.Random(seed)
        expected = []
        for layer in models.ARCHITECTURES[name](shape, **more, seed=seed).layers:
            if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
                config = layer.get_config()
                config["kernel_initializer"]["config"] = {"seed": drawn.randint(1, int(1e9))}
                alone = type(layer).from_config(config)
                alone.build(layer.input.shape)
                expected.append((layer.get_weights(), alone.get_weights()))
        assert len(expected) > 4
        assert all(a.tobytes() == b.tobytes() for one, two in expected for a, b in zip(one, two, strict=True))


def test_initial_weights_are_those_of_the_global_seed_in_one_thread():
    """Keras draws them so for a network without explicit seeds, in the same order."""
    config = models.lenet((28, 28, 1), extra_layers=2).get_config()
    for layer in config["layers"]:
        if "kernel_initializer" in layer["config"]:
            layer["config"]["kernel_initializer"]["config"]["seed"] = None
    before = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(5)
    old = keras.Model.from_config(config).get_weights()
    random.setstate(before[0])
    np.random.set_state(before[1])
    new = models.lenet((28, 28, 1), extra_layers=2, seed=5).get_weights()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(old, new, strict=True))


def test_a_thread_that_draws_changes_no_weight_and_no_generator_is_touched():
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tobytes()
    first = _digest(models.lenet((28, 28, 1), extra_layers=2, seed=1))
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            random.random()
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        found = {_digest(models.lenet((28, 28, 1), extra_layers=2, seed=1)) for _ in range(20)}
    finally:
        stop.set()
        thread.join()
    assert found == {first} and _digest(models.lenet((28, 28, 1), extra_layers=2, seed=2)) != first


def _digest(model):
    return hashlib.sha256(b"".join(part.tobytes() for part in model.get_weights())).hexdigest()


def test_a_recipe_may_choose_all_but_shape_classes_and_seed():
    for name, build in models.ARCHITECTURES.items():
        assert {"input_shape", "num_classes", "seed", *models.ARGUMENTS[name]} == set(
            inspect.signature(build).parameters)
