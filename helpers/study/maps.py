"""What the maps of the networks say before and after an attack, kept as artifacts and proved on loading."""
import numpy as np

from helpers import attacks, datasets, frequency, jpeg, networks, saliency
from helpers.artifacts import proofs, store
from helpers.attacks import gradients
from helpers.study import under_attack, units

ATTACKS = ("fgsm", "pgd_margin", "carlini_wagner")
QUALITY = 50  # of the JPEG that may bring the class back
SHARES = (0.1, 0.25)  # of the pixels that count as salient
SETTINGS = {"grad_cam": {}, "gradient": {}, "integrated": {"steps": 32}, "smooth": {"draws": 16}}
METHODS = {
    "grad_cam": saliency.grad_cam,
    "gradient": lambda *given: saliency.magnitude(saliency.input_gradient(*given)),
    "integrated": lambda *given: saliency.magnitude(
        saliency.integrated_gradients(*given, **SETTINGS["integrated"])),
    "smooth": lambda *given: saliency.magnitude(saliency.smooth_grad(*given, **SETTINGS["smooth"])),
}
SHOWN = ("grad_cam", "gradient")
MEASURES = {"spearman": saliency.spearman, "ssim": saliency.ssim, "overlap": saliency.overlap,
            "shift": saliency.centroid_shift, "divergence": saliency.jensen_shannon}
PAIRS = ("true", "new", "class", "seen", "noise", "jpeg")
PROOF = 3  # attacked images that are kept
NEAR = {"rtol": 0.02, "atol": 0.02}  # what a rounding may change, of a measure between maps
SHARE = 0.9  # of the measures that must be that near: where a pixel's sign or rank tips, others move
MEMORISING = {"epochs": 60, "train_size": 5000}  # of networks that learn labels by heart, in batches of 32


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
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    index = under_attack.first_right(model, data, 2 * n + 100)[:n]
    x, y = data.x_test[index], data.y_test[index]
    parameters = _of_changes(recipe, attack, len(index), seed)

    def make():
        x_adv, x_noise = attacked_images(model, x, y, attack, recipe.dataset, seed)
        return {"index": index, "y": y, "x_adv": x_adv[:PROOF], "x_noise": x_noise[:PROOF],
                **_changes(model, x, y, x_adv, x_noise)}

    def cut(kept, n):
        return {name: value[:n] for name, value in kept.items()}
    return _cached("map_changes", parameters, make, recompute_map_changes, 4, "changes of maps", cut)


def recompute_map_changes(parameters, kept, rng):
    """Yield units of what `changes` keeps: the measures on the images kept, then images attacked again."""
    recipe, index = networks.recipe_named(parameters["network"]), kept["index"]
    units.as_made(parameters, _of_changes(recipe, parameters["attack"], parameters["n"], parameters["seed"]))
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    right = under_attack.first_right(model, data, 2 * len(index) + 100)[:len(index)]
    yield units.same("images", kept, {"index": right, "y": data.y_test[right]})
    x, y, few = data.x_test[index], data.y_test[index], slice(PROOF)
    now = _changes(model, x[few], y[few], kept["x_adv"], kept["x_noise"])
    yield units.close(f"the first {PROOF} images", {name: kept[name][few] for name in now}, now, **NEAR,
                      share=SHARE, steady=_steady(now), each=0.3)
    if parameters["attack"] != "carlini_wagner":
        yield units.holds("perturbations of these", "within eps", attacks.linf(kept["x_adv"] - x[few]).max()
                          <= parameters["eps"] + 1e-6)
    else:
        yield units.holds("answers under Carlini & Wagner", "all wrong, but where it found nothing",
                          ((kept["answer"] != y) | (kept["l2"] == 0)).all())

    def again(rows, each):
        x_adv, x_noise = attacked_images(model, x[rows], y[rows], parameters["attack"], recipe.dataset,
                                         parameters["seed"], rows)
        now = _changes(model, x[rows], y[rows], x_adv, x_noise)
        return units.close(f"images {rows.tolist()} attacked again",
                           {name: kept[name][rows] for name in now}, now, **NEAR,
                           share=SHARE - 0.1, steady=_steady(now), each=each)

    for rows in _some(rng, len(y), 2):  # each measure by itself; where one of an image differs, more images
        unit = again(rows, 1.0)
        yield unit if unit[-1] else again(np.union1d(rows, proofs.sample(rng, len(y), 8)), 0.3)


def _steady(measured):
    """Return the measures that a perturbation's last digits hardly change: not those that count pixels."""
    return [name for name in measured if not name.endswith((" shift", " overlap"))]


