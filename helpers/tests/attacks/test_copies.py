"""Copies of models of every kind, against the models themselves; and what cannot be copied, named."""
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from helpers.attacks import copies, layers

RNG = np.random.default_rng(0)
stray = L.Dense(4)
stray.build((None, 3))


class Block(keras.Layer):
    """A layer that holds another."""

    def __init__(self, filters, **more):
        super().__init__(**more)
        self.filters, self.convolution = filters, L.Conv2D(filters, 3, dtype=self.dtype_policy)

    def call(self, x):
        return self.convolution(x)

    def get_config(self):
        return super().get_config() | {"filters": self.filters}


class Mix(keras.Layer):
    """A layer that names no initializer, and has its weight from Keras's default."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 4))

    def call(self, x):
        return x @ self.matrix


class Closed(keras.Layer):
    """A layer whose arguments are not Keras's."""

    def __init__(self):
        super().__init__(name="closed")

    def call(self, x):
        return 2 * x


def triple(x):
    return 3 * tf.nn.relu(x)


def _inner(name="inner", shape=(8, 8, 3)):
    image = keras.Input(shape)
    z = L.Normalization(mean=[0.4] * 3, variance=[0.1] * 3)(image)
    return keras.Model(
        image, L.BatchNormalization(name="bn")(L.Conv2D(3, 3, padding="same", name="conv")(z)), name=name)


def _nested(image):
    return _inner()(image)


def _sequential_inside(image):
    return keras.Sequential([L.Conv2D(4, 3, activation="relu"), L.Dropout(0.5), L.GaussianNoise(0.1),
                             L.MaxPooling2D()])(image)


def _two_levels(image):
    given = keras.Input((8, 8, 3))
    return keras.Model(given, _inner()(L.Conv2D(3, 1)(given)), name="outer")(image)


def _model_used_twice(image):
    inner = _inner()
    return inner(inner(image))


def _layer_shared_across_models(image):
    shared, given = L.Conv2D(3, 3, padding="same"), keras.Input((8, 8, 3))
    return shared(keras.Model(given, L.ReLU()(shared(given)))(image))


def _time_distributed(image):
    given = keras.Input((8, 3))
    return L.TimeDistributed(keras.Model(given, L.Dense(4)(given)))(image)


def _bidirectional(image):
    return L.Bidirectional(L.LSTM(4))(L.Reshape((8, 24))(image))


def _spectral(image):
    return L.SpectralNormalization(L.Conv2D(4, 3))(image)


def _own_layers(image):
    return L.Lambda(lambda z: 2 * z + 1)(L.Conv2D(4, 3, activation=triple)(Block(3, name="block")(image)))


def _default_weights(image):
    return Mix(name="mix")(image)


def _operations(image):
    return keras.ops.cast(keras.ops.relu(L.SeparableConv2D(4, 3)(image)), "float32") + 1


KINDS = (_nested, _sequential_inside, _two_levels, _model_used_twice, _layer_shared_across_models,
         _time_distributed,
         _bidirectional, _spectral, _own_layers, _default_weights, _operations)


def _network(middle):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(5, name="logits")(L.Flatten()(middle(image))), name="network")
    for part in layers.flat(model):
        if isinstance(part, L.BatchNormalization):
            part.set_weights([w + RNG.uniform(0, 0.3, w.shape) for w in part.get_weights()])
    return model


@pytest.mark.parametrize("middle", KINDS, ids=lambda middle: middle.__name__)
def test_copies_are_equal_and_in_float64_all_through(middle):
    model, x = _network(middle), RNG.random((6, 8, 8, 3), np.float32)
    z, same = (part(x, training=False).numpy() for part in (model, copies.copy(model)))
    np.testing.assert_allclose(same, z, atol=1e-6)
    wide = copies.copy(model, "float64")
    assert {w.dtype for w in wide.weights if "float" in w.dtype} == {"float64"}
    exact = wide(tf.constant(x, tf.float64), training=False).numpy()
    np.testing.assert_allclose(exact, z, atol=1e-4)
    moved = wide(tf.constant(x, tf.float64) + 1e-11, training=False).numpy() - exact
    half = wide(tf.constant(x, tf.float64) + 5e-12, training=False).numpy() - exact
    assert np.abs(moved).max() > 0
    # The steps of float32 are no lines.
    np.testing.assert_allclose(half, moved / 2, atol=1e-14 + 1e-2 * np.abs(moved).max())


def test_a_copy_has_weights_of_its_own():
    model, x = _network(_nested), RNG.random((2, 8, 8, 3), np.float32)
    z = model(x).numpy()
    copy = copies.copy(model)
    copy.set_weights([0 * w for w in copy.get_weights()])
    assert np.array_equal(model(x).numpy(), z) and not copy(x).numpy().any()


