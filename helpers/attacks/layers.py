"""What a Keras model is made of: its layers by name, and what each returns on the way to the logits.

A layer inside a model inside the model is written "inner/conv3", and so on inwards. What a wrapper
(TimeDistributed, …) or a layer of one's own holds is one layer with it. A layer that is called more
than once is met where it is called last.
"""
import contextlib

import keras
import numpy as np
import tensorflow as tf

from helpers.attacks import gradients

SIDE = 96  # of images for a model that takes any size, where it does not matter


def parts_by_name(model):
    """Return the layers of a Keras model by name, models inside it and their layers too: a dict."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"a Keras model is needed, got {model!r}")
    found = {}
    for part in model.layers:
        inside = parts_by_name(part) if isinstance(part, keras.Model) else {}
        inner = {part.name: part} | {f"{part.name}/{name}": layer for name, layer in inside.items()}
        if twice := sorted(found.keys() & inner):
            raise ValueError(f"two layers of the model have the name {twice[0]}: give each its own")
        if not isinstance(part, keras.layers.InputLayer):
            found |= inner
    return found


def calls(model, x=None):
    """Return the calls of layers as the model answers, in order: a list of (name, shape of the result).

    x: images (N, H, W, C), by whose size they are known; None, for a model that says what it takes. A
    shape begins with the number of images, here 2; what is no single array of floats has the shape ().
    Raises ValueError where the size is not known.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"a Keras model is needed, got {model!r}")
    size = input_shape(model) if x is None else np.shape(x)[1:]
    if None in size:
        raise ValueError(f"model {model.name} takes images of any size: give images, on which its layers "
                         "are found")
    return gradients.made_once(_calls, model, tuple(size))


def called(model, x=None):
    """Return the shapes of `calls` by name, of each layer the last, in the order of last calls: a dict."""
    found = {}
    for name, shape in calls(model, x):
        found.pop(name, None)
        found[name] = shape
    return found


def checked_shape(model, layer, x):
    """Return the shape of a layer in `called` for images x; raise ValueError where it cannot be seen."""
    shapes, parts = called(model, x), parts_by_name(model)
    if not isinstance(layer, str) or layer not in parts:
        raise ValueError(f"layer must be one of {', '.join(shapes)}, got {layer!r}")
    shape = next((shapes[name] for name in shapes if parts[name] is parts[layer]), None)
    if shape is None:
        raise ValueError(f"layer {layer} cannot be seen when the model answers: it is not called, or only "
                         "within a function of TensorFlow")
    if len(shape) < 2 or shape[0] != 2:
        raise ValueError(f"layer {layer} does not return one array of floats with a row for each image")
    return shape


def tapped(model, layer, x):
    """Return (logits, what the layer returns where it is called last), tensors, for a tensor of images."""
    with _watched([parts_by_name(model)[layer]]) as seen:
        logits = gradients.call(model, x)
    maps = seen[-1][1]
    if getattr(maps, "graph", None) is not getattr(x, "graph", None):
        raise ValueError(f"layer {layer} is called within a loop or a function of TensorFlow, where it "
                         "cannot be seen")
    return logits, maps


def weighted(model):
    """Return the names of the layers with weights, in the order of their last calls: the logits' last.

    Models are not among them, but the layers inside are; nor is the normalisation of the images.
    """
    parts = parts_by_name(model)
    return [name for name in called(model, np.empty((1, *example_shape(model)))) if parts[name].weights
            and not isinstance(parts[name], (keras.Model, keras.layers.Normalization))]


def input_shape(model):
    """Return the (H, W, C) that a model takes, None where any will do.

    Raises ValueError where it says none.
    """
    shapes = [tuple(part.shape) for part in getattr(model, "inputs", None) or ()]
    if not shapes:
        raise ValueError(f"model {model.name} does not say what images it takes: it is subclassed, or was "
                         "never called")
    if len(shapes) > 1 or len(shapes[0]) != 4:
        raise ValueError(f"model {model.name} must take one array of images (N, H, W, C), got inputs of "
                         f"{shapes}")
    return shapes[0][1:]


def example_shape(model):
    """Return an (H, W, C) that a model takes: where any will do, SIDE."""
    return tuple(side or SIDE for side in input_shape(model))


def flat(layer):
    """Return a layer and all the layers inside it."""
    return layer._flatten_layers()


@contextlib.contextmanager
def _watched(parts):
    """Yield a list to which each call of one of these layers adds (layer, what it returned)."""
    seen, before = [], [(part, vars(part).get("call")) for part in parts]
    for part in parts:
        vars(part)["call"] = _recording(part, part.call, seen)  # no other way sees inside models of any kind
    try:
        yield seen
    finally:
        for part, call in before:
            del vars(part)["call"]
            if call is not None:
                vars(part)["call"] = call


def _recording(part, call, seen):
    def recorded(*arguments, **more):
        result = call(*arguments, **more)
        seen.append((part, result))
        return result
    return recorded


def _calls(model, size):
    gradients.call(model, tf.zeros((2, *size)))  # what is not built is built now
    names = {}
    for name, part in parts_by_name(model).items():
        names.setdefault(id(part), name)
    with _watched(list({id(part): part for part in parts_by_name(model).values()}.values())) as seen:
        gradients.call(model, tf.zeros((2, *size)))
    return [(names[id(part)], tuple(result.shape) if _is_float(result) else ()) for part, result in seen]


def _is_float(result):
    return tf.is_tensor(result) and result.dtype.is_floating
