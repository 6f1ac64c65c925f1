"""The explorer: one page that works offline, with sliders over image, attack, eps and JPEG quality.

`states` keeps as an artifact all that the page shows of one network. `page` puts the artifacts into the
template helpers/page/explorer.html: the file carries the very arrays, and reads from them each number that
it writes. `python -m helpers.explorer PROFILE.yaml OUT.html`, or `make explorer`.
"""
import base64
import gzip
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import yaml

from helpers import (attacks, datasets, gradients, jpeg, parameters, plots, robustness, saliency, spectra, store, text,
                     training)
from helpers.progress import tqdm

EPS = {"mnist": (0, 0.05, 0.1, 0.2, 0.3), "cifar10": (0, 1 / 255, 2 / 255, 4 / 255, 8 / 255)}  # L-infinity
SIZED = ("noise", "fgsm", "pgd_margin")  # the attacks of a given size eps; Carlini & Wagner's has none
QUALITIES = (90, 50, 10)  # of JPEG, after none
HIGH = 0.25  # cycles per pixel, from which on a frequency counts as high
SEARCH = 500  # test images among which those to show are looked for
TEMPLATE = Path(__file__).parent / "page" / "explorer.html"
LABELS = {"noise": "ruido", "fgsm": "FGSM", "pgd_margin": "PGD", "carlini_wagner": "Carlini y Wagner"}
DEFAULTS = {"dataset": "all", "seed": 0, "epochs": None, "train_size": None, "n_explorer": 1}


def columns(dataset):
    """Return the S attacked versions of an image that are kept, pairs (attack, number of its eps or None)."""
    return [("none", 0), *((attack, k) for attack in SIZED for k in range(1, len(EPS[dataset]))),
            ("carlini_wagner", None)]


def states(recipe, *, per_class=1, seed=0):
    """Return all that the page shows of a recipe's network, of its first right test images of each class.

    dict of arrays over I images, the S `columns` and Q = 1 + len(QUALITIES) qualities, none first. index, y
    (I,); x (I, H, W, C), levels of 8 bits; delta, int8 (I, S, H, W, C), and its unit scale (I, S): the
    perturbation without JPEG; behind, uint8 (I, S, Q - 1, H, W, C): the levels behind JPEG (`images` reads
    these three). Of the image shown, (I, S, Q, ...): logits (10,); l2, linf of its difference from x; high,
    the share of the difference's energy beyond HIGH, NaN where it has none; cam, uint8 (2, H, W): Grad-CAM
    of the true class and of the answer, in 255ths of top (I,), the largest of all states of an image.
    Raises ValueError for what does not fit, and where the network has no image right.
    """
    gradients.check_count("per_class", per_class)
    gradients.check_count("seed", seed, smallest=0)
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    index, kinds = _chosen(model, data, per_class), columns(recipe.dataset)
    x, y = data.x_test[index], data.y_test[index]

    def make(kinds=kinds):
        parts = [_measured(model, x, y, attacked(model, x, y, *kind, recipe.dataset, seed)) for kind in kinds]
        found = {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}
        return {"index": index, "y": y, "x": _levels(x)} | _packed(found, x)

    def check(kept):
        s = np.random.default_rng().integers(2 * len(EPS[recipe.dataset]) - 1)  # of one step: noise or FGSM
        holds = np.array_equal(kept["index"], index) and _agree(kept, make(kinds[s:s + 1]), model, s)
        robustness.prove(holds, "states of the explorer", recipe)

    return store.cached("explorer", {
        "network": recipe.filename, "split": "test", "per_class": per_class, "seed": seed, "high": HIGH,
        "attacks": [*SIZED, "carlini_wagner"], "eps": list(EPS[recipe.dataset]), "nb_iter": robustness.NB_ITER,
        "qualities": list(QUALITIES)}, make, check=check)


def attacked(model, x, y, attack, level, dataset, seed=0):
    """Return the images after one of the `columns`, (N, H, W, C)."""
    if (attack, level) not in columns(dataset):
        raise ValueError(f"attack and level must be among {columns(dataset)}, got {(attack, level)!r}")
    if attack == "none":
        return x
    if attack == "carlini_wagner":
        return attacks.carlini_wagner(model, x, y)
    return robustness.attacked(model, x, y, attack, eps=EPS[dataset][level], seed=seed)


def images(kept):
    """Return the images of `states` as the page shows them, float32 (I, S, Q, H, W, C) in [0, 1].

    Exact behind JPEG; without it, up to half a unit `scale` of the perturbation.
    """
    x = kept["x"][:, np.newaxis, np.newaxis] / np.float32(255)
    bare = np.clip(x + kept["delta"][:, :, np.newaxis] * kept["scale"][:, :, *[np.newaxis] * 4], 0, 1)
    return np.concatenate([bare, kept["behind"] / np.float32(255)], axis=2)


def high_share(delta):
    """Return the share of the luma's energy beyond HIGH of differences (N, H, W, C), (N,), zero frequency apart.

    NaN where there is no energy but at zero.
    """
    power = np.square(np.abs(np.fft.fft2(spectra.luma(delta), norm="ortho")))
    radius = spectra.radial_frequency(*power.shape[1:])
    total, high = power[:, radius > 0].sum(axis=1), power[:, radius > HIGH].sum(axis=1)
    return np.divide(high, total, out=np.full(len(total), np.nan), where=total > 1e-12)