def test_sequential_models_that_were_called_and_models_of_any_size():
    called = keras.Sequential([L.Conv2D(4, 3), L.Flatten(), L.Dense(3)])
    with pytest.raises(ValueError, match="does not say what images it takes"):
        copies.copy(called)
    x = RNG.random((3, 8, 8, 3), np.float32)
    called(x)
    image = keras.Input((None, None, 3))
    free = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(image))))
    for model in (called, free):
        np.testing.assert_allclose(copies.copy(model, "float64")(x).numpy(), model(x).numpy(), atol=1e-5)


def test_a_compiled_model_s_own_loss_is_no_part_of_it():
    model = _network(_nested)
    model.compile("sgd", loss=lambda y, z: tf.reduce_mean(z))
    assert not copies.copy(model).compiled


def _narrow(image):
    return L.Lambda(lambda z: tf.cast(tf.cast(z, tf.float32), z.dtype), name="narrow")(L.Conv2D(3, 3)(image))


def _stray(image):
    return L.Lambda(lambda z: stray(z), output_shape=(8, 8, 4))(image)


def _closed(image):
    return Closed()(image)


@pytest.mark.parametrize("middle, dtype, words", [
    (_narrow, "float64", "no copy in float64: .*narrow.* computes in fewer bits"),
    (lambda image: L.Resizing(4, 4, name="resizing")(image), "float64", "no copy in float64: .*resizing"),
    (_stray, None, "it uses .*, which belongs to none of its layers"),
    (_closed, None, "cannot be copied: TypeError: .*Closed.*unexpected keyword argument")])
def test_what_cannot_be_copied_is_named(middle, dtype, words):
    with pytest.raises(ValueError, match=words):
        copies.copy(_network(middle), dtype)


def test_a_layer_that_is_shared_with_a_wrapper_is_refused():
    image, shared = keras.Input((8, 8, 3)), L.Dense(3, name="shared")
    z = shared(L.TimeDistributed(shared)(image))
    with pytest.raises(ValueError, match="layer shared is shared by a layer that holds it and another place"):
        copies.copy(keras.Model(image, L.Dense(2)(L.Flatten()(z))))


def test_mixed_precision():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, dtype="mixed_float16"), L.Flatten(),
                              L.Dense(3, dtype="float32")])
    x = RNG.random((3, 8, 8, 3), np.float32)
    assert copies.copy(model, "float64")(x).dtype == tf.float64
    np.testing.assert_allclose(copies.copy(model, "float64")(x), model(x), atol=1e-2)
    np.testing.assert_allclose(copies.copy(model)(x), model(x), atol=1e-6)


def test_subclassed_models_and_several_inputs_are_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x
    subclassed = Subclassed()
    subclassed(np.zeros((1, 8, 8, 3), np.float32))
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    for model, words in ((subclassed, "it is subclassed"),
                         (keras.Model([one, two], one + two), "must take one array of images"),
                         (lambda x: x, "a Keras model is needed")):
        with pytest.raises(ValueError, match=words):
            copies.copy(model)


def test_a_copy_that_differs_is_never_returned():
    class Forgetful(keras.Layer):
        """A layer whose configuration does not tell its factor."""

        def __init__(self, factor=1.0, **more):
            super().__init__(**more)
            self.factor = factor

        def call(self, x):
            return self.factor * x

        def get_config(self):
            return super().get_config()
    with pytest.raises(ValueError, match="the logits of its copy differ by up to"):
        copies.copy(_network(lambda image: Forgetful(1.5)(image)))


@pytest.mark.parametrize("middle, name", [(_spectral, "spectral_normalization"), (_default_weights, "mix")])
def test_layers_that_draw_without_a_seed_are_not_made_random(middle, name):
    model = _network(middle)
    name = next(part for part in layers.weighted(model) if part.startswith(name))
    with pytest.raises(ValueError, match=f"layer {name} cannot be made random by a seed"):
        copies.redrawn(model, [name], seed=0)
    assert np.any(copies.redrawn(model, ["logits"], seed=0).get_layer("logits").kernel
                  != model.get_layer("logits").kernel)


def test_layers_inside_layers_are_random_and_what_was_measured_stays():
    model = _network(_time_distributed)
    name = layers.weighted(model)[0]
    one, two = (layers.parts_by_name(copies.redrawn(model, [name], seed=2))[name].get_weights()
                for _ in range(2))
    assert all(map(np.array_equal, one, two))
    assert not np.allclose(one[0], layers.parts_by_name(model)[name].get_weights()[0])
    inside = _network(lambda image: L.TimeDistributed(keras.Sequential([keras.Input((8, 3)), L.Normalization(
        mean=[0.4] * 3, variance=[0.1] * 3), L.Dense(4)]), name="wrapped")(image))
    norm, drawn = ([part for part in layers.flat(net) if isinstance(part, L.Normalization)][0]
                   for net in (inside, copies.redrawn(inside, ["wrapped", "logits"], seed=2)))
    assert np.array_equal(norm.mean, drawn.mean) and np.array_equal(norm.variance, drawn.variance)
