"""What JPEG achieves as a defence: answers of networks behind it, under attackers who know it or not.

Answers and distances are artifacts, kept for each network, attacker and quality. The answer is always that
of the network behind the real codec, whatever the attacker took for it. Quality 0 stands for no JPEG.
What is loaded is proved: some of its images are attacked again. So does `make verify`, by the functions
recompute_jpeg_…(parameters, kept, rng), which yield units (units.py) without end of an artifact's entries.
"""
import numpy as np

from helpers import attacks, datasets, jpeg, networks
from helpers.artifacts import proofs, store
from helpers.attacks import gradients
from helpers.jpeg.attacker import aware_pgd, pgd_settings
from helpers.study import under_attack, units

QUALITIES = (0, 10, 25, 50, 75, 90)
EVERY = (0, *range(5, 101, 5))
DRAWN = (20, 40, 60, 80)  # SHIELD's, of a defender who draws the quality (Das et al. 2018)
DRAWS = 5  # of the defender, for each image
FIXED = (10, 50, 90)  # of a defender whose quality the attacker knows
AWARE = ("identity", "differentiable")  # as in jpeg.defended, at the defender's quality
DRAWERS = ("blind", "one identity", "one differentiable", "mixed identity", "mixed differentiable")
LENGTHS = 4, 1, 15  # as of np.geomspace: the multiples of what Carlini & Wagner add, the longest first
PROVED = 1 / 3  # of the artifacts, each time: to compile every network behind every codec takes minutes
BRIEF, SLACK = 100, 1.2  # iterations of the search on loading; how far beyond its result a distance may lie


def answers_by_quality(model, x, qualities):
    """Return the model's answers to the images at each quality, int8 (Q, N)."""
    return np.stack([
        gradients.logits(model, jpeg.compress(x, quality) if quality else x).argmax(axis=1)
        for quality in qualities]).astype(np.int8)


def clean(recipe, *, n):
    """Return the answers to the first n test images as they are: quality (Q,), answer (Q, n), y (n,)."""
    def make(model, x, y):
        return {"quality": np.array(EVERY), "answer": answers_by_quality(model, x, EVERY), "y": y}
    return _kept("jpeg_clean", recipe, n, {"qualities": list(EVERY)}, make, recompute_jpeg_clean, 4)


def recompute_jpeg_clean(parameters, kept, rng):
    """Yield units of what `clean` keeps: some images at each quality."""
    _, model, x, y = _case(parameters, {"qualities": list(EVERY)})
    yield units.same("images and qualities", kept, {"y": y, "quality": EVERY})
    for k in rng.permutation(len(EVERY)):
        yield units.same_answers_again(f"quality {EVERY[k]}", kept["answer"][k],
                                       lambda rows: answers_by_quality(model, x[rows], [EVERY[k]])[0], rng)


def blind(recipe, attack, *, norm, n, seed=0):
    """Return the answers to images attacked by who does not know of JPEG, over the data set's ladder.

    attack: one of under_attack.ATTACKS. dict: eps (K,), quality (Q,), answer (K, Q, n), y (n,). At each
    radius the attack is made anew, since one that breaks the bare network need not break this one.
    """
    more = _of_blind(recipe, attack, norm, seed)

    def make(model, x, y):
        answer = np.stack([_blind(model, x, y, more, eps, np.arange(len(x))) for eps in more["eps"]])
        return {"eps": np.array(more["eps"]), "quality": np.array(QUALITIES), "answer": answer, "y": y}
    return _kept("jpeg_blind", recipe, n, more, make, recompute_jpeg_blind, 2)


def recompute_jpeg_blind(parameters, kept, rng):
    """Yield units of what `blind` keeps: some images attacked again at each radius, the larger sooner."""
    of, eps = (parameters["attack"], _norm(parameters), parameters["seed"]), parameters["eps"]
    _, model, x, y = _case(parameters, lambda recipe: _of_blind(recipe, *of))
    yield units.same("images, radii and qualities", kept, {"y": y, "eps": eps, "quality": QUALITIES})
    for k in (*_radii(eps, rng), 0):
        yield units.same_answers_again(f"radius {eps[k]:.4g}", kept["answer"][k],
                                       lambda rows: _blind(model, x, y, parameters, eps[k], rows), rng)


def _of_blind(recipe, attack, norm, seed):
    return {"attack": attack, "norm": str(norm), "eps": list(datasets.record(recipe.dataset).ladders[norm]),
            "qualities": list(QUALITIES), "seed": seed, **under_attack.settings(attack)}


