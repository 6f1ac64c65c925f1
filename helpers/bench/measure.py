"""What is compared, with which settings, on which images, and how one measurement is made."""
import contextlib
import functools
import random
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from helpers import attacks, datasets, networks
from helpers.artifacts import proofs, store
from helpers.attacks import gradients
from helpers.bench import peers
from helpers.study import accuracy, units

FIRST = 1000  # test images from here on; the settings of our attacks were chosen on those before
FEWER = {("art", "lenet"): 2, ("art", "resnet"): 1,  # of Carlini-Wagner, by peers that take minutes
         ("foolbox", "resnet"): 32, ("cleverhans", "resnet"): 32}  # for these, up to half an hour for one
REPEATS = {"fgsm": 11, "pgd": 3, "carlini_wagner": 3}  # a peer's Carlini-Wagner runs once
BRIEF = {"pgd": {"nb_iter": 1},  # for the first call, which compiles
         "carlini_wagner": {"binary_search_steps": 1, "max_iterations": 2}}

_CARLINI_WAGNER = {"learning_rate": 1e-2, "binary_search_steps": 9, "max_iterations": 1000,
                   "initial_const": 1e-3, "confidence": 0.0, "batch_size": 128}


class Compared(NamedTuple):
    """An attack on a network, with the same settings for every library, and on how many images."""
    dataset: str
    model: str
    attack: str
    norm: float
    settings: dict
    images: int = 512  # whole batches: one that is not, ours fills up


COMPARED = (
    Compared("mnist", "lenet", "fgsm", np.inf, {"eps": 0.2, "batch_size": 256}),
    Compared("mnist", "lenet", "fgsm", 2.0, {"eps": 2.0, "batch_size": 256}),
    Compared("mnist", "lenet", "pgd", np.inf,
             {"eps": 0.3, "eps_iter": 0.01, "nb_iter": 40, "batch_size": 128}),
    Compared("mnist", "lenet", "carlini_wagner", 2.0, _CARLINI_WAGNER, 300),
    Compared("cifar10", "resnet", "fgsm", np.inf, {"eps": 8 / 255, "batch_size": 256}),
    Compared("cifar10", "resnet", "fgsm", 2.0, {"eps": 0.5, "batch_size": 256}),
    Compared("cifar10", "resnet", "pgd", np.inf,
             {"eps": 8 / 255, "eps_iter": 2 / 255, "nb_iter": 40, "batch_size": 128}),
    Compared("cifar10", "resnet", "carlini_wagner", 2.0, _CARLINI_WAGNER, 128))


class Cell(NamedTuple):
    """What the libraries are compared on: a network, an attack, its norm, targeted or not."""
    dataset: str
    model: str
    attack: str
    norm: float
    targeted: bool

    @property
    def name(self):
        """The cell in words: mnist-lenet-fgsm-inf-untargeted."""
        return (f"{self.dataset}-{self.model}-{self.attack}-{self.norm:g}-"
                f"{'targeted' if self.targeted else 'untargeted'}")

    @property
    def compared(self):
        """The entry of COMPARED, with and without a target."""
        return next(entry for entry in COMPARED if entry[:4] == self[:4])

    @property
    def settings(self):
        """What every library is given."""
        return self.compared.settings


CELLS = tuple(Cell(*entry[:4], targeted) for entry in COMPARED for targeted in (False, True))


def libraries(cell):
    """Return the (library, variant) that have the cell's attack, ours first."""
    without = {("cleverhans", "as shipped" if cell.attack == "carlini_wagner" else "patched")}
    if cell.attack == "fgsm" and cell.targeted:
        without |= {("foolbox", "as shipped"), ("foolbox", "compiled")}
    return [peer for peer in peers.PEERS if peer not in without]


def goes_last(cell, library):
    """Return whether a measurement waits until all others are kept: it takes the most for an image."""
    return library == "art" and cell.attack == "carlini_wagner" and cell.model == "resnet"


