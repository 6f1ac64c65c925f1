"""Layers by name: of models inside models, in the order in which they are called."""
import ast
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import helpers
from helpers import frequency
from helpers.attacks import layers

RNG = np.random.default_rng(0)


def _nested(name="inner"):
    given, image = keras.Input((8, 8, 2)), keras.Input((8, 8, 2))
    inner = keras.Model(given, L.ReLU(name="relu")(L.Conv2D(2, 3, padding="same", name="conv3")(given)),
                        name=name)
    z = inner(L.Conv2D(2, 1, name="c1")(image))
    return keras.Model(image, L.Dense(3, name="logits")(L.Flatten(name="flat")(z)))


def test_names_and_shapes_in_the_order_of_calls():
    found = layers.called(_nested())
    assert list(found) == ["c1", "inner/conv3", "inner/relu", "inner", "flat", "logits"]
    assert found["inner/conv3"] == (2, 8, 8, 2) and found["logits"] == (2, 3)
    assert layers.weighted(_nested()) == ["c1", "inner/conv3", "logits"]


def test_the_last_use_counts():
    image, shared = keras.Input((8, 8, 2)), L.Conv2D(2, 3, padding="same", name="shared")
    model = keras.Model(image, L.Dense(3)(L.Flatten()(shared(L.Conv2D(2, 1, name="between")(shared(image))))))
    assert layers.weighted(model)[:2] == ["between", "shared"]


def test_what_a_layer_returns_is_seen_and_nothing_is_left_behind():
    model, x = _nested(), tf.constant(RNG.random((3, 8, 8, 2), np.float32))
    logits, maps = layers.tapped(model, "inner/conv3", x)
    np.testing.assert_allclose(logits, model(x))
    first, inner = model.get_layer("c1"), model.get_layer("inner")
    np.testing.assert_allclose(maps, inner.get_layer("conv3")(first(x)), atol=1e-6)
    assert not any("call" in vars(part) for part in layers.parts_by_name(model).values())
    with pytest.raises(ZeroDivisionError):
        with layers._watched([first]):
            1 / 0
    assert "call" not in vars(first)


def test_the_gain_of_a_layer_inside_is_that_of_the_same_layer_outside():
    model, x = _nested(), RNG.random((3, 8, 8, 2), np.float32)
    image = keras.Input((8, 8, 2))
    flat = keras.Model(image,
                       L.Flatten()(L.Conv2D(2, 3, padding="same", name="conv3")(L.Conv2D(2, 1)(image))))
    flat.set_weights(model.get_weights()[:4])
    np.testing.assert_allclose(frequency.stage_gain(model, x, "inner/conv3", draws=2),
                               frequency.stage_gain(flat, x, "conv3", draws=2), rtol=1e-4)


def test_a_layer_that_is_zero_has_no_relative_gain():
    model, x = _nested(), RNG.random((2, 8, 8, 2), np.float32)
    model.get_layer("c1").set_weights([0 * w for w in model.get_layer("c1").get_weights()])
    assert np.isnan(frequency.stage_gain(model, x, "c1", draws=1)).all()


class Looped(keras.Model):
    """A model that calls one layer in a loop of TensorFlow, one never, and one that returns two arrays."""

    def __init__(self):
        super().__init__(name="looped")
        self.inside, self.never = L.Conv2D(2, 3, padding="same", name="inside"), L.Dense(2, name="never")
        self.pair = L.Lambda(lambda z: (z, z), name="pair")
        self.end = L.Dense(3, name="end")
        for part, shape in ((self.inside, (None, 8, 8, 2)), (self.never, (None, 2)), (self.end, (None, 128))):
            part.build(shape)

    def call(self, x):
        z = tf.map_fn(lambda image: self.inside(image[None])[0], x)
        return self.end(tf.reshape(self.pair(z)[0], (-1, 128)))


def test_what_cannot_be_seen_is_refused():
    model, x = Looped(), RNG.random((2, 8, 8, 2), np.float32)
    for layer, words in (("nowhere", "layer must be one of inside, pair, end, got 'nowhere'"),
                         ("never", "cannot be seen"),
                         ("pair", "does not return one array"), ("inside", "a row for each image")):
        with pytest.raises(ValueError, match=words):
            frequency.stage_gain(model, x, layer)
    with pytest.raises(ValueError, match="does not say what images it takes"):
        layers.called(model)
    image = keras.Input((None, None, 2))
    with pytest.raises(ValueError, match="takes images of any size: give images"):
        layers.called(keras.Model(image, L.Conv2D(2, 1)(image)))


def test_a_layer_in_a_function_of_tensorflow_is_refused():
    class Traced(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.end = L.Conv2D(2, 3, name="conv"), L.Dense(3, name="end")
            self.inside = tf.function(lambda x: self.conv(x))

        def call(self, x):
            return self.end(tf.reshape(self.inside(x), (-1, 72)))
    with pytest.raises(ValueError, match="layer conv cannot be seen"):
        frequency.stage_gain(Traced(), RNG.random((2, 8, 8, 2), np.float32), "conv")


def test_two_layers_of_one_name_are_refused():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = L.Dense(2, name="same"), L.Dense(2, name="same")
    with pytest.raises(ValueError, match="two layers of the model have the name same"):
        layers.parts_by_name(Twins())


SEEDS = {"set_random_seed", "np.random.seed", "numpy.random.seed", "random.seed", "tf.random.set_seed"}


def test_nothing_sets_the_seeds_of_a_process():
    """But bench, whose peers draw from them: it puts them back (`measure.seeded`)."""
    folder = Path(helpers.__file__).parent
    for path in folder.rglob("*.py"):
        if "tests" in path.parts or path == folder / "bench" / "measure.py":
            continue
        named = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Attribute)}
        found = {name for name in named if name in SEEDS or name.endswith("set_random_seed")}
        assert not found, f"{path.name} sets {found}"
