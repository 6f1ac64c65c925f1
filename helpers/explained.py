"""What the maps of the networks say before and after an attack, kept as artifacts and proved on loading."""
import numpy as np

from helpers import attacks, datasets, gradients, jpeg, robustness, saliency, store, training

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


def changes(recipe, attack, *, n, seed=0):
    """Return how the maps of a recipe's network change on the first n test images that it has right.

    dict of arrays (n,): index, y; answer, after the attack; noise_answer, after Gaussian noise of the same
    L2 norm; jpeg_answer, of the attacked image behind JPEG; l2. For each method of SHOWN, pair of PAIRS and
    measure of MEASURES, "method pair measure": between the map of the true class before and after ("true");
    of the answer before and after ("new"); of both classes before ("class"); of the true class before and of
    the answer after, what one sees ("seen"); of the true class before and under noise ("noise"), or after
    attack and JPEG ("jpeg"). For each method and share of SHARES, "method energy share": the part of the
    perturbation's energy on the salient pixels of the true class; "method noise_energy share", the noise's.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    index = robustness.first_right(model, data, 2 * n + 100)[:n]

    def make(rows=slice(None)):
        x, y = data.x_test[index[rows]], data.y_test[index[rows]]
        return {"index": index[rows], "y": y} | _changes(model, x, y, *attacked(model, x, y, attack, recipe.dataset, seed))

    def check(kept):
        again = make(slice(0, 3))
        close = [np.allclose(kept[name][:3], again[name], rtol=0.02, atol=0.02, equal_nan=True)
                 for name in again if "answer" not in name]
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

    def similarities(method, count, rows=slice(None)):
        trained, random = METHODS[method](model, x[rows], y[rows]), (saliency.randomised(model, int(k), seed) for k in count)
        return np.stack([saliency.spearman(trained, METHODS[method](other, x[rows], y[rows])) for other in random])

    def make():
        return {"count": count} | {method: similarities(method, count) for method in METHODS}

    def check(kept):
        again = similarities("gradient", count[1:2], slice(0, 4))[0]
        robustness.prove(np.allclose(again, kept["gradient"][1, :4], atol=0.02), "maps of random networks", recipe)

    return store.cached("map_cascade", {"network": recipe.filename, "split": "test", "n": len(x), "seed": seed,
                                        "counts": count.tolist()}, make, check=check)
