"""Over-fitting and over-parameterisation: the networks of the study, and what is measured on each.

LeNet-5 on MNIST, trained as plainly as can be: Adam at a constant rate, no augmentation, no decay. One
arm learns the true labels, another learns NOISE of them wrong. A run is measured as it passes EPOCHS;
networks of other depths and widths after SHORT epochs. STUDY says what the report needs, which ships.
"""
import functools
import sys
import warnings

import numpy as np
from scipy.special import log_softmax

from helpers import attacks, datasets, networks
from helpers.artifacts import proofs, store, sweeps
from helpers.artifacts.values import Listed, require
from helpers.attacks import float64, gradients
from helpers.study import under_attack, units

EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200)
SHORT = 10
LAYERS = (0, 2, 4, 6, 8, 10)
WIDTHS = (0.5, 1.0, 2.0, 4.0)
NOISE = 0.2
EPS = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # L-infinity; of PGD too
FAR = (0.4, 0.5, 0.6, 0.8, 1.0)                   # as far as the draft went; of FGSM only
FGSM = ("probabilities", "cross_entropy", "tempered", "margin")  # its losses; float64 besides
SEARCHES = (*FGSM, "float64", "pgd_margin")
PROFILE = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)  # L2 steps along the gradient
QUANTILES = (5, 25, 50, 75, 95)
AXES = {"epochs": EPOCHS, "layers": LAYERS, "width": WIDTHS}
FEWEST = 3  # values along an axis, for there is a trend to be seen
ALLOWED = {axis: Listed(what, FEWEST) for axis, what in (
    ("epochs", range(1, 1001)), ("layers", range(101)), ("width", (0.05, 16)))}
# What the report needs: of each axis and part of wrong labels, the values and how many seeds.
STUDY = {("epochs", 0.0): (EPOCHS, 10), ("layers", 0.0): (LAYERS, 10), ("width", 0.0): (WIDTHS, 10),
         ("epochs", NOISE): (EPOCHS, 6), ("layers", NOISE): (LAYERS, 6), ("width", NOISE): (WIDTHS, 6)}
N = 1000          # test images under attack
N_DISTANCE = 100  # of Carlini & Wagner
TRAIN = 10_000  # training images on which loss and accuracy are measured
SETTINGS = {"eps": list(EPS), "far": list(FAR), "searches": list(SEARCHES), "profile": list(PROFILE),
            "quantiles": list(QUANTILES), "train": TRAIN, "pgd": under_attack.settings("pgd_margin"),
            "carlini_wagner": under_attack.CARLINI_WAGNER}
# Long runs, by part of wrong labels, whose first epoch comes out the same when trained anew: in the workers
# that trained the others, a background thread drew from the generator of the initial weights.
TRAINED_ANEW = {0.0: (1, 2, 3, 4, 5, 7)}


def recipe(seed, *, epochs=SHORT, extra_layers=0, width=1.0, label_noise=0.0, train_size=None):
    """Return the recipe of one network of the study."""
    arguments = tuple((name, value) for name, value, usual in
                      (("extra_layers", extra_layers, 0), ("width", width, 1.0)) if value != usual)
    return networks.Recipe("mnist", "lenet", arguments, epochs=epochs, learning_rate=1e-3,
                           schedule="constant", optimizer="adam", label_noise=label_noise,
                           train_size=train_size, seed=seed)