def _of_changes(recipe, attack, n, seed):
    search = under_attack.CARLINI_WAGNER if attack == "carlini_wagner" else under_attack.settings(attack)
    return {"network": recipe.filename, "split": "test", "n": n, "seed": seed, "attack": attack,
            "eps": datasets.record(recipe.dataset).small, "quality": QUALITY, "shares": list(SHARES),
            "measures": list(MEASURES), "methods": {name: SETTINGS[name] for name in SHOWN}, **search}


def attacked_images(model, x, y, attack, dataset, seed=0, positions=None):
    """Return (x_adv, x_noise): the attacked images, and the images with Gaussian noise of the same L2 norms.

    positions: as of attacks.pgd.
    """
    if attack not in ATTACKS:
        raise ValueError(f"attack must be one of {', '.join(ATTACKS)}, got {attack!r}")
    if attack == "carlini_wagner":
        x_adv = under_attack.usual_carlini_wagner(model, x, y)
    else:
        x_adv = under_attack.attacked(model, x, y, attack, eps=datasets.record(dataset).small, seed=seed,
                                      positions=positions)
    places = attacks.checked_positions(positions, len(x))
    noise = np.random.default_rng([seed, 7]).standard_normal((places.max() + 1, *x.shape[1:]))
    noise = noise[places].astype(np.float32)
    size = attacks.l2(x_adv - x) / attacks.l2(noise)
    return x_adv, np.clip(x + size[:, None, None, None] * noise, 0, 1)


def _changes(model, x, y, x_adv, x_noise):
    through = jpeg.compress(x_adv, QUALITY)
    answer, noise_answer, jpeg_answer = (gradients.logits(model, images).argmax(axis=1)
                                         for images in (x_adv, x_noise, through))
    found = {"answer": answer, "noise_answer": noise_answer, "jpeg_answer": jpeg_answer,
             "l2": attacks.l2(x_adv - x)}
    for method in SHOWN:
        draw = METHODS[method]
        true, new = draw(model, x, y), draw(model, x, answer)
        new_after = draw(model, x_adv, answer)
        pairs = {"true": (true, draw(model, x_adv, y)), "new": (new, new_after), "class": (true, new),
                 "seen": (true, new_after), "noise": (true, draw(model, x_noise, y)),
                 "jpeg": (true, draw(model, through, y))}
        for pair in PAIRS:
            found |= {f"{method} {pair} {name}": measure(*pairs[pair]).astype(np.float32)
                      for name, measure in MEASURES.items()}
        for share in SHARES:
            for kind, images in (("energy", x_adv), ("noise_energy", x_noise)):
                energy = saliency.energy_share(images - x, true, share)
                found[f"{method} {kind} {share}"] = energy.astype(np.float32)
    return found


def cascade(recipe, *, n, seed=0, points=7):
    """Return how maps change as the network's layers are randomised from the logits downwards.

    dict: count (P,), how many layers with weights are random, from 0 to all; for each of METHODS (P, n), the
    rank correlation between the map of the true class and that of the network as trained.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    parameters = _of_cascade(recipe, model, len(x), seed, points)

    def make():
        counts = parameters["counts"]
        return {"count": np.array(counts)} | _cascaded(model, x, y, METHODS, counts, seed)

    def cut(kept, n):
        return {name: value if name == "count" else value[:, :n] for name, value in kept.items()}
    return _cached("map_cascade", parameters, make, recompute_map_cascade, 2, "maps of random networks", cut)


def recompute_map_cascade(parameters, kept, rng):
    """Yield units of what `cascade` keeps: some images' maps by one method, at one number of random layers.

    The first is of the gradient, which takes the least.
    """
    recipe, model, x, y = units.case(parameters)
    counts, seed = parameters["counts"], parameters["seed"]
    units.as_made(parameters, _of_cascade(recipe, model, len(x), seed, counts=counts))
    yield units.same("numbers of layers", kept, {"count": counts})
    pairs = [(method, k) for method in METHODS for k in range(len(counts))]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    first = next(pair for pair in pairs if pair[0] == "gradient")
    for method, k in (first, *(pair for pair in pairs if pair != first)):
        rows = proofs.sample(rng, len(x), 4)
        whole = slice(rows.max() + 1)  # SmoothGrad's noise goes by an image's place
        now = _cascaded(model, x[whole], y[whole], [method], counts[k:k + 1], seed)[method][0, rows]
        yield units.close(f"{method}, {counts[k]} layers, images {rows.tolist()}",
                          {method: kept[method][k, rows]}, {method: now}, **NEAR)


def _of_cascade(recipe, model, n, seed, points=None, counts=None):
    if counts is None:
        counts = np.unique(np.linspace(0, saliency.count_layers(model), points).round().astype(int)).tolist()
    return {"network": recipe.filename, "split": "test", "n": n, "seed": seed, "counts": counts,
            "methods": SETTINGS}


def _cascaded(model, x, y, methods, counts, seed):
    """Return for each method the rank correlations (counts, N) with the maps of the network as trained."""
    random = [saliency.randomised(model, int(k), seed) for k in counts]
    trained = {method: METHODS[method](model, x, y) for method in methods}
    return {method: np.stack([saliency.spearman(trained[method], METHODS[method](other, x, y))
                              for other in random]) for method in methods}


def made_into(recipe, source, target, *, n):
    """Return images of one class made into another: dict of index (n,), near and step, (n, H, W, C).

    The first n test images of class source that the network has right (of 1,000; where it has none, the first
    of that class); near, after targeted Carlini & Wagner; step, after targeted FGSM of the small radius, that
    may miss.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    index = _images_of_class(model, data, source, n)
    x, goal = data.x_test[index], np.full(len(index), target)
    parameters = _of_made_into(recipe, source, target, n)

    def make():
        return {"index": index, "near": under_attack.usual_carlini_wagner(model, x, goal, targeted=True),
                "step": attacks.fgsm(model, x, goal, eps=data.record.small, targeted=True)}

    def cut(kept, n):
        return {name: value[:n] for name, value in kept.items()}
    return _cached("made_into", parameters, make, recompute_made_into, 4, "targeted images", cut)


