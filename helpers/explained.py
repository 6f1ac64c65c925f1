"""What the maps of the networks say before and after an attack, kept as artifacts and proved on loading."""
import numpy as np

from helpers import attacks, datasets, gradients, jpeg, robustness, saliency, spectra, store, training

EPS = {"mnist": 0.1, "cifar10": 2 / 255}  # L-infinity, of FGSM and PGD
ATTACKS = ("fgsm", "pgd_margin", "carlini_wagner")
QUALITY = 50  # of the JPEG that may bring the class back
SHARES = (0.1, 0.25)  # of the pixels that count as salient
METHODS = {
    "grad_cam": saliency.grad_cam,
    "gradient": lambda *given: saliency.magnitude(saliency.input_gradient(*given)),
    "integrated": lambda *given: saliency.magnitude(saliency.integrated_gradients(*given, steps=32)),
    "smooth": lambda *given: saliency.magnitude(saliency.smooth_grad(*given, draws=16)),
}
SHOWN = ("grad_cam", "gradient")
MEASURES = {"spearman": saliency.spearman, "ssim": saliency.ssim, "overlap": saliency.overlap,
            "shift": saliency.centroid_shift, "divergence": saliency.jensen_shannon}
PAIRS = ("true", "new", "class", "seen", "noise", "jpeg")
PROOF = 3  # attacked images that are kept, by which the measures are proved
RANDOM = 0.9  # of ten classes: with that share wrong, a label says nothing
PUPIL = {"epochs": 60, "train_size": 5000}  # of networks that learn labels by heart, in batches of 32