def measure_run(recipe, epochs, n, n_distance, settings):
    """Return what one run is worth as it passes each of K epochs: a dict of arrays.

    recipe: as JSON (networks.as_json). n: test images under attack; n_distance: those whose least
    distance is searched by Carlini & Wagner. settings: SETTINGS, since the artifact's name must hold them; a
    worker that has others raises ValueError. Arrays:
    epoch (K,); parameters (); train_loss, train_accuracy (on the labels that it was told),
    test_loss, test_accuracy (K,); train_margin, test_margin (K, 5), QUANTILES of the margin;
    right (K, 6, E, n): whether image i is still right under each of SEARCHES at each radius of EPS +
    FAR (PGD: beyond EPS as at its last); zero (K, 2, n): whether the gradient of the cross-entropy of
    logits and of probabilities is exactly zero; l2 (K, n_distance): the least distance, 0 where
    misclassified, inf where none was found; profile (K, 2, P, n_distance): margin and cross-entropy
    after PROFILE steps along the gradient that lowers the margin; slope (K, 2, n_distance): the L1 and L2
    norm of the margin's gradient.
    """
    if settings != store.as_kept(SETTINGS):
        raise ValueError(f"settings must be this code's, {SETTINGS}, got {settings}")
    recipe = networks.from_json(recipe)
    parts = []
    for epoch, model in networks.trajectory(recipe, epochs):
        parts.append({"epoch": epoch, "parameters": model.count_params(), **_fit(recipe, model),
                      **_attacked(recipe, model, n), **_near(recipe, model, n_distance)})
    return {name: np.array([part[name] for part in parts]) for name in parts[0]}


def recompute_overfitting_run(parameters, kept, rng):
    """Yield units of what `measure_run` keeps: whether it can be true; of some runs the first epoch anew.

    The networks do not ship, so that figures which agree with one another are not proved.
    """
    units.as_made(parameters["settings"], SETTINGS)
    yield from consistent(parameters, kept)
    recipe = networks.from_json(parameters["recipe"])
    if not (recipe.seed in TRAINED_ANEW.get(recipe.label_noise, ()) and recipe.epochs == max(EPOCHS)
            and kept["epoch"][0] == 1 and recipe.train_size is None and not recipe.arguments):
        yield "its network", "", "it does not ship, and a run of its seed is another one", None
        return
    model = networks.first_epoch(recipe)
    now = _fit(recipe, model)
    yield units.close("after an epoch", {name: kept[name][0] for name in now}, now, rtol=0.05, atol=0.05)
    few = proofs.FEW
    right = np.array(_attacked(recipe, model, few)["right"])
    yield units.close("after an epoch, under attack", {"right": kept["right"][0, :, :, :few]},
                      {"right": right}, rtol=0, atol=0, share=0.95)


def consistent(parameters, kept):
    """Yield units of what must hold of any run, whatever its network: exact relations but where it is said.

    Not one of them needs the network; together they bind the figures of a run to one another.
    """
    epoch, n, near = parameters["epochs"], parameters["n"], parameters["n_distance"]
    radii, shapes = np.array(EPS + FAR), {
        "epoch": (), "parameters": (), "zero": (2, n), "right": (len(SEARCHES), len(EPS + FAR), n),
        "l2": (near,), "profile": (2, len(PROFILE), near), "slope": (2, near),
        **{f"{name}_{what}": (len(QUANTILES),) if what == "margin" else ()
           for name in ("train", "test") for what in ("loss", "accuracy", "margin")}}
    formed = kept.keys() == shapes.keys() and all(kept[name].shape == (len(epoch), *shape)
                                                  for name, shape in shapes.items())
    yield units.holds("arrays", "of its epochs and sizes", formed and np.array_equal(kept["epoch"], epoch))
    if formed:
        yield from _fits(kept)
        yield from _survives(kept["right"].astype(bool), kept["zero"].astype(bool), kept["test_accuracy"])
        yield from _distances(kept, kept["right"][..., :near].astype(bool), radii,
                              datasets.record(parameters["recipe"]["dataset"]))


def _fits(kept):
    """Yield units of losses, accuracies and margins."""
    for name in ("train", "test"):
        accuracy, margin = kept[f"{name}_accuracy"], kept[f"{name}_margin"]
        share = 1 - np.array(QUANTILES) / 100  # of the images above the quantile
        beyond = np.where(margin > 0, share - accuracy[:, None], accuracy[:, None] - share)
        shares = ((accuracy >= 0) & (accuracy <= 1)).all()
        yield units.holds(f"{name} accuracies", "within [0, 1], as the quantiles of the margin have them",
                          shares and (np.diff(margin) >= 0).all() and beyond.max() <= 1e-3)
        yield units.holds(f"{name} losses", "at least ln 2 for each image that is wrong",
                          (kept[f"{name}_loss"] >= (1 - accuracy) * np.log(2)).all())


