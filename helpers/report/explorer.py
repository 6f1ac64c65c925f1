"""The explorer: one page that works offline, with sliders over image, attack, eps and JPEG quality.

`states` keeps as an artifact all that the page shows of one network. `page` puts the artifacts into the
template helpers/report/templates/explorer.html: the file carries the very arrays, and reads from them each number that
it writes. `python -m helpers.report.explorer PROFILE.yaml OUT.html`, or `make explorer`.
"""
import base64
import gzip
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import yaml

from helpers import attacks, datasets, frequency, jpeg, networks, saliency
from helpers.artifacts import files, proofs, store
from helpers.artifacts.progress import tqdm
from helpers.attacks import gradients
from helpers.report import figures, text
from helpers.report import parameters as report_parameters
from helpers.study import under_attack, units

EPS = {"mnist": (0, 0.05, 0.1, 0.2, 0.3), "cifar10": (0, 1 / 255, 2 / 255, 4 / 255, 8 / 255)}  # L-infinity
SIZED = ("noise", "fgsm", "pgd_margin")  # the attacks of a given size eps; Carlini & Wagner's has none
QUALITIES = (90, 50, 10)  # of JPEG, after none
HIGH = 0.25  # cycles per pixel, from which on a frequency counts as high
SEARCH = 500  # test images among which those to show are looked for
# Of the pixels, the share that an attack made anew must leave as they are. A step of PGD that rounding turns is
# followed by others: on another machine a quarter of the pixels of one of our networks are others.
PIXELS = {"pgd_margin": 0.5, "carlini_wagner": 0.0}
TEMPLATE = Path(__file__).parent / "templates" / "explorer.html"
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
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    index, kinds = _chosen(model, data, per_class), columns(recipe.dataset)
    x, y = data.x_test[index], data.y_test[index]

    def make():
        parts = [_measured(model, x, y, explored(model, x, y, *kind, recipe.dataset, seed)) for kind in kinds]
        found = {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}
        return {"index": index, "y": y, "x": _levels(x)} | _packed(found, x)

    def check(kept):
        units.prove(recompute_explorer(of, kept, np.random.default_rng()), 4, "states of the explorer",
                    recipe.filename)

    of = _of_states(recipe, per_class, seed)
    return store.cached("explorer", of, make, check=check)


def recompute_explorer(parameters, kept, rng):
    """Yield units of what `states` keeps: the numbers of all images, some maps, then a column attacked again.

    Carlini & Wagner's of one image. Where a gradient all but cancels, its sign is another machine's rounding:
    perturbations may differ in a few pixels.
    """
    recipe, seed = networks.recipe_named(parameters["network"]), parameters["seed"]
    units.as_made(parameters, _of_states(recipe, parameters["per_class"], seed))
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    index, kinds = _chosen(model, data, parameters["per_class"]), columns(recipe.dataset)
    x, y = data.x_test[index], data.y_test[index]
    yield units.same("images", kept, {"index": index, "y": y, "x": _levels(x)})
    yield _numbers_agree(model, kept)
    yield _maps_agree(model, kept, rng)
    for s in rng.permutation(len(kinds)):
        rows = [rng.integers(len(y))] if kinds[s][0] == "carlini_wagner" else np.arange(len(y))
        x_adv = explored(model, x[rows], y[rows], *kinds[s], recipe.dataset, seed)
        answer = gradients.logits(model, x_adv).argmax(axis=1)
        yield units.holds(f"{kinds[s]}, image {rows[0]} first", "L2 norms and pixels are the attack's, made anew",
                          _column_agrees(kept, s, rows, x_adv - x[rows], PIXELS.get(kinds[s][0], 0.9)) and np.mean(
                              kept["logits"][rows, s, 0].argmax(axis=1) == answer) >= 0.8 * (kinds[s][1] is not None))


def explored(model, x, y, attack, level, dataset, seed=0):
    """Return the images after one of the `columns`, (N, H, W, C)."""
    if (attack, level) not in columns(dataset):
        raise ValueError(f"attack and level must be among {columns(dataset)}, got {(attack, level)!r}")
    if attack == "none":
        return x
    if attack == "carlini_wagner":
        return under_attack.carlini_wagner(model, x, y)
    return under_attack.attacked(model, x, y, attack, eps=EPS[dataset][level], seed=seed)


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
    power = np.square(np.abs(np.fft.fft2(frequency.luma(delta), norm="ortho")))
    radius = frequency.radial_frequency(*power.shape[1:])
    total, high = power[:, radius > 0].sum(axis=1), power[:, radius > HIGH].sum(axis=1)
    return np.divide(high, total, out=np.full(len(total), np.nan), where=total > 1e-12)


