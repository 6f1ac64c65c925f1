"""What JPEG achieves as a defence: answers of networks behind it, under attackers who know it or not.

Answers and distances are artifacts, kept for each network, attacker and quality. The answer is always that
of the network behind the real codec, whatever the attacker took for it. Quality 0 stands for no JPEG.
"""
import numpy as np

from helpers import attacks, datasets, gradients, jpeg, robustness, store, training

QUALITIES = (0, 10, 25, 50, 75, 90)
EVERY = (0, *range(5, 101, 5))
DRAWN = (20, 40, 60, 80)  # SHIELD's, of a defender who draws the quality (Das et al. 2018)
DRAWS = 5  # of the defender, for each image
# Of the PGD of who knows: its gradients are rough, and with robustness's 40 steps of eps / 16 it leaves
# up to 21 points more (LeNet-5 of MNIST, the first 200 test images, eps 0.1, qualities 10 and 50).
NB_ITER, STRIDE = 80, 1 / 8  # eps_iter is STRIDE eps
FIXED = (10, 50, 90)  # of a defender whose quality the attacker knows
AWARE = ("identity", "differentiable")  # as in jpeg.defended, at the defender's quality
DRAWERS = ("blind", "one identity", "one differentiable", "mixed identity", "mixed differentiable")
LADDERS = {"mnist": (0, 0.05, 0.1, 0.15, 0.2, 0.3), "cifar10": (0, 1 / 255, 2 / 255, 4 / 255, 8 / 255)}
RADII = {"mnist": (0, 0.1, 0.2), "cifar10": (0, 1 / 255, 4 / 255)}  # of `drawn`


def answers(model, x, qualities):
    """Return the model's answers to the images at each quality, int8 (Q, N)."""
    return np.stack([
        gradients.logits(model, jpeg.compress(x, quality) if quality else x).argmax(axis=1)
        for quality in qualities]).astype(np.int8)


def clean(recipe, *, n):
    """Return the answers to the first n test images as they are: quality (Q,), answer (Q, n), y (n,)."""
    def make(model, x, y):
        return {"quality": np.array(EVERY), "answer": answers(model, x, EVERY), "y": y}
    return _kept("jpeg_clean", recipe, n, {"qualities": list(EVERY)}, make,
                 lambda kept: kept["answer"][0])


def blind(recipe, attack, *, norm, n, seed=0):
    """Return the answers to images attacked by who does not know of JPEG, over robustness's ladder.

    attack: one of robustness.ATTACKS. dict: eps (K,), quality (Q,), answer (K, Q, n), y (n,). At each
    radius the attack is made anew, since one that breaks the bare network need not break this one.
    """
    ladder = robustness.LADDERS[recipe.dataset, norm]

    def make(model, x, y):
        answer = np.empty((len(ladder), len(QUALITIES), len(x)), np.int8)
        for k, eps in enumerate(ladder):
            x_adv = robustness.attacked(model, x, y, attack, eps=eps, norm=norm, seed=seed) if eps else x
            answer[k] = answers(model, x_adv, QUALITIES)
        return {"eps": np.array(ladder), "quality": np.array(QUALITIES), "answer": answer, "y": y}

    more = {"attack": attack, "norm": str(norm), "eps": list(ladder), "qualities": list(QUALITIES),
            "nb_iter": robustness.NB_ITER, "seed": seed}
    return _kept("jpeg_blind", recipe, n, more, make, lambda kept: kept["answer"][0, 0])


def pgd(behind, x, y, *, eps, seed):
    """Return images after the PGD of who knows of JPEG: L-infinity, with the margin."""
    return attacks.pgd(behind, x, y, eps=eps, eps_iter=STRIDE * eps, nb_iter=NB_ITER, seed=seed,
                       loss="margin")


def aware(recipe, how, quality, *, n, seed=0):
    """Return the answers to PGD through JPEG of the defender's quality, L-infinity, with the margin.

    how: one of AWARE; quality 0 is the network alone. dict: eps (K,), answer (K, n), y (n,). The balls
    are nested: what one radius breaks stays broken.
    """
    ladder = LADDERS[recipe.dataset]

    def make(model, x, y):
        behind = jpeg.defended(model, quality, how) if quality else model

        def hit(rows, eps):
            x_adv = pgd(behind, x[rows], y[rows], eps=eps, seed=seed) if eps else x
            return answers(model, x_adv, [quality])[0]
        return {"eps": np.array(ladder), "answer": robustness.nested(hit, ladder, y), "y": y}

    more = {"how": how, "quality": quality, "eps": list(ladder), "nb_iter": NB_ITER, "stride": STRIDE,
            "seed": seed}
    return _kept("jpeg_aware", recipe, n, more, make, lambda kept: kept["answer"][0],
                 lambda model, x: answers(model, x, [quality])[0])