def parameters(cell, library, variant, n=None, repeats=None):
    """Return all that a measurement depends on; n, repeats: instead of the usual numbers."""
    n = n or cell.compared.images
    repeats = repeats or REPEATS[cell.attack]
    if cell.attack == "carlini_wagner":
        n = min(n, FEWER.get((library, cell.model), n))
        repeats = repeats if library == "ours" else 1
    recipe, = networks.recipes_for(cell.dataset, cell.model)
    return {"network": recipe.filename, "attack": cell.attack, "norm": str(cell.norm),
            "targeted": cell.targeted, "settings": cell.settings, "library": library,
            "variant": variant, "first": FIRST, "n": n, "repeats": repeats}


@functools.lru_cache(maxsize=8)
def subject(dataset, model, n):
    """Return (network, x, y): its first n correctly classified test images from FIRST on."""
    recipe, = networks.recipes_for(dataset, model)
    network, _ = networks.load_or_train(recipe)
    data = datasets.load(dataset)
    x, y = data.x_test[FIRST:FIRST + 2 * n + 20], data.y_test[FIRST:FIRST + 2 * n + 20]
    right = np.flatnonzero(accuracy.predict(network, x).argmax(axis=1) == y)[:n]
    if len(right) < n:
        raise ValueError(f"n must be at most {len(right)} for {dataset}, got {n}")
    return network, x[right], y[right]


def given_labels(y, cell):
    """Return what an attack is told: the true labels, or the class after each as its target."""
    return (y + 1) % datasets.record(cell.dataset).classes if cell.targeted else y


@contextlib.contextmanager
def seeded(seed):
    """Seed the generators of Python, NumPy and TensorFlow, from which peers draw, and put them back after."""
    before = random.getstate(), np.random.get_state(), tf.compat.v1.random.get_seed(None)[0]
    try:
        for seeds in (random.seed, np.random.seed, tf.random.set_seed):
            seeds(seed)
        yield
    finally:
        for put, state in zip((random.setstate, np.random.set_state, tf.random.set_seed), before):
            put(state)


@seeded(0)
def measure(cell, library, variant, n, repeats):
    """Measure one library on one cell; return a dict of arrays.

    seconds (repeats,): of a call on all n images, compilation not counted. l2 (n,): of each image's
    perturbation, NaN where the attack failed. What a time is compared with is measured in turn with it,
    before each call and after the last, for a machine's speed drifts: for a peer, ours_seconds
    (repeats + 1,), of our attack on the same images; for ours, bare_seconds (repeats + 1,), of the
    compiled forward and backward passes that it used, alone, and passes (1,), their number an image.
    """
    model, x, y = subject(cell.dataset, cell.model, n)
    settings = {"attack": cell.attack, "norm": cell.norm, **cell.settings}
    told = given_labels(y, cell)

    def ready(peer):
        """Return the attack of a peer, compiled."""
        attack = functools.partial(peer, model, x, told, cell.targeted)
        attack(settings | BRIEF.get(cell.attack, {}))
        return functools.partial(attack, settings)
    attack = ready(peers.PEERS[library, variant])
    reference = one_pass(model, x, told, cell) if library == "ours" else ready(peers.ours)
    seconds, beside = [], [timed(reference)[0]]
    for _ in range(repeats):
        took, x_adv = timed(attack, at_least=0.2)
        seconds.append(took)
        beside.append(timed(reference)[0])
    result = {"seconds": np.array(seconds), "l2": achieved_distances(model, x, told, x_adv, cell.targeted)}
    if library != "ours":
        return result | {"ours_seconds": np.array(beside)}
    used = gradients_used(model, x, told, cell.targeted, settings) / n
    forward = timed(lambda: gradients.logits(model, x))[0] if cell.attack == "pgd" else 0.0
    return result | {"bare_seconds": used * np.array(beside) + forward, "passes": np.array([used])}