def changes(recipe, attack, *, n, seed=0):
    """Return how the maps of a recipe's network change on the first n test images that it has right.

    dict of arrays (n,): index, y; answer, after the attack; noise_answer, after Gaussian noise of the same
    L2 norm; jpeg_answer, of the attacked image behind JPEG; l2. For each method of SHOWN, pair of PAIRS and
    measure of MEASURES, "method pair measure": between the map of the true class before and after ("true");
    of the answer before and after ("new"); of both classes before ("class"); of the true class before and of
    the answer after, what one sees ("seen"); of the true class before and under noise ("noise"), or after
    attack and JPEG ("jpeg"). For each method and share of SHARES, "method energy share": the part of the
    perturbation's energy on the salient pixels of the true class; "method noise_energy share", the noise's.
    x_adv, x_noise: of the first PROOF images.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    index = robustness.first_right(model, data, 2 * n + 100)[:n]

    x, y = data.x_test[index], data.y_test[index]

    def make():
        x_adv, x_noise = attacked(model, x, y, attack, recipe.dataset, seed)
        return {"index": index, "y": y, "x_adv": x_adv[:PROOF], "x_noise": x_noise[:PROOF],
                **_changes(model, x, y, x_adv, x_noise)}

    def check(kept):
        again = _changes(model, x[:PROOF], y[:PROOF], kept["x_adv"], kept["x_noise"])
        close = [np.allclose(kept[name][:PROOF], again[name], rtol=0.02, atol=0.02, equal_nan=True) for name in again]
        robustness.prove(np.array_equal(kept["index"], index) and np.mean(close) > 0.9, "changes of maps", recipe)

    return store.cached("map_changes", {"network": recipe.filename, "split": "test", "n": len(index), "seed": seed,
                                        "attack": attack, "eps": EPS[recipe.dataset], "quality": QUALITY,
                                        "shares": list(SHARES)}, make, check=check)


def attacked(model, x, y, attack, dataset, seed=0):
    """Return (x_adv, x_noise): the attacked images, and the images with Gaussian noise of the same L2 norms."""
    if attack not in ATTACKS:
        raise ValueError(f"attack must be one of {', '.join(ATTACKS)}, got {attack!r}")
    if attack == "carlini_wagner":
        x_adv = attacks.carlini_wagner(model, x, y)
    else:
        x_adv = robustness.attacked(model, x, y, attack, eps=EPS[dataset], seed=seed)
    noise = np.random.default_rng([seed, 7]).standard_normal(x.shape).astype(np.float32)
    size = attacks.l2(x_adv - x) / attacks.l2(noise)
    return x_adv, np.clip(x + size[:, None, None, None] * noise, 0, 1)


def _changes(model, x, y, x_adv, x_noise):
    through = jpeg.compress(x_adv, QUALITY)
    answer, noise_answer, jpeg_answer = (gradients.logits(model, images).argmax(axis=1)
                                         for images in (x_adv, x_noise, through))
    found = {"answer": answer, "noise_answer": noise_answer, "jpeg_answer": jpeg_answer, "l2": attacks.l2(x_adv - x)}
    for method in SHOWN:
        draw = METHODS[method]
        true, new = draw(model, x, y), draw(model, x, answer)
        new_after = draw(model, x_adv, answer)
        pairs = {"true": (true, draw(model, x_adv, y)), "new": (new, new_after), "class": (true, new),
                 "seen": (true, new_after), "noise": (true, draw(model, x_noise, y)), "jpeg": (true, draw(model, through, y))}
        for pair in PAIRS:
            found |= {f"{method} {pair} {name}": measure(*pairs[pair]).astype(np.float32)
                      for name, measure in MEASURES.items()}
        for share in SHARES:
            found[f"{method} energy {share}"] = saliency.energy_share(x_adv - x, true, share).astype(np.float32)
            found[f"{method} noise_energy {share}"] = saliency.energy_share(x_noise - x, true, share).astype(np.float32)
    return found


def cascade(recipe, *, n, seed=0, points=7):
    """Return how maps change as the network's layers are randomised from the logits downwards.

    dict: count (P,), how many layers with weights are random, from 0 to all; for each of METHODS (P, n), the
    rank correlation between the map of the true class and that of the network as trained.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    layers = saliency.count_layers(model)
    count = np.unique(np.linspace(0, layers, points).round().astype(int))

    def similarities(methods, count, rows=slice(None)):
        random = [saliency.randomised(model, int(k), seed) for k in count]
        trained = {method: METHODS[method](model, x[rows], y[rows]) for method in methods}
        return {method: np.stack([saliency.spearman(trained[method], METHODS[method](other, x[rows], y[rows]))
                                  for other in random]) for method in methods}

    def make():
        return {"count": count} | similarities(METHODS, count)

    def check(kept):
        again = similarities(["gradient"], count[1:2], slice(0, 4))["gradient"][0]
        robustness.prove(np.allclose(again, kept["gradient"][1, :4], atol=0.02), "maps of random networks", recipe)

    return store.cached("map_cascade", {"network": recipe.filename, "split": "test", "n": len(x), "seed": seed,
                                        "counts": count.tolist()}, make, check=check)