def drawn(recipe, attacker, *, n, seed=0):
    """Return the answers of a network whose defender draws the quality, of an image or of a block.

    attacker: one of DRAWERS: "blind"; "one …", who expects quality 50; "mixed …", who takes the mean of
    the logits at the defender's four (the expectation over the draw); the rest as in jpeg.defended.
    dict: eps (K,), image and block (K, DRAWS, n), the answers at each draw, y (n,).
    """
    ladder = RADII[recipe.dataset]
    if attacker not in DRAWERS:
        raise ValueError(f"attacker must be one of {', '.join(DRAWERS)}, got {attacker!r}")
    expects, _, how = attacker.partition(" ")

    def make(model, x, y):
        behind = jpeg.defended(model, {"one": 50, "mixed": DRAWN}[expects], how) if how else model
        image, block = np.empty((2, len(ladder), DRAWS, len(x)), np.int8)
        for k, eps in enumerate(ladder):
            x_adv = pgd(behind, x, y, eps=eps, seed=seed) if eps else x
            for draw in range(DRAWS):
                for kept, images in ((image, jpeg.compress(x_adv, _qualities(len(x), seed, draw))),
                                     (block, jpeg.compress_blocks(x_adv, DRAWN, seed=[seed, draw]))):
                    kept[k, draw] = gradients.logits(model, images).argmax(axis=1)
        return {"eps": np.array(ladder), "image": image, "block": block, "y": y}

    def again(model, x):
        return gradients.logits(model, jpeg.compress(x, _qualities(len(x), seed, 0))).argmax(axis=1)

    more = {"attacker": attacker, "qualities": list(DRAWN), "draws": DRAWS, "eps": list(ladder),
            "nb_iter": NB_ITER, "stride": STRIDE, "seed": seed}
    return _kept("jpeg_drawn", recipe, n, more, make, lambda kept: kept["image"][0, 0], again)


def recovered(recipe, *, n, confidence=0.0):
    """Return the answers to Carlini & Wagner's images (robustness.untargeted_set) behind JPEG.

    dict: quality (Q,), answer (Q, m), y (m,), l2 (m,), m <= n.
    """
    model, _ = training.load_or_train(recipe)
    found = robustness.untargeted_set(recipe, n=n, confidence=confidence)
    return {"quality": np.array(EVERY), "answer": answers(model, found["x_adv"], EVERY),
            "y": found["y"], "l2": found["l2"]}


def distances(recipe, quality, *, n):
    """Return the least L2 distance by which Carlini & Wagner fool n test images behind the real codec.

    The attack goes through each of AWARE, and what it finds is lengthened until the real codec lets it
    through; the nearest counts. dict: l2 (n,), inf where nothing was found, 0 where the network behind
    JPEG errs anyway; answer (n,), its answers without an attack; y (n,).
    """
    def make(model, x, y):
        victims = [jpeg.defended(model, quality, how) for how in AWARE] if quality else [model]
        l2 = [_reach(model, x, attacks.carlini_wagner(victim, x, y), y, quality) for victim in victims]
        return {"l2": np.min(l2, axis=0), "answer": answers(model, x, [quality])[0], "y": y}
    return _kept("jpeg_distances", recipe, n, {"quality": quality, "through": list(AWARE)}, make,
                 lambda kept: kept["answer"], lambda model, x: answers(model, x, [quality])[0])


def _reach(model, x, x_adv, y, quality):
    """Return the L2 norm of the least multiple, 1 to 4, of each perturbation that is an error, (N,)."""
    l2 = np.full(len(x), np.inf)
    for factor in np.geomspace(4, 1, 15):
        images = np.clip(x + np.float32(factor) * (x_adv - x), 0, 1)
        wrong = answers(model, images, [quality])[0] != y
        l2[wrong] = attacks.l2(images - x)[wrong]
    return l2


def confined(model, x, y, passing, *, eps):
    """Return x after one step of L2 norm eps within the DCT coefficients that JPEG lets through.

    passing: an (8, 8) of zeros and ones a plane. The step is the margin's gradient, projected: the
    best of the linearised problem in that subspace, up to the chroma's subsampling. Clipped to [0, 1].
    """
    x, y = gradients.checked(model, x, y, "margin")
    attacks.checked_eps("eps", eps)
    run, x_adv = gradients.function(model, "margin"), x.copy()
    for rows, images, labels in gradients.batches(128, x, y):
        step = jpeg.filtered(run(images, labels)[1], passing)[:rows.stop - rows.start]
        size = np.maximum(attacks.l2(step), 1e-12)[:, np.newaxis, np.newaxis, np.newaxis]
        x_adv[rows] = np.clip(x[rows] + np.float32(eps) * step / size, 0, 1)
    return x_adv


def _qualities(n, seed, draw):
    """Return the qualities that the defender draws for n images."""
    return np.random.default_rng([seed, draw]).choice(DRAWN, n)


def _kept(name, recipe, n, more, make, first, again=None):
    """Return the artifact of these parameters; make(model, x, y) of the first n test images.

    On loading, first(kept) must be the answers that the network gives now: again(model, images), or
    the network's own.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]

    def check(kept):
        now = (again or (lambda model, x: gradients.logits(model, x).argmax(axis=1)))(model, x)
        if not np.array_equal(kept["y"], y) or np.mean(first(kept) != now) > 0.01:
            raise ValueError(f"the kept answers of {recipe.filename} behind JPEG are not those that it "
                             "gives: delete the artifact to have it made again")
    parameters = {"network": recipe.filename, "split": "test", "n": len(x)} | more
    return store.cached(name, parameters, lambda: make(model, x, y), check=check)