def gradients_used(model, x, y, targeted, settings):
    """Return of how many images, each as often as it is, our attack takes the gradient.

    The attack runs once more, on a model that counts. Repeated images, which only fill up a batch,
    do not count.
    """
    count = tf.Variable(0)

    @tf.custom_gradient
    def counted(x):
        def gradient(upstream):
            flat = tf.reshape(x, (tf.shape(x)[0], -1))
            distinct = tf.raw_ops.UniqueV2(x=flat, axis=[0]).y
            count.assign_add(tf.shape(distinct)[0])
            return upstream
        return tf.identity(x), gradient

    counting = lambda x: model(counted(x))
    gradients.checked(counting, x, y)  # which asks for a gradient itself, once
    count.assign(0)
    peers.ours(counting, x, y, targeted, settings)
    return int(count.numpy())


def one_pass(model, x, y, cell):
    """Return a function that computes the logits and gradients of all the images, compiled.

    In batches of the attack's size, of the loss that our attack uses.
    """
    gradient = gradients.function(model, "margin" if cell.attack == "carlini_wagner"
                                  else "cross_entropy")
    size = cell.settings["batch_size"]
    batches = [(tf.constant(x[i:i + size]), tf.constant(y[i:i + size]))
               for i in range(0, len(x), size)]

    def run():
        for images, told in batches:
            gradient(images, told)[1].numpy()
    run()  # compiles
    return run


def timed(run, at_least=0.5):
    """Return (seconds of one call, its result): the median of as many calls as fill `at_least` s."""
    seconds = []
    while sum(seconds) < at_least:
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def achieved_distances(model, x, y, x_adv, targeted):
    """Return the L2 norm of each perturbation, (N,), NaN where the attack failed.

    It failed where the model's answer is not right for the attacker, where the image is not of
    finite numbers in [0, 1], and where it is black: so Foolbox returns what it did not find.
    """
    answer = accuracy.predict(model, x_adv).argmax(axis=1)
    flat = x_adv.reshape(len(x_adv), -1)
    fine = (flat >= -1e-6).all(axis=1) & (flat <= 1 + 1e-6).all(axis=1) & (flat > 0).any(axis=1)
    success = fine & ((answer == y) if targeted else (answer != y))
    return np.where(success, attacks.l2(x_adv - x), np.nan)


def prove_cell(of, kept):
    """Raise ValueError unless a loaded measurement can be true, and some of its L2 norms come out again.

    Those of Carlini & Wagner, which take seconds an image, are left to `make verify`. of: its parameters.
    """
    count = 3 if of["attack"] == "carlini_wagner" else 4
    units.prove_units(recompute_bench_run(of, kept, np.random.default_rng()), count, "measurements",
                      f"{of['library']}'s {of['attack']} on {of['network']}")


def recompute_bench_run(of, kept, rng):
    """Yield units of what `measure` keeps: its times against one another, L2 norms of our attack made anew.

    FGSM is one and the same in all libraries; of PGD others draw other starts, and of Carlini & Wagner they
    have other searches: their norms are only near ours. Seconds are another machine's, or of another load:
    what is measured again, on the same processor, is the quotient of our time and of bare passes in turn with
    it.
    """
    recipe = networks.recipe_named(of["network"])
    cell = Cell(recipe.dataset, recipe.architecture, of["attack"], float(of["norm"]), of["targeted"])
    library, variant, n = of["library"], of["variant"], of["n"]
    if cell not in CELLS or (library, variant) not in libraries(cell):
        raise store.NotHere("there is no such cell of the benchmark")
    units.as_made(of, parameters(cell, library, variant, n, of["repeats"]))
    yield _formed(kept, library, n, of["repeats"])
    yield _times(kept, cell, library)
    yield _norms(kept["l2"], cell, n)
    model, x, y = subject(cell.dataset, cell.model, n)
    size = {"fgsm": 4 * proofs.FEW, "pgd": proofs.FEW, "carlini_wagner": 1}[cell.attack]
    for turn in range(4):
        rows = proofs.sample(rng, n, size)
        settings = {"attack": cell.attack, "norm": cell.norm, **cell.settings}
        if cell.attack == "pgd":
            settings["positions"] = rows
        told = given_labels(y[rows], cell)
        x_adv = peers.ours(model, x[rows], told, cell.targeted, settings)
        now = achieved_distances(model, x[rows], told, x_adv, cell.targeted)
        yield _alike(kept["l2"][rows], now, cell, library, rows)
    path = store.find(f"bench_run-{store.digest(of)}.npz")
    elsewhere = not path or path[1].get("processor") != store.processor()
    if library != "ours" or cell.attack != "fgsm" or elsewhere:
        yield "seconds", "", "measured again only for our FGSM, on the same processor", None
        return
    before, now = (_quotients(found) for found in (kept, measure(cell, library, variant, n, 1)))
    yield units.holds("seconds over those of bare passes", f"{np.median(before):.2f}, now {now[0]:.2f}",
                      before.min() / 1.5 < now[0] < 1.5 * before.max())