def recompute_made_into(parameters, kept, rng):
    """Yield units of what `made_into` keeps: which images they are, FGSM's and Carlini & Wagner's again."""
    recipe, target = networks.recipe_named(parameters["network"]), parameters["target"]
    units.as_made(parameters, _of_made_into(recipe, parameters["source"], target, parameters["n"]))
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    index = _images_of_class(model, data, parameters["source"], parameters["n"])
    yield units.same("images", kept, {"index": index})
    x, goal, near = data.x_test[index], np.full(len(index), target), kept["near"]
    l2, hit = attacks.l2(near - x), gradients.logits(model, near).argmax(axis=1) == target
    short = gradients.logits(model, x + np.float32(0.95) * (near - x)).argmax(axis=1) == target
    boxed, found = near.min() >= 0 and near.max() <= 1, l2 > 0
    yield units.holds("images near", "of the target class, in [0, 1], none a twentieth longer than needed",
                      hit[found].all() and boxed and np.mean(short[found]) <= 0.2)
    step = attacks.fgsm(model, x, goal, eps=parameters["eps"], targeted=True)
    yield units.close("images after a step", kept, {"step": step}, rtol=0, atol=1e-3, share=0.98)
    for i in rng.permutation(len(index)):
        again = under_attack.usual_carlini_wagner(model, x[i:i + 1], goal[i:i + 1], targeted=True)
        yield units.close(f"distance of image {i}", {"l2": l2[i:i + 1]},
                          {"l2": attacks.l2(again - x[i:i + 1])}, rtol=units.SEARCH, atol=0)


def _images_of_class(model, data, source, n):
    """Return the indices of the images of `made_into`."""
    all_of, right = np.flatnonzero(data.y_test[:1000] == source), under_attack.first_right(model, data, 1000)
    return (own if len(own := np.intersect1d(all_of, right)) else all_of)[:n]


def _of_made_into(recipe, source, target, n):
    return {"network": recipe.filename, "source": source, "target": target, "n": n,
            "eps": datasets.record(recipe.dataset).small, **under_attack.CARLINI_WAGNER}


def cosine_to_classes(recipe, source, target, *, n):
    """Return the cosine between what targeted Carlini & Wagner adds and the way to mean images, (n, classes).

    The images of `made_into`; entry k is the way from the image to the mean training image of class k; NaN
    where nothing was added.
    """
    data, kept = datasets.load(recipe.dataset), made_into(recipe, source, target, n=n)
    x = data.x_test[kept["index"]]
    means = np.stack([data.x_train[data.y_train == k].mean(axis=0) for k in range(data.record.classes)])
    delta, way = (kept["near"] - x)[:, None], means - x[:, None]
    dot, one, two = (np.sum(product, axis=(2, 3, 4), dtype=np.float64)
                     for product in (delta * way, delta**2, way**2))
    return np.divide(dot, np.sqrt(one * two), out=np.full(dot.shape, np.nan), where=one * two > 0)


def random_share(dataset):
    """Return the share of labels that must be wrong for them to say nothing: all but one class in so many."""
    return 1 - 1 / datasets.record(dataset).classes