def _survives(right, zero, accuracy):
    """Yield units of what survives: right (K, 6, E, n), zero (K, 2, n)."""
    clean, pgd = right[:, 0, 0], right[:, -1]
    tolerance = 0.035 + 4 * np.sqrt(0.25 / clean.shape[1])  # images of the first thousand are a little harder
    same = (right[:, :, 0] == clean[:, None]).all()
    yield units.holds("images without an attack", "the same for all searches, as the test accuracy has them",
                      same and np.abs(clean.mean(axis=1) - accuracy).max() < tolerance)
    nested = (pgd[:, 1:] <= pgd[:, :-1]).all() and (pgd[:, len(EPS):] == pgd[:, [len(EPS) - 1]]).all()
    yield units.holds("images under PGD", "what one radius breaks, the greater ones do", nested)
    kept = lambda search: right[:, SEARCHES.index(search)] == clean[:, None]
    still = all(kept(search)[np.broadcast_to(none[:, None], pgd.shape)].all()
                for search, none in (("cross_entropy", zero[:, 0]), ("probabilities", zero[:, 1])))
    yield units.holds("images whose gradient is zero", "not changed by FGSM of that loss", still)


def _distances(kept, right, radii, data_set):
    """Yield units of distances and profiles; right: (K, 6, E, n_distance); data_set: its record."""
    l2, (one, two) = kept["l2"], kept["slope"].swapaxes(0, 1)
    margin, loss = kept["profile"].swapaxes(0, 1).astype(float)
    clean, side = right[:, 0, 0], np.sqrt(np.prod(data_set.shape))
    yield units.holds("distances", "0 where the network errs, and only there",
                      ((l2 == 0) == ~clean).all() and (l2 >= 0).all() and ((margin[:, 0] > 0) == clean).all())
    low, high = np.logaddexp(0, -margin), np.logaddexp(0, np.log(data_set.classes - 1) - margin)
    yield units.holds("cross-entropies", "within what so many classes leave for their margins",
                      (loss >= low - 1e-4).all() and (loss <= high + 1e-4).all())
    linear = (margin[:, 0] - margin[:, 1]) / PROFILE[1] / np.maximum(two, 1e-12)
    falls = np.median(np.maximum(linear, 1e-3), axis=1) if l2.shape[1] >= proofs.FEW else np.ones(len(l2))
    norms = ((two <= 1.001 * one) & (one <= 1.001 * side * two)).all()
    yield units.holds("gradients", f"L2 <= L1 <= {side:g} L2, and the margin falls by about as much at first",
                      norms and (np.abs(np.log(falls)) < 1).all())
    broken, found = ~right.all(axis=1), np.isfinite(l2) & (l2 > 0)
    first = np.where(broken.any(axis=1), radii[broken.argmax(axis=1)], np.inf)
    yield units.holds("distances", f"at most {side:g} times the radius that breaks it; nearly all were found",
                      (l2[found] <= 1.05 * side * first[found]).all() and np.isinf(l2).mean() <= 0.05)
    after = (margin < 0).argmax(axis=1)  # the first step beyond the boundary; 0, none
    known, step = found & (after > 0) & (margin[:, 0] > 0), np.array(PROFILE)
    ratio = [np.median(2 * l2[k, at] / (step[after[k, at]] + step[after[k, at] - 1]))
             for k, at in enumerate(known) if at.sum() >= proofs.FEW]
    yield units.holds("distances", "in the median, near where the margin crosses zero along the gradient",
                      all(0.3 < value < 1.3 for value in ratio))


def study(values=None, n_seeds=None, **more):
    """Return STUDY, a dict of part to arrays, as `studies`, whose other arguments `more` are.

    values: dict from an axis to the values to take instead (None: STUDY's). n_seeds: instead of theirs.
    """
    values = {axis: own for axis, own in (values or {}).items() if own is not None}
    for axis, own in values.items():
        _checked(axis, own)
    require("n_seeds", n_seeds, [None, range(1, 1001)])
    return studies({part: values.get(part[0], own) for part, (own, _) in STUDY.items()},
                   seeds={part: range(n_seeds or count) for part, (_, count) in STUDY.items()}, **more)