def tale(recipe, source, target, *, n):
    """Return images of one class made into another: dict of index (n,), near and step, (n, H, W, C).

    The first n test images of class source that the network has right (of 1,000; where it has none, the first of that
    class); near, after targeted Carlini & Wagner; step, after targeted FGSM of radius EPS, which may miss.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    all_of, right = np.flatnonzero(data.y_test[:1000] == source), robustness.first_right(model, data, 1000)
    index = (own if len(own := np.intersect1d(all_of, right)) else all_of)[:n]
    x, goal = data.x_test[index], np.full(len(index), target)

    def make():
        return {"index": index, "near": attacks.carlini_wagner(model, x, goal, targeted=True),
                "step": attacks.fgsm(model, x, goal, eps=EPS[recipe.dataset], targeted=True)}

    def check(kept):
        hit = gradients.logits(model, kept["near"]).argmax(axis=1) == target
        robustness.prove(np.array_equal(kept["index"], index) and hit[np.any(kept["near"] != x, axis=(1, 2, 3))].all(),
                         "targeted images", recipe)

    return store.cached("tale", {"network": recipe.filename, "source": source, "target": target, "n": n,
                                 "eps": EPS[recipe.dataset]}, make, check=check)


def towards(recipe, source, target, *, n):
    """Return the cosine between what targeted Carlini & Wagner adds to images and the way to mean images: (n, 10).

    The images of `tale`; entry k is the way from the image to the mean training image of class k; NaN where nothing
    was added.
    """
    data, kept = datasets.load(recipe.dataset), tale(recipe, source, target, n=n)
    x = data.x_test[kept["index"]]
    means = np.stack([data.x_train[data.y_train == k].mean(axis=0) for k in range(10)])
    delta, way = (kept["near"] - x)[:, None], means - x[:, None]
    dot, one, two = (np.sum(product, axis=(2, 3, 4), dtype=np.float64) for product in (delta * way, delta**2, way**2))
    return np.divide(dot, np.sqrt(one * two), out=np.full(dot.shape, np.nan), where=one * two > 0)


def pupil(dataset, *, label_noise=0.0, seed=0, epochs=None, train_size=None):
    """Return the recipe of a LeNet-5 that learns the labels of few images by heart, PUPIL."""
    return training.Recipe(dataset, "lenet", epochs=epochs or PUPIL["epochs"], learning_rate=1e-3, schedule="constant", batch_size=32,
                           optimizer="adam", train_size=train_size or PUPIL["train_size"], label_noise=label_noise, seed=seed)


def labels(dataset, *, n, seed=0, **size):
    """Return whether maps depend on the labels that a network was told: the second test of Adebayo et al. 2018.

    Three networks of `pupil`, whose further arguments are **size: with the true labels, with the true labels and
    another seed, and with random ones. dict: train_accuracy (3,), on the labels that each was told; for each of
    METHODS (2, n), the rank correlation between the first network's map of the true class of the first n test
    images, and the second's and the third's.
    """
    data = datasets.load(dataset)
    x, y = data.x_test[:n], data.y_test[:n]
    recipes = [pupil(dataset, label_noise=noise, seed=own, **size)
               for noise, own in ((0.0, seed), (0.0, seed + 1), (RANDOM, seed))]
    networks = [training.load_or_train(recipe) for recipe in recipes]

    def similarities(method, rows=slice(None)):
        first, *others = (METHODS[method](model, x[rows], y[rows]) for model, _ in networks)
        return np.stack([saliency.spearman(first, other) for other in others])

    def make():
        accuracy = [history["accuracy"][-1] for _, history in networks]
        return {"train_accuracy": np.array(accuracy)} | {method: similarities(method) for method in METHODS}

    def check(kept):
        again = similarities("gradient", slice(0, PROOF))
        robustness.prove(np.allclose(again, kept["gradient"][:, :PROOF], atol=0.02), "maps of learnt labels", recipes[0])

    return store.cached("map_labels", {"networks": [recipe.filename for recipe in recipes], "split": "test", "n": len(x)},
                        make, check=check)


def readable(recipe, *, n):
    """Return how much a network's gradients look like the image: dict of arrays (N,), the first n test images.

    Of the gradient of the true class's logit: "cosine", |<x, g>| / (||x|| ||g||), x and g less their means: the
    alignment of Etmann et al. 2019, arXiv:1905.04172, made free of the image's size; "edges", the rank correlation of
    its magnitude with the image's edges (Sobel); "high", the share of its energy above 0.25 cycles per pixel.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, g = data.x_test[:n], saliency.input_gradient(model, data.x_test[:n], data.y_test[:n])
    power = np.square(np.abs(spectra.transform(g))).sum(axis=1)
    high = spectra.radial_frequency(*x.shape[1:3]) > 0.25
    total = power.sum(axis=(1, 2))
    return {"cosine": saliency.alignment(x, g), "edges": saliency.spearman(saliency.magnitude(g), saliency.edges(x)),
            "high": np.divide((power * high).sum(axis=(1, 2)), total, out=np.full(len(x), np.nan), where=total > 0)}