def memorising_recipe(dataset, *, label_noise=0.0, seed=0, epochs=None, train_size=None):
    """Return the recipe of a LeNet-5 that learns the labels of few images by heart, as MEMORISING says."""
    return networks.Recipe(dataset, "lenet", epochs=epochs or MEMORISING["epochs"], learning_rate=1e-3,
                           schedule="constant", batch_size=32, optimizer="adam", label_noise=label_noise,
                           train_size=train_size or MEMORISING["train_size"], seed=seed)


def learnt_labels(dataset, *, n, seed=0, **size):
    """Return whether maps depend on the labels a network was told: the second test of Adebayo et al. 2018.

    Three networks of `memorising_recipe`, whose further arguments are **size: with the true labels, with the
    true labels and another seed, and with random ones. dict: train_accuracy (3,), on the labels that each was
    told; for each of METHODS (2, n), the rank correlation between the first network's map of the true class
    of the first n test images, and the second's and the third's.
    """
    data = datasets.load(dataset)
    x, y, random = data.x_test[:n], data.y_test[:n], random_share(dataset)
    recipes = [memorising_recipe(dataset, label_noise=noise, seed=own, **size)
               for noise, own in ((0.0, seed), (0.0, seed + 1), (random, seed))]
    trained = [networks.load_or_train(recipe) for recipe in recipes]
    parameters = {"networks": [recipe.filename for recipe in recipes], "split": "test", "n": len(x),
                  "methods": SETTINGS}

    def make():
        models, accuracy = zip(*((model, history["accuracy"][-1]) for model, history in trained))
        return {"train_accuracy": np.array(accuracy)} | {
            method: _learnt(models, x, y, method) for method in METHODS}

    def cut(kept, n):
        return {name: value if name == "train_accuracy" else value[:, :n] for name, value in kept.items()}
    return _cached("map_labels", parameters, make, recompute_map_labels, 2, "maps of learnt labels", cut)


def recompute_map_labels(parameters, kept, rng):
    """Yield units of what `learnt_labels` keeps: the accuracies of the networks' records; some images' maps.

    The accuracies are means over the last epoch, while the weights changed: weights alone do not prove them.
    """
    trained = [networks.load_or_train(networks.recipe_named(name)) for name in parameters["networks"]]
    units.as_made(parameters["methods"], SETTINGS)
    _, _, x, y = units.case(parameters | {"network": parameters["networks"][0]})
    accuracy = [history["accuracy"][-1] for _, history in trained]
    yield units.close("accuracies", kept, {"train_accuracy": accuracy}, rtol=0, atol=1e-6)
    for method in ("gradient", *rng.permutation(list(METHODS))):
        rows = proofs.sample(rng, len(x), 4)
        whole = slice(rows.max() + 1)  # as above
        now = _learnt([model for model, _ in trained], x[whole], y[whole], method)[:, rows]
        yield units.close(f"{method}, images {rows.tolist()}", {method: kept[method][:, rows]}, {method: now},
                          **NEAR)


def _learnt(models, x, y, method):
    """Return the rank correlations (2, N) of the first model's maps with the others'."""
    first, *others = (METHODS[method](model, x, y) for model in models)
    return np.stack([saliency.spearman(first, other) for other in others])


def gradient_likeness(recipe, *, n):
    """Return how much a network's gradients look like the image: dict of arrays (n,), of test images.

    Of the gradient of the true class's logit, of the first n: "cosine", |<x, g>| / (||x|| ||g||), x and g
    less their means: the alignment of Etmann et al. 2019, arXiv:1905.04172, made free of the image's size;
    "edges", the rank correlation of its magnitude with the image's edges (Sobel); "high", the share of its
    energy above 0.25 cycles per pixel.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, g = data.x_test[:n], saliency.input_gradient(model, data.x_test[:n], data.y_test[:n])
    power = np.square(np.abs(frequency.transform(g))).sum(axis=1)
    high = frequency.radial_frequency(*x.shape[1:3]) > 0.25
    total = power.sum(axis=(1, 2))
    return {"cosine": saliency.alignment(x, g),
            "edges": saliency.spearman(saliency.magnitude(g), saliency.edges(x)),
            "high": np.divide((power * high).sum(axis=(1, 2)), total, out=np.full(len(x), np.nan),
                              where=total > 0)}


def _some(rng, n, size):
    """Yield rows of range(n) in random order, `size` at a time, each once."""
    order = rng.permutation(n)
    for start in range(0, n, size):
        yield np.sort(order[start:start + size])


def _cached(name, parameters, make, recompute, proved, what, cut):
    """Return the artifact of these parameters, the first `proved` units of which are proved on loading."""
    of = parameters.get("network") or parameters["networks"][0]
    return store.cached(name, parameters, make, sized=("n", cut), check=lambda kept: units.prove_units(
        recompute(parameters, kept, np.random.default_rng()), proved, what, of))