def studies(parts, *, seeds, epochs=SHORT, n=N, n_distance=N_DISTANCE, train_size=None,
            scheduler=None, workers=None):
    """Return what the networks of several parts of the study are worth: dict of part to arrays.

    parts: dict of (axis, label noise) to the values along the axis, None for those of AXES. axis: "epochs",
    checkpoints of the same runs; or "layers", "width", networks of their own after `epochs` epochs. seeds:
    those of all parts, or a dict of part to its own. The arrays are those of `measure_run`, of V values and S
    seeds, (V, S, ...), with value (V,) and seed (S,). Each part is kept as an artifact, and each run by
    itself, so that an interrupted study goes on. All runs that are missing are one sweep (sweeps.run, whose
    arguments the last two are). Raises ValueError for values outside ALLOWED, seeds or sizes that are none.
    """
    require("epochs", epochs, range(1, 1001))
    require("n", n, range(1, 10_001))
    require("n_distance", n_distance, range(1, n + 1))
    for own in seeds.values() if isinstance(seeds, dict) else [seeds]:
        require("seeds", list(own), Listed(range(2**31)))
    seeds = seeds if isinstance(seeds, dict) else dict.fromkeys(parts, seeds)
    sizes = {"n": n, "n_distance": n_distance}
    jobs = {part: _jobs(*part, _checked(part[0], values), list(seeds[part]), epochs, train_size, sizes)
            for part, values in parts.items()}
    keys = {part: {"axis": part[0], "jobs": [[*at, job.parameters] for at, job in own.items()]}
            for part, own in jobs.items()}
    missing = [part for part in jobs if not store.has("overfitting", keys[part])]
    sweeps.run([job for part in missing for job in jobs[part].values()],
               scheduler=scheduler, workers=workers)
    return {part: store.cached("overfitting", keys[part], functools.partial(_joined, part[0], own),
                               check=functools.partial(_prove_joined, part[0], own))
            for part, own in jobs.items()}


def _jobs(axis, label_noise, values, seeds, epochs, train_size, sizes):
    """Return the job of each (seed, value); checkpoints of one run have one job."""
    jobs = {}
    for seed in seeds:
        for value in values:
            own = ({"epochs": max(values)} if axis == "epochs" else
                   {"epochs": epochs, "extra_layers" if axis == "layers" else "width": value})
            one = recipe(seed, label_noise=label_noise, train_size=train_size, **own)
            jobs[seed, value] = sweeps.Job("overfitting_run", measure_run, {
                "recipe": networks.as_json(one), "epochs": list(values if axis == "epochs" else (epochs,)),
                **sizes, "settings": SETTINGS}, check=prove_run, sized=("n", _cut))
    return jobs


def prove_run(parameters, kept):
    """Raise ValueError unless a loaded run can be true: all of `consistent`."""
    units.prove_units(consistent(parameters, kept), None, "figures of a run",
                      networks.from_json(parameters["recipe"]).filename)


def _cut(kept, n):
    """Return what a run keeps of the first n images under attack."""
    return kept | {name: kept[name][..., :n] for name in ("right", "zero")}


def _prove_joined(axis, jobs, kept):
    """Raise ValueError unless a loaded part has the arrays of one of its runs, where that is there."""
    seeds, values = (sorted({key[i] for key in jobs}) for i in (0, 1))
    rng = np.random.default_rng()
    s, v = rng.integers(len(seeds)), rng.integers(len(values))
    job = jobs[seeds[s], values[v]]
    if store.has(job.name, job.parameters, sized=job.sized):
        run, = sweeps.run([job])
        row = v if axis == "epochs" else 0
        unit = units.same(f"seed {seeds[s]}, {axis} {values[v]}", {name: kept[name][v, s] for name in run},
                          {name: value[row] for name, value in run.items()})
        units.prove_units([unit], None, "study", job.parameters["recipe"]["dataset"])