def _formed(kept, library, n, repeats):
    beside = {"ours_seconds": (repeats + 1,)} if library != "ours" else {
        "bare_seconds": (repeats + 1,), "passes": (1,)}
    shapes = {"seconds": (repeats,), "l2": (n,), **beside}
    return units.holds("arrays", "of its images and calls", kept.keys() == shapes.keys() and all(
        kept[name].shape == shape for name, shape in shapes.items()))


def _times(kept, cell, library):
    """Return the unit of the times: positive; calls alike; none in half the time of its passes."""
    times = [values for name, values in kept.items() if name.endswith("seconds")]
    fine = all(np.isfinite(values).all() and (values > 0).all() and values.max() < 5 * values.min()
               for values in times) and (_quotients(kept) > 0.5).all()
    if library == "ours":
        each = {"fgsm": 1, "pgd": cell.settings.get("nb_iter")}
        passes, = kept["passes"]
        fine = fine and passes == each.get(cell.attack, passes) and passes >= 1
        fine = fine and (_quotients(kept) < 3).all()
    return units.holds("seconds", "positive, of one spread, and not below those of the passes", fine)


def _quotients(kept):
    """Return each call's seconds over the mean of those measured before and after it."""
    beside = kept["bare_seconds" if "bare_seconds" in kept else "ours_seconds"]
    return kept["seconds"] / ((beside[:-1] + beside[1:]) / 2)


def _norms(l2, cell, n):
    """Return the unit of the L2 norms: positive, and no longer than the attack's ball and the box allow."""
    model, x, _ = subject(cell.dataset, cell.model, n)
    side = np.sqrt(x[0].size)
    longest = cell.settings["eps"] * (1 if cell.norm == 2 else side) if "eps" in cell.settings else side
    found = l2[~np.isnan(l2)]
    return units.holds("L2 norms", f"in (0, {longest:.4g}]",
                       (found > 0).all() and (found <= longest * (1 + 1e-4)).all())


def _alike(kept, now, cell, library, rows):
    """Return the unit of L2 norms of our attack made anew against those kept, NaN where it failed."""
    low, high = {"fgsm": (0.999, 1.001), "pgd": (0.75, 1.3) if library != "ours" else (0.95, 1.05),
                 "carlini_wagner": (0.3, 4) if library != "ours" else (0.4, 1.6)}[cell.attack]
    both = ~np.isnan(kept) & ~np.isnan(now)
    same = np.where(both, (kept >= low * now) & (kept <= high * now), np.isnan(kept) & np.isnan(now))
    may_fail = library != "ours" and cell.attack == "carlini_wagner"  # its own search
    told = f"{np.nansum(kept):.4g} in all, of our attack now {np.nansum(now):.4g}"
    # The starts that others draw for PGD are other ones: up to 2 % of their images differ from ours in what
    # ships.
    rate = 0.001 if cell.attack == "fgsm" else 0.005 if library == "ours" else 0.02
    return units.holds(f"L2 norms of images {rows[0]}, …", told,
                       proofs.agree(same | (may_fail & np.isnan(kept)), rate))