def _blind(model, x, y, of, eps, rows):
    """Return the answers (Q, R) to these rows of x attacked as `blind` attacks all."""
    x_adv = under_attack.attacked(model, x[rows], y[rows], of["attack"], eps=eps, norm=_norm(of),
                                  seed=of["seed"], positions=rows) if eps else x[rows]
    return answers_by_quality(model, x_adv, QUALITIES)


def _norm(parameters):
    return {str(norm): norm for norm in attacks.NORMS}[parameters["norm"]]


def aware(recipe, how, quality, *, n, seed=0):
    """Return the answers to PGD through JPEG of the defender's quality, L-infinity, with the margin.

    how: one of AWARE; quality 0 is the network alone. dict: eps (K,), answer (K, n), y (n,). The balls
    are nested: what one radius breaks stays broken.
    """
    more = _of_aware(recipe, how, quality, seed)

    def make(model, x, y):
        hit = _aware(model, x, y, more)
        return {"eps": np.array(more["eps"]), "y": y, "answer": under_attack.nested(
            lambda rows, eps: hit(rows, eps, np.arange(len(rows))), more["eps"], y)}
    return _kept("jpeg_aware", recipe, n, more, make, recompute_jpeg_aware, 4)


def recompute_jpeg_aware(parameters, kept, rng):
    """Yield units of what `aware` keeps: some of the images left at each radius, the larger sooner.

    An image starts where its place among those left at the radius before has it start.
    """
    of = parameters["how"], parameters["quality"], parameters["seed"]
    _, model, x, y = _case(parameters, lambda recipe: _of_aware(recipe, *of))
    hit, eps, answer = _aware(model, x, y, parameters), parameters["eps"], kept["answer"]
    yield units.same("images and radii", kept, {"y": y, "eps": eps})
    yield units.same_answers_again("radius 0", answer[0], lambda rows: hit(rows, 0, rows), rng)
    left = answer == y
    broken = ~left[:-1]
    yield units.holds("what one radius breaks", "it stays as it is",
                      np.array_equal(answer[1:][broken], answer[:-1][broken]))
    for k in _radii([0, *left[:-1].any(axis=1)], rng):
        rows = np.flatnonzero(left[k - 1])
        yield units.same_answers_again(f"radius {eps[k]:.4g}", answer[k, rows],
                                       lambda places: hit(rows[places], eps[k], places), rng)


def _of_aware(recipe, how, quality, seed):
    return {"how": how, "quality": quality, "seed": seed,
            "eps": list(datasets.record(recipe.dataset).jpeg_ladder), **pgd_settings()}


def _aware(model, x, y, of):
    """Return the function of (rows, eps, positions) to the answers to these rows of x, attacked so."""
    quality = of["quality"]
    behind = jpeg.defended(model, quality, of["how"]) if quality else model

    def hit(rows, eps, positions):
        x_adv = aware_pgd(behind, x[rows], y[rows], eps=eps, seed=of["seed"],
                          positions=positions) if eps else x[rows]
        return answers_by_quality(model, x_adv, [quality])[0]
    return hit


def quality_drawn(recipe, attacker, *, n, seed=0):
    """Return the answers of a network whose defender draws the quality, of an image or of a block.

    attacker: one of DRAWERS: "blind"; "one …", who expects quality 50; "mixed …", who takes the mean of
    the logits at the defender's four (the expectation over the draw); the rest as in jpeg.defended.
    dict: eps (K,), image and block (K, DRAWS, n), the answers at each draw, y (n,).
    """
    if attacker not in DRAWERS:
        raise ValueError(f"attacker must be one of {', '.join(DRAWERS)}, got {attacker!r}")
    more = _of_drawn(recipe, attacker, seed)

    def make(model, x, y):
        hit = _drawn(model, x, y, more)
        image, block = np.stack([hit(np.arange(len(x)), eps) for eps in more["eps"]], axis=1)
        return {"eps": np.array(more["eps"]), "image": image, "block": block, "y": y}
    return _kept("jpeg_drawn", recipe, n, more, make, recompute_jpeg_drawn, 2)


