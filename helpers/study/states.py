"""What the explorer shows of a network, kept: images attacked and behind JPEG, answers, where it looks."""
import numpy as np

from helpers import attacks, datasets, frequency, jpeg, networks, saliency
from helpers.artifacts import proofs, store
from helpers.attacks import gradients
from helpers.study import under_attack, units

SIZED = ("noise", "fgsm", "pgd_margin")  # the attacks of a given size eps; Carlini & Wagner's has none
QUALITIES = (90, 50, 10)  # of JPEG, after none
HIGH = 0.25  # cycles per pixel, from which on a frequency counts as high
SEARCH = 500  # test images among which those to show are looked for
# Of the pixels, the share that an attack made anew must leave as they are. A step of PGD that rounding turns
# is followed by others: on another machine a quarter of the pixels of one of our networks are others.
PIXELS = {"pgd_margin": 0.5, "carlini_wagner": 0.0}


def columns(dataset):
    """Return the S attacked versions of an image that are kept, pairs (attack, number of its eps or None)."""
    levels = range(1, len(datasets.record(dataset).explorer_radii))
    return [("none", 0), *((attack, k) for attack in SIZED for k in levels), ("carlini_wagner", None)]


def states(recipe, *, per_class=1, seed=0):
    """Return all that the page shows of a recipe's network, of its first right test images of each class.

    dict of arrays over I images, the S `columns` and Q = 1 + len(QUALITIES) qualities, none first. index, y
    (I,); x (I, H, W, C), levels of 8 bits; delta, int8 (I, S, H, W, C), and its unit scale (I, S): the
    perturbation without JPEG; behind, uint8 (I, S, Q - 1, H, W, C): the levels behind JPEG (`shown_images`
    reads these three). Of the image shown, (I, S, Q, ...): logits (classes,); l2, linf of its difference from
    x; high, the share of the difference's energy beyond HIGH, NaN where it has none; cam, uint8 (2, H, W):
    Grad-CAM of the true class and of the answer, in 255ths of top (I,), the largest of an image's states.
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
        units.prove_units(recompute_explorer(of, kept, np.random.default_rng()), 4, "states of the explorer",
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
        same = np.mean(kept["logits"][rows, s, 0].argmax(axis=1) == answer)
        near = _column_agrees(kept, s, rows, x_adv - x[rows], PIXELS.get(kinds[s][0], 0.9))
        yield units.holds(
            f"{kinds[s]}, image {rows[0]} first", "L2 norms and pixels are the attack's, made anew",
            near and same >= 0.8 * (kinds[s][1] is not None))


def explored(model, x, y, attack, level, dataset, seed=0):
    """Return the images after one of the `columns`, (N, H, W, C)."""
    if (attack, level) not in columns(dataset):
        raise ValueError(f"attack and level must be among {columns(dataset)}, got {(attack, level)!r}")
    if attack == "none":
        return x
    if attack == "carlini_wagner":
        return under_attack.usual_carlini_wagner(model, x, y)
    eps = datasets.record(dataset).explorer_radii[level]
    return under_attack.attacked(model, x, y, attack, eps=eps, seed=seed)


def shown_images(kept):
    """Return the images of `states` as the page shows them, float32 (I, S, Q, H, W, C) in [0, 1].

    Exact behind JPEG; without it, up to half a unit `scale` of the perturbation.
    """
    x = kept["x"][:, np.newaxis, np.newaxis] / np.float32(255)
    bare = np.clip(x + kept["delta"][:, :, np.newaxis] * kept["scale"][:, :, *[np.newaxis] * 4], 0, 1)
    return np.concatenate([bare, kept["behind"] / np.float32(255)], axis=2)


def high_share(delta):
    """Return the share of the luma's energy beyond HIGH of differences (N, H, W, C), (N,), but for zero.

    NaN where there is no energy but at zero.
    """
    power = np.square(np.abs(np.fft.fft2(frequency.luma(delta), norm="ortho")))
    radius = frequency.radial_frequency(*power.shape[1:])
    total, high = power[:, radius > 0].sum(axis=1), power[:, radius > HIGH].sum(axis=1)
    return np.divide(high, total, out=np.full(len(total), np.nan), where=total > 1e-12)


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
    return found | {"delta": np.round(delta / unit).astype(np.int8), "scale": scale,
                    "behind": _levels(shown[:, :, 1:]), "top": top,
                    "cam": np.round(255 * cam / top[:, *[np.newaxis] * 5]).astype(np.uint8)}


def _levels(x):
    return np.round(255 * x).astype(np.uint8)


def _of_states(recipe, per_class, seed):
    """Return the parameters by which `states` are kept."""
    return {"network": recipe.filename, "split": "test", "per_class": per_class, "seed": seed, "high": HIGH,
            "attacks": {"carlini_wagner": under_attack.CARLINI_WAGNER} | {
                attack: under_attack.settings(attack) for attack in SIZED},
            "eps": list(datasets.record(recipe.dataset).explorer_radii), "qualities": list(QUALITIES),
            "among": SEARCH}


def _column_agrees(kept, s, rows, delta, share):
    """Return whether these rows of column s are nearly delta: in L2, and in this share of the pixels.

    A share of 0 is of a search, which rounding may turn more than a step.
    """
    unit = np.where(kept["scale"][rows, s] > 0, kept["scale"][rows, s], 1)[:, *[np.newaxis] * 3]
    near = np.abs(kept["delta"][rows, s] - delta / unit) <= 1.5
    rtol = 0.05 if share else units.SEARCH
    return (np.allclose(kept["l2"][rows, s, 0], attacks.l2(delta), rtol=rtol, atol=1e-5)
            and near.mean() >= share)


def _numbers_agree(model, kept):
    """Return the unit of all images: they give the logits, norms and shares that are kept.

    Without JPEG what is kept is a rounded perturbation: there, nearly.
    """
    shown = shown_images(kept)
    flat = shown.reshape(-1, *shown.shape[3:])
    delta = flat - np.repeat(kept["x"], len(flat) // len(shown), axis=0) / np.float32(255)
    found = {"logits": gradients.logits(model, flat), "l2": attacks.l2(delta), "linf": attacks.linf(delta),
             "high": high_share(delta)}
    found = {name: value.reshape(kept[name].shape) for name, value in found.items()}
    loose = {"logits": (0.05, 0.1), "l2": (0.01, 1e-5), "linf": (0.01, 1e-4), "high": (0.05, 0.01)}
    wrong = [name for name, (rtol, atol) in loose.items()
             if not np.allclose(kept[name], found[name], rtol=rtol, atol=atol, equal_nan=True)
             or name == "logits" and not np.allclose(
                 *(part[name][:, :, 1:] for part in (kept, found)), 1e-3, 1e-2)]
    return units.holds("numbers of the images", f"{', '.join(loose)} are theirs" + (
        f", but not {', '.join(wrong)}" if wrong else ""), not wrong)


def _maps_agree(model, kept, rng):
    """Return the unit of the maps of some states, drawn by rng: as computed again from the images kept."""
    i, s, q = (rng.integers(size, size=proofs.FEW) for size in kept["logits"].shape[:3])
    shown, answer = shown_images(kept)[i, s, q], kept["logits"][i, s, q].argmax(axis=1)
    now = np.stack([saliency.grad_cam(model, shown, of) for of in (kept["y"][i], answer)], axis=1)
    was = kept["cam"][i, s, q] / np.float32(255) * kept["top"][i][:, *[np.newaxis] * 3]
    near = np.isclose(was, now, rtol=0.1, atol=0.02 * kept["top"][i].max())
    share = near.mean()
    return units.holds("maps", f"{share:.0%} of the pixels of {proofs.FEW} are theirs", share > 0.9)
