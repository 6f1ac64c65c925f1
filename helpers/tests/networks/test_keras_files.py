"""Files of Keras: what each lacks is said, and none that is the user's is said to be deleted."""
import shutil
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from helpers import networks
from helpers.networks import keras_files

SHAPE = (28, 28, 1)


class Own(layers.Layer):
    """A layer that is not Keras's."""

    def call(self, x):
        return x


class Network(keras.Model):
    """A network that is not Keras's."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.logits = layers.Dense(10)

    def call(self, x):
        return self.logits(keras.ops.reshape(x, (-1, 784)))


def _sequential(*more):
    return keras.Sequential([keras.Input(SHAPE), *more, layers.Flatten(), layers.Dense(10)])


def _two(inputs, outputs):
    images = [keras.Input(SHAPE) for _ in range(inputs)]
    x = layers.Flatten()(layers.Add()(images) if inputs > 1 else images[0])
    return keras.Model(images, [layers.Dense(10)(x) for _ in range(outputs)])


def _subclassed():
    model = Network()
    model(np.zeros((1, *SHAPE), np.float32))
    return model


@pytest.mark.parametrize("build, message", [
    (lambda: _sequential(layers.Lambda(lambda x: 2 * x)), "has a Lambda layer"),
    (lambda: _sequential(Own()), "needs Own, which is not Keras's"),
    (_subclassed, "needs Network, which is not"),
    (lambda: keras.Sequential([layers.Flatten(), layers.Dense(10)]), "does not say what images it takes"),
    (lambda: _two(2, 1), "has 2 inputs and 1 outputs"), (lambda: _two(1, 2), "has 1 inputs and 2 outputs"),
    (lambda: keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(7)]),
     r"answers with shape \(7,\): mnist needs 10 logits"),
    (lambda: keras.Sequential([keras.Input((784,)), layers.Dense(10)]), r"takes images of shape \(784,\)")],
    ids=["lambda", "layer", "subclassed", "unbuilt", "inputs", "outputs", "classes", "vector"])
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")  # what is tested
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")  # likewise
def test_a_sound_file_that_cannot_serve_says_what_it_needs(tmp_path, build, message):
    path = tmp_path / "mine.keras"
    build().save(path)
    with pytest.raises(ValueError, match=f"mine.keras {message}") as caught:
        networks.read_checkpoint(path)
    assert "damaged" not in str(caught.value) and "elete" not in str(caught.value)


def test_what_is_no_whole_network_says_what_it_is(tmp_path):
    model = _sequential()
    model.save_weights(tmp_path / "a.weights.h5")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    model.save(tmp_path / "a.keras")
    shutil.copy(tmp_path / "a.keras", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("a.txt", "")
    for name, message in {"a.weights.h5": "holds weights alone", "saved": "is a folder of a SavedModel",
                          ".": "is a folder and not a file", "a.zip": "must end in .keras",
                          "b.keras": "not one of Keras: without config.json",
                          "none.keras": "there is no network at '.*none.keras'"}.items():
        with pytest.raises(ValueError, match=message) as caught:
            networks.read_checkpoint(tmp_path / name)
        assert "damaged" not in str(caught.value)
    with pytest.raises(ValueError, match="must not be empty, got ''"):
        networks.read_checkpoint("")


def test_both_formats_are_read_and_any_size_of_image_fits(tmp_path):
    x = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    for name in ("a.keras", "a.h5"):
        model = _sequential()
        model.save(tmp_path / name)
        read, dataset = networks.read_checkpoint(tmp_path / name)
        assert dataset == "mnist" and np.array_equal(read(x), model(x))
    free = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(10, 3),
                             layers.GlobalAveragePooling2D()])
    free.save(tmp_path / "free.keras")
    assert networks.read_checkpoint(tmp_path / "free.keras")[1] == "cifar10"


def _changed(path, result, old, new):
    """Copy a .keras file with these bytes of its description replaced."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            assert name != "config.json" or old in content
            target.writestr(name, content.replace(old, new) if name == "config.json" else content)


def test_a_network_that_would_fill_the_memory_is_refused_before_it_is_built(tmp_path, monkeypatch):
    _sequential(layers.Conv2D(3, 5, name="c")).save(tmp_path / "a.keras")
    monkeypatch.setattr(keras.models, "load_model", None)  # nothing is built
    for old, new, message in ((b'"units": 10', b'"units": 2000000000', "at least 3,456,000,000,075 weights"),
                              (b'"filters": 3', b'"filters": 50000000', "at least 1,250,017,280 weights")):
        _changed(tmp_path / "a.keras", tmp_path / "b.keras", old, new)
        with pytest.raises(ValueError, match=f"b.keras describes a network of {message}"):
            keras_files.load_model(tmp_path / "b.keras")
    monkeypatch.setattr(keras_files, "WEIGHTS", 1000)
    with pytest.raises(ValueError, match="a.keras describes a network of .* bytes; at most 1,000 weights"):
        keras_files.load_model(tmp_path / "a.keras")


def test_kernels_are_counted_as_keras_counts_them():
    for model in (_sequential(layers.Conv2D(4, 3, groups=1), layers.Conv2D(8, (3, 5), groups=2)),
                  keras.Sequential([keras.Input(SHAPE), _sequential()])):
        kernels = sum(int(np.prod(part.shape)) for part in model.weights if part.name == "kernel")
        config = keras.saving.serialize_keras_object(model)
        assert keras_files._least_weights(config) == kernels