def page(kept, path):
    """Write the page of {recipe: its states}, atomically."""
    grouped = text.number(1234567.5, 1)  # so that the page writes its numbers as the report does
    content = {
        "networks": [_embedded(recipe, found) for recipe, found in kept.items()],
        "attacks": [{"name": name, "label": label, "color": plots.COLORS[name]} for name, label in LABELS.items()],
        "qualities": ["no", *map(str, QUALITIES)], "high": HIGH, "group": grouped[1], "decimal": grouped[-2],
        "maps": {name: _text(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes())
                 for name in ("inferno", "viridis")}}
    template = TEMPLATE.read_text("utf8")
    with store.atomic(path) as partial:
        partial.write_text(template.replace("{{data}}", json.dumps(content).replace("<", "\\u003c")), "utf8")


def _chosen(model, data, per_class):
    """Return the indices of the first `per_class` test images of each class that the network has right."""
    right = robustness.first_right(model, data, SEARCH)
    index = np.concatenate([right[data.y_test[right] == k][:per_class] for k in range(len(data.class_names))])
    if not len(index):
        raise ValueError(f"the network has none of the first {SEARCH} test images of {data.name} right: "
                         "there is nothing to attack")
    return index


def _measured(model, x, y, x_adv):
    """Return what is kept of attacked images: dict of arrays (N, Q, ...), the images as floats."""
    count = 1 + len(QUALITIES)
    shown = np.stack([x_adv, *(jpeg.compress(x_adv, quality) for quality in QUALITIES)], axis=1)
    flat, clean, label = shown.reshape(-1, *x.shape[1:]), np.repeat(x, count, axis=0), np.repeat(y, count)
    delta, logits = flat - clean, gradients.logits(model, flat)
    cam = np.stack([saliency.grad_cam(model, flat, of) for of in (label, logits.argmax(axis=1))], axis=1)
    found = {"shown": flat, "logits": logits, "l2": attacks.l2(delta), "linf": attacks.linf(delta),
             "high": high_share(delta).astype(np.float32), "cam": cam}
    return {name: value.reshape(len(x), count, *value.shape[1:]) for name, value in found.items()}


def _packed(found, x):
    """Return what `_measured` found of all columns, (I, S, Q, ...), its images and maps as bytes."""
    shown, cam = found.pop("shown"), found.pop("cam")
    delta = shown[:, :, 0] - x[:, np.newaxis]
    scale = np.abs(delta).max(axis=(2, 3, 4)) / np.float32(127)
    top = np.maximum(cam.max(axis=(1, 2, 3, 4, 5)), np.float32(1e-12))
    unit = np.where(scale > 0, scale, 1)[:, :, *[np.newaxis] * 3]
    return found | {"delta": np.round(delta / unit).astype(np.int8), "scale": scale, "behind": _levels(shown[:, :, 1:]),
                    "cam": np.round(255 * cam / top[:, *[np.newaxis] * 5]).astype(np.uint8), "top": top}


def _levels(x):
    return np.round(255 * x).astype(np.uint8)


def _agree(kept, again, model, s):
    """Return whether column s is what was computed `again`, and whether all images give their logits and L2 norms.

    Where a gradient all but cancels, its sign is another machine's rounding: of column s, perturbations may differ
    in a few pixels. JPEG makes more of these, so that behind it each norm is that of the image kept.
    """
    shown, logits = images(kept), kept["logits"]
    flat = shown.reshape(-1, *shown.shape[3:])
    found = gradients.logits(model, flat).reshape(logits.shape)
    l2 = attacks.l2(flat - np.repeat(kept["x"], len(flat) // len(shown), axis=0) / np.float32(255))
    near = np.abs(kept["delta"][:, s].astype(int) - again["delta"][:, 0]) <= 1
    return (np.mean(near) > 0.9 and np.allclose(kept["l2"][:, s, 0], again["l2"][:, 0, 0], rtol=0.05)
            and np.allclose(kept["l2"].ravel(), l2, rtol=0.01, atol=1e-5)
            and np.allclose(found[:, :, 1:], logits[:, :, 1:], rtol=1e-3, atol=1e-2)
            and np.allclose(found[:, :, 0], logits[:, :, 0], rtol=0.05, atol=0.1))  # of rounded perturbations


def _embedded(recipe, kept):
    """Return a network's states as what JSON can hold."""
    names = datasets.CLASS_NAMES[recipe.dataset]
    arrays = {name: {"type": str(value.dtype), "shape": value.shape,
                     "data": _text(gzip.compress(value.tobytes(), mtime=0))} for name, value in kept.items()}
    return {"id": f"{recipe.dataset}-{recipe.model}", "name": text.network_name(recipe),
            "classes": [name.es for name in names],
            "radii": [text.radius(recipe.dataset, eps) for eps in EPS[recipe.dataset]],
            "columns": columns(recipe.dataset), "arrays": arrays}


def _text(content):
    return base64.b64encode(content).decode()


def main(profile, path):
    """Write to `path` the page of the networks of a parameter file (YAML), as papermill takes it."""
    given = yaml.safe_load(Path(profile).read_text("utf8")) or {}
    if not isinstance(given, dict):
        raise ValueError(f"{profile} must hold parameters, a name and a value a line, got {given!r}")
    given = DEFAULTS | {name: given[name] for name in DEFAULTS if name in given}  # the others are notebooks'
    parameters.check(given, dataset=["all", *datasets.NAMES], seed=range(2**31), epochs=[None, range(1, 1001)],
                     train_size=[None, range(100, 54211, 10)], **parameters.EXPLORER)
    per_class = given.pop("n_explorer")
    recipes = [recipe for kind in ("natural", "adversarial") for recipe in training.recipes(kind=kind, **given)]
    page({recipe: states(recipe, per_class=per_class, seed=given["seed"])
          for recipe in tqdm(recipes, desc="explorer", unit="network")}, path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m helpers.explorer PROFILE.yaml OUT.html")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError, yaml.YAMLError) as error:
        sys.exit(f"make explorer: {error}")
