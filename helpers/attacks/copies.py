"""Copies of Keras models, of weights of their own: equal, in float64, or as before training.

A model that can be copied is functional or Sequential, with any models inside, of layers that can be made
again from their configuration. What a copy is said to be is proved before it is returned.
"""
import contextlib
import random

import keras
import numpy as np
import tensorflow as tf

from helpers.attacks import gradients, layers

_NARROW = {tf.float32.as_datatype_enum, tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}


def copy(model, dtype=None):
    """Return a copy of a Keras model that gives the same logits, of layers and weights of its own.

    dtype: "float64", to compute in it all through; None, as the model does. Raises ValueError, with the
    reason, where the model cannot be copied, where the logits of a few random images differ, and where
    anything in a copy in float64 computes in fewer bits.
    """
    twin, pairs = _made_anew(model, dtype, seed=0)
    shape = layers.example_shape(model)
    with _reasons(model):
        for old, new in pairs:
            new.load_own_variables(own_weights(old))  # not set_weights: Normalization computes on loading
        graph, copied = (_traced(part, shape, part.inputs[0].dtype) for part in (model, twin))
    _check_weights(model, graph)
    if dtype == "float64":
        _check_wide(model, copied)
    _check_equal(model, twin, np.random.default_rng(0).random((4, *shape), np.float32))
    return twin


def redrawn(model, names, seed):
    """Return a copy whose layers of these names (layers.parts_by_name) are untrained, drawn by seed.

    Their weights are those that Keras draws after keras.utils.set_random_seed(seed) where a process does
    nothing else, but no global state is set. What a normalisation has measured stays. Raises ValueError as
    `copy`, and where a layer draws its first weights by no seed of its configuration.
    """
    gradients.check_count("seed", seed, smallest=0)
    twin = copy(model)
    drawn = [layers.parts_by_name(_made_anew(model, None, seed)[0]) for _ in range(2 if names else 0)]
    parts = layers.parts_by_name(twin)
    for name in names:
        if name not in parts:
            raise ValueError(f"layer {name} is called otherwise in a copy of its model: give it a name")
        for own, *new in zip(*(layers.flat(named[name]) for named in (parts, *drawn)), strict=True):
            one, two = map(own_weights, new)
            if not all(np.array_equal(one[key], two[key]) for key in one):
                raise ValueError(f"layer {name} cannot be made random by a seed: its class "
                                 f"{type(own).__name__} draws its first weights by an initializer that is "
                                 "not in its configuration")
            if not isinstance(own, keras.layers.Normalization):
                own.load_own_variables(one)
    return twin


def own_weights(layer):
    """Return the weights of a layer without those of layers inside it: a dict of arrays."""
    store = {}
    layer.save_own_variables(store)
    return {name: np.asarray(value.numpy() if hasattr(value, "numpy") else value)
            for name, value in store.items()}


@contextlib.contextmanager
def _reasons(model):
    """Make a ValueError of whatever a layer raises at its own configuration, weights or dtype."""
    try:
        yield
    except Exception as error:
        first, *_, last = (str(error).strip() or "no word").splitlines() * 2
        lines = dict.fromkeys(line[:160] for line in (first.split(" using config=")[0], last))
        raise ValueError(f"model {model.name} cannot be copied: {type(error).__name__}: "
                         f"{': '.join(lines)}") from error