def recompute_jpeg_drawn(parameters, kept, rng):
    """Yield units of what `quality_drawn` keeps: some images in all draws, larger radii sooner."""
    of = parameters["attacker"], parameters["seed"]
    _, model, x, y = _case(parameters, lambda recipe: _of_drawn(recipe, *of))
    hit, eps = _drawn(model, x, y, parameters), parameters["eps"]
    yield units.same("images and radii", kept, {"y": y, "eps": eps})
    both = np.stack([kept["image"], kept["block"]])
    for k in (*_radii(eps, rng), 0):
        yield units.same_answers_again(f"radius {eps[k]:.4g}", both[:, k],
                                       lambda rows: hit(rows, eps[k]), rng)


def _of_drawn(recipe, attacker, seed):
    return {"attacker": attacker, "qualities": list(DRAWN), "draws": DRAWS, "seed": seed,
            "eps": list(datasets.record(recipe.dataset).drawn_radii), **pgd_settings()}


def _drawn(model, x, y, of):
    """Return the function of (rows, eps) to the answers to these rows, image and block, (2, DRAWS, R)."""
    expects, _, how = of["attacker"].partition(" ")
    behind = jpeg.defended(model, {"one": 50, "mixed": DRAWN}[expects], how) if how else model
    seed = of["seed"]

    def hit(rows, eps):
        x_adv = x.copy()  # whole: what the defender draws for an image goes by its place
        if eps:
            x_adv[rows] = aware_pgd(behind, x[rows], y[rows], eps=eps, seed=seed, positions=rows)
        found = np.empty((2, DRAWS, len(rows)), np.int8)
        for draw in range(DRAWS):
            for kind, images in enumerate((jpeg.compress(x_adv, _qualities(len(x), seed, draw)),
                                           jpeg.compress_blocks(x_adv, DRAWN, seed=[seed, draw]))):
                found[kind, draw] = gradients.logits(model, images[rows]).argmax(axis=1)
        return found
    return hit


def recovered(recipe, *, n, confidence=0.0):
    """Return the answers to Carlini & Wagner's images (under_attack.untargeted_set) behind JPEG.

    dict: quality (Q,), answer (Q, m), y (m,), l2 (m,), m <= n.
    """
    model, _ = networks.load_or_train(recipe)
    found = under_attack.untargeted_set(recipe, n=n, confidence=confidence)
    return {"quality": np.array(EVERY), "answer": answers_by_quality(model, found["x_adv"], EVERY),
            "y": found["y"], "l2": found["l2"]}


def least_distances(recipe, quality, *, n):
    """Return the least L2 distance by which Carlini & Wagner fool n test images behind the real codec.

    The attack goes through each of AWARE, and what it finds is lengthened until the real codec lets it
    through; the nearest counts. dict: l2 (n,), inf where nothing was found, 0 where the network behind
    JPEG errs anyway; answer (n,), its answers without an attack; y (n,).
    """
    def make(model, x, y):
        answer = answers_by_quality(model, x, [quality])[0]
        return {"l2": _nearest(model, x, y, quality), "answer": answer, "y": y}
    return _kept("jpeg_distances", recipe, n, _of_distances(quality), make, _brief_distances, 4)


def recompute_jpeg_distances(parameters, kept, rng):
    """Yield units of what `least_distances` keeps: one image after the other is searched again.

    Two searches for the same minimum may differ by rounding, of one image by up to units.SEARCH.
    """
    yield from _clean_distances(parameters, kept, rng)
    _, model, x, y = _case(parameters, _of_distances(parameters["quality"]))
    for i in rng.permutation(len(y)):
        now = _nearest(model, x[i:i + 1], y[i:i + 1], parameters["quality"])
        yield units.close(f"image {i}", {"l2": kept["l2"][i:i + 1]}, {"l2": now}, rtol=units.SEARCH, atol=0)


def _clean_distances(parameters, kept, rng):
    """Yield units of what needs no search: the answers, and that 0 stands just where they are wrong."""
    quality = parameters["quality"]
    _, model, x, y = _case(parameters, _of_distances(quality))
    yield units.same("images", kept, {"y": y})
    yield units.same_answers_again("answers without an attack", kept["answer"],
                                   lambda rows: answers_by_quality(model, x[rows], [quality])[0], rng)
    yield units.holds("distances", "they are 0 where the network errs, and only there",
                      np.array_equal(kept["l2"] == 0, kept["answer"] != y) and (kept["l2"] >= 0).all())