def page(kept, path):
    """Write the page of {recipe: its states}, atomically."""
    grouped = text.number(1234567.5, 1)  # so that the page writes its numbers as the report does
    content = {
        "networks": [_embedded(recipe, found) for recipe, found in kept.items()],
        "attacks": [{"name": name, "label": label, "color": figures.COLORS[name]} for name, label in LABELS.items()],
        "qualities": ["no", *map(str, QUALITIES)], "high": HIGH, "group": grouped[1], "decimal": grouped[-2],
        "maps": {name: _text(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes())
                 for name in ("inferno", "viridis")}}
    template = TEMPLATE.read_text("utf8")
    with files.atomic(path) as partial:
        partial.write_text(template.replace("{{data}}", json.dumps(content).replace("<", "\\u003c")), "utf8")


def _chosen(model, data, per_class):
    """Return the indices of the first `per_class` test images of each class that the network has right."""
    right = under_attack.first_right(model, data, SEARCH)
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


def _of_states(recipe, per_class, seed):
    """Return the parameters by which `states` are kept."""
    return {"network": recipe.filename, "split": "test", "per_class": per_class, "seed": seed, "high": HIGH,
            "attacks": {"carlini_wagner": under_attack.CARLINI_WAGNER} | {
                attack: under_attack.settings(attack) for attack in SIZED},
            "eps": list(EPS[recipe.dataset]), "qualities": list(QUALITIES), "among": SEARCH}


def _column_agrees(kept, s, rows, delta, share):
    """Return whether these rows of column s are nearly delta: in L2, and in this share of the pixels.

    A share of 0 is of a search, which rounding may turn more than a step.
    """
    unit = np.where(kept["scale"][rows, s] > 0, kept["scale"][rows, s], 1)[:, *[np.newaxis] * 3]
    near = np.abs(kept["delta"][rows, s] - delta / unit) <= 1.5
    return (np.allclose(kept["l2"][rows, s, 0], attacks.l2(delta), rtol=0.05 if share else units.SEARCH, atol=1e-5)
            and near.mean() >= share)


def _numbers_agree(model, kept):
    """Return the unit of all images: they give the logits, norms and shares that are kept.

    Without JPEG what is kept is a rounded perturbation: there, nearly.
    """
    shown = images(kept)
    flat = shown.reshape(-1, *shown.shape[3:])
    delta = flat - np.repeat(kept["x"], len(flat) // len(shown), axis=0) / np.float32(255)
    found = {"logits": gradients.logits(model, flat), "l2": attacks.l2(delta), "linf": attacks.linf(delta),
             "high": high_share(delta)}
    found = {name: value.reshape(kept[name].shape) for name, value in found.items()}
    loose = {"logits": (0.05, 0.1), "l2": (0.01, 1e-5), "linf": (0.01, 1e-4), "high": (0.05, 0.01)}
    wrong = [name for name, (rtol, atol) in loose.items()
             if not np.allclose(kept[name], found[name], rtol=rtol, atol=atol, equal_nan=True)
             or name == "logits" and not np.allclose(*(part[name][:, :, 1:] for part in (kept, found)), 1e-3, 1e-2)]
    return units.holds("numbers of the images", f"{', '.join(loose)} are theirs" + (
        f", but not {', '.join(wrong)}" if wrong else ""), not wrong)


def _maps_agree(model, kept, rng):
    """Return the unit of the maps of some states, drawn by rng: as computed again from the images kept."""
    i, s, q = (rng.integers(size, size=proofs.FEW) for size in kept["logits"].shape[:3])
    shown, answer = images(kept)[i, s, q], kept["logits"][i, s, q].argmax(axis=1)
    now = np.stack([saliency.grad_cam(model, shown, of) for of in (kept["y"][i], answer)], axis=1)
    was = kept["cam"][i, s, q] / np.float32(255) * kept["top"][i][:, *[np.newaxis] * 3]
    near = np.isclose(was, now, rtol=0.1, atol=0.02 * kept["top"][i].max())
    return units.holds("maps", f"{near.mean():.0%} of the pixels of {proofs.FEW} are theirs", near.mean() > 0.9)


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
    report_parameters.check(given, dataset=["all", *datasets.NAMES], seed=range(2**31), epochs=[None, range(1, 1001)],
                     train_size=[None, range(100, 54211, 10)], **report_parameters.EXPLORER)
    per_class = given.pop("n_explorer")
    recipes = [recipe for kind in ("natural", "adversarial") for recipe in networks.recipes_for(kind=kind, **given)]
    page({recipe: states(recipe, per_class=per_class, seed=given["seed"])
          for recipe in tqdm(recipes, desc="explorer", unit="network")}, path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m helpers.report.explorer PROFILE.yaml OUT.html")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError, yaml.YAMLError) as error:
        sys.exit(f"make explorer: {error}")