def _joined(axis, jobs):
    """Return the arrays of a part, of the runs of its jobs."""
    runs = dict(zip(jobs, sweeps.run(jobs.values())))
    seeds, values = (sorted({key[i] for key in jobs}) for i in (0, 1))
    at = lambda value: values.index(value) if axis == "epochs" else 0
    found = {name: np.stack([np.stack([runs[seed, value][name][at(value)] for seed in seeds])
                             for value in values]) for name in runs[seeds[0], values[0]]}
    return found | {"value": np.array(values), "seed": np.array(seeds)}


def _fit(recipe, model):
    """Return losses, accuracies and margins on training images, with the labels told, and test images."""
    (x, y), _, test, _ = networks.images(recipe)
    result = {}
    for name, (x, y) in {"train": (x[:TRAIN], y[:TRAIN]), "test": test}.items():
        logits = gradients.logits(model, x).astype(np.float64)
        result |= {f"{name}_loss": _cross_entropy(logits, y).mean(),
                   f"{name}_accuracy": np.mean(logits.argmax(axis=1) == y),
                   f"{name}_margin": np.percentile(gradients.margins(logits, y), QUANTILES)}
    return result


def _attacked(recipe, model, n):
    """Return which of the first n test images survive which search at which radius."""
    data = datasets.load(recipe.dataset)
    x, y = data.x_test[:n], data.y_test[:n]
    radii = EPS + FAR

    def right(images):
        return gradients.logits(model, images).argmax(axis=1) == y

    with warnings.catch_warnings():  # gradients that vanish are what is measured here (`zero`)
        warnings.simplefilter("ignore", gradients.ZeroGradient)
        found = {loss: [right(images) for images in attacks.fgsm(model, x, y, eps=radii, loss=loss)]
                 for loss in FGSM}
    wide = float64.wide_copy(model)
    found["float64"] = [right(float64.wide_fgsm(wide, x, y, eps=eps)) for eps in radii]

    def hit(rows, eps):
        return gradients.logits(model, under_attack.attacked(model, x[rows], y[rows], "pgd_margin", eps=eps)
                                if eps else x[rows]).argmax(axis=1)
    pgd = under_attack.nested(hit, EPS, y) == y
    found["pgd_margin"] = [*pgd, *[pgd[-1]] * len(FAR)]
    zero = [~np.any(gradients.slopes(model, x, y, loss), axis=(1, 2, 3))
            for loss in ("cross_entropy", "probabilities")]
    return {"right": [found[search] for search in SEARCHES], "zero": zero}


def _near(recipe, model, n):
    """Return the least distance of the first n test images, and the landscape along the gradient."""
    data = datasets.load(recipe.dataset)
    x, y = data.x_test[:n], data.y_test[:n]
    right = gradients.logits(model, x).argmax(axis=1) == y
    l2 = np.zeros(len(x), np.float32)
    if right.any():
        l2[right] = attacks.l2(under_attack.usual_carlini_wagner(model, x[right], y[right]) - x[right])
        l2[right & (l2 == 0)] = np.inf
    g = gradients.slopes(model, x, y)  # of -F
    size = attacks.l2(g)
    u = g / np.maximum(size, np.finfo(np.float32).tiny).reshape(-1, 1, 1, 1)
    logits = [gradients.logits(model, x + np.float32(t) * u).astype(np.float64) for t in PROFILE]
    return {"l2": l2, "slope": [np.abs(g).sum(axis=(1, 2, 3)), size],
            "profile": np.float32([[gradients.margins(z, y) for z in logits],
                                   [_cross_entropy(z, y) for z in logits]])}


def _cross_entropy(logits, y):
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y]


def _checked(axis, values):
    """Return the values along an axis, those of AXES for None; raise ValueError where they are none of it."""
    if axis not in AXES:
        raise ValueError(f"axis must be one of {', '.join(AXES)}, got {axis!r}")
    values = AXES[axis] if values is None else values
    require(axis, list(values) if isinstance(values, tuple) else values, ALLOWED[axis])
    return tuple(map(float, values)) if axis == "width" else tuple(values)  # 2 and 2.0 are one network


def main():
    """Run the whole study: `make sweep`. SCHEDULER, WORKERS from the environment, as in sweeps.py."""
    study(**sweeps.where())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"make sweep: {error}")