def _brief_distances(parameters, kept, rng):
    """Yield units on loading: a brief search through one of AWARE finds nothing much nearer for some images.

    What takes a whole search, whether something as near as that is there at all, is left to `make verify`.
    """
    yield from _clean_distances(parameters, kept, rng)
    quality = parameters["quality"]
    _, model, x, y = _case(parameters, _of_distances(quality))
    right = np.flatnonzero(kept["l2"])
    rows = right[proofs.sample(rng, len(right), 2)]
    if not len(rows):
        return
    how = [rng.choice(AWARE)] if quality else ()
    bound = _nearest(model, x[rows], y[rows], quality, how, max_iterations=BRIEF, binary_search_steps=1)
    yield units.holds(f"images {rows.tolist()}", f"distances {kept['l2'][rows]}, a brief search's {bound}",
                      (kept["l2"][rows] <= SLACK * bound).all())


def _of_distances(quality):
    return {"quality": quality, "through": list(AWARE), "lengths": list(LENGTHS),
            **under_attack.CARLINI_WAGNER}


def _nearest(model, x, y, quality, through=AWARE, **search):
    """Return the least L2 distance (N,) by which Carlini & Wagner, so set, fool the model behind JPEG."""
    search = under_attack.CARLINI_WAGNER | search
    victims = [jpeg.defended(model, quality, how) for how in through] if quality else [model]
    return np.min([_reach(model, x, attacks.carlini_wagner(victim, x, y, **search), y, quality)
                   for victim in victims], axis=0)


def _reach(model, x, x_adv, y, quality):
    """Return the L2 norm of the least multiple, of LENGTHS, of each perturbation that is an error, (N,)."""
    l2 = np.full(len(x), np.inf)
    for factor in np.geomspace(*LENGTHS):
        images = np.clip(x + np.float32(factor) * (x_adv - x), 0, 1)
        wrong = answers_by_quality(model, images, [quality])[0] != y
        l2[wrong] = attacks.l2(images - x)[wrong]
    return l2


def confined(model, x, y, passing, *, eps):
    """Return x after one step of L2 norm eps within the DCT coefficients that JPEG lets through.

    passing: an (8, 8) of zeros and ones a plane. The step is the margin's gradient, projected: the
    best of the linearised problem in that subspace, up to the chroma's subsampling. Clipped to [0, 1].
    """
    x, y = gradients.checked(model, x, y, "margin")
    attacks.checked_eps("eps", eps, norm=2, shape=x.shape)
    gradient, x_adv = gradients.slopes(model, x, y), x.copy()
    for rows, slope in gradients.batches(128, gradient):
        step = jpeg.filtered(slope, passing)[:rows.stop - rows.start]
        size = np.maximum(attacks.l2(step), 1e-12)[:, np.newaxis, np.newaxis, np.newaxis]
        x_adv[rows] = np.clip(x[rows] + np.float32(eps) * step / size, 0, 1)
    return x_adv


def _qualities(n, seed, draw):
    """Return the qualities that the defender draws for n images."""
    return np.random.default_rng([seed, draw]).choice(DRAWN, n)


def _radii(radii, rng):
    """Return the indices of the radii that are not 0 in random order, a larger one sooner: it claims more."""
    rows = np.flatnonzero(radii)
    return rng.choice(rows, len(rows), replace=False, p=rows / rows.sum()) if len(rows) else rows


def _kept(name, recipe, n, more, make, recompute, proved):
    """Return the artifact of these parameters; make(model, x, y) of the first n test images.

    On loading, the first of the units of recompute(parameters, kept, rng) must agree, and, of a share PROVED
    of all artifacts drawn at random, the first `proved`. What is kept of more images serves too.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    parameters = {"network": recipe.filename, "split": "test", "n": len(x)} | more

    def check(kept):
        rng = np.random.default_rng()
        units.prove_units(recompute(parameters, kept, rng), proved if rng.random() < PROVED else 1,
                          "answers behind JPEG", recipe.filename)

    return store.cached(name, parameters, lambda: make(model, x, y), sized=("n", _cut), check=check)


def _cut(kept, n):
    """Return what is kept of the first n images: their axis is the last of answer, image, block, l2 and y."""
    return {name: value if name in ("eps", "quality") else value[..., :n] for name, value in kept.items()}


def _case(parameters, more):
    """Return units.case(parameters); raise store.NotHere unless `more` is what else the parameters say.

    more: a dict, or a function of the recipe.
    """
    found = units.case(parameters)
    more = more(found[0]) if callable(more) else more
    units.as_made(parameters, {name: parameters[name] for name in ("network", "split", "n")} | more)
    return found