def _made_anew(model, dtype, seed):
    """Return (copy, pairs (layer, its copy), of layers inside layers too), of first weights drawn by seed."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"a Keras model is needed to make its copy, got {model!r}")
    layers.input_shape(model)  # raises where it has none
    made = {}
    with _reasons(model):
        twin = _anew(model, dtype, random.Random(seed), made)
        pairs = [pair for old, new in made.values() if isinstance(old, keras.Layer) and not _is_graph(old)
                 for pair in zip(layers.flat(old), layers.flat(new), strict=True)]
        seen = set()
        for old, _ in pairs:
            if id(old) in seen and old.weights:
                raise ValueError(f"layer {old.name} is shared by a layer that holds it and another place")
            seen.add(id(old))
    return twin, pairs


def _anew(part, dtype, rng, made):
    """Return a copy of a model, layer or operation, one of each; made: (what was copied, its copy) by id."""
    if id(part) not in made:
        inner = lambda inside: _anew(inside, dtype, rng, made)
        if isinstance(part, keras.Sequential):
            shape, own = (None, *part.input_shape[1:]), part.inputs[0].dtype
            image = keras.Input(batch_shape=shape, dtype=_wide(own, dtype))
            new = keras.Sequential([image, *map(inner, part.layers)], name=part.name)
        elif _is_graph(part):  # as keras.models.clone_model, which tells inner models and wrappers neither
            images = keras.tree.map_structure(lambda image: keras.Input(  # dtype nor seeds, and compiles
                batch_shape=image.shape, dtype=_wide(image.dtype, dtype), name=image.name), part.input)
            new = keras.Model(images, part._run_through_graph(images, operation_fn=inner), name=part.name)
        elif isinstance(part, keras.layers.Lambda):  # its function as it is: Keras would unmarshal its code
            new = keras.layers.Lambda(part.function, part._output_shape, part.mask, part.arguments,
                                      name=part.name, dtype=dtype or part.dtype_policy)
        else:
            with keras.saving.custom_object_scope(_own_names(part)):
                new = type(part).from_config(_told(part.get_config(), dtype, rng))
        made[id(part)] = part, new
    return made[id(part)][1]


def _is_graph(part):
    return isinstance(part, keras.Sequential) or hasattr(part, "_run_through_graph")


def _own_names(part):
    """Return the classes and functions that a layer's configuration may name, by name."""
    values = [value for inside in (layers.flat(part) if isinstance(part, keras.Layer) else [])
              for value in (inside, *vars(inside).values())]
    return ({type(value).__name__: type(value) for value in values if hasattr(value, "get_config")}
            | {value.__name__: value for value in values if callable(value) and hasattr(value, "__name__")})


def _told(value, dtype, rng):
    """Return a configuration with every dtype widened, where one is told, and every seed drawn."""
    if isinstance(value, dict):
        told = {}
        for name, part in value.items():
            if name == "seed" and (part is None or isinstance(part, int)):
                told[name] = rng.randint(1, 10**9)  # as Keras draws a seed
            else:
                told[name] = _wide(part, dtype) if name == "dtype" else _told(part, dtype, rng)
        return told
    return type(value)(_told(part, dtype, rng) for part in value) if type(value) in (list, tuple) else value


def _wide(value, dtype):
    """Return the dtype that is told for one of floats, a name or a policy's configuration; else the value."""
    name = value["config"].get("name", "") if isinstance(value, dict) else str(value)
    return dtype if dtype and ("float" in str(name)) else value


def _traced(model, shape, dtype):
    function = tf.function(lambda x: model(x, training=False))
    return function.get_concrete_function(tf.TensorSpec((None, *shape), dtype)).graph


def _check_weights(model, graph):
    """Raise ValueError where the model uses a variable that belongs to none of its layers."""
    known = {id(variable.value) for variable in model.variables}
    for variable in graph.variables:
        if id(variable) not in known:
            raise ValueError(f"model {model.name} cannot be copied: it uses {variable.name}, which "
                             "belongs to none of its layers")


def _check_wide(model, graph):
    """Raise ValueError where an operation of the copy's graph has numbers of fewer than 64 bits."""
    told = graph.as_graph_def()
    nodes = [*told.node, *(node for function in told.library.function for node in function.node_def)]
    constants = {node.name for node in nodes if node.op == "Const"}
    for node in nodes:  # a constant's rounding is the model's own, as that of its weights
        constant = node.op == "Const" or node.op == "Cast" and node.input[0].split(":")[0] in constants
        types = {kind for part in node.attr.values() for kind in (part.type, *part.list.type)}
        if types & _NARROW and not constant:
            raise ValueError(f"model {model.name} has no copy in float64: {node.name} computes in fewer "
                             "bits, whatever its layer is told")


def _check_equal(model, twin, x):
    """Raise ValueError where the logits of a model and its copy differ by more than rounding does."""
    expected, found = (gradients.call(part, tf.constant(x)).numpy() for part in (model, twin))
    size = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    coarse = any("16" in part.compute_dtype for part in layers.flat(model))
    if not np.allclose(found, expected, rtol=0, atol=(1e-2 if coarse else 1e-4) * size, equal_nan=True):
        raise ValueError(f"model {model.name} cannot be copied: on random images the logits of its copy "
                         f"differ by up to {np.abs(found - expected).max():.3g}, of {size:.3g}")
