"""What the attacks achieve on the networks: answers under attack, minimal distances, transfer.

Everything here is an artifact, kept for each network and attack, and proved by the network itself
when it is loaded. Accuracy is over all images; success over those that the network had right.
"""
import numpy as np
import pandas as pd

from helpers import attacks, datasets, evaluation, gradients, store, training

NB_ITER = 40  # of PGD; eps_iter is 2.5 eps / NB_ITER, after Madry et al. 2018
REFERENCE = {"mnist": 0.3, "cifar10": 8 / 255}  # the L-infinity radius that papers report
LADDERS = {
    ("mnist", np.inf): (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    ("mnist", 2): (0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10),
    ("cifar10", np.inf): (0, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255,
                          64 / 255, 0.5),
    ("cifar10", 2): (0, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16),
}
LOSSES = {"fgsm": "cross_entropy", "fgsm_margin": "margin", "pgd": "cross_entropy",
          "pgd_margin": "margin"}
ATTACKS = (*LOSSES, "noise")
NORM_NAMES = {np.inf: "Linf", 2: "L2"}  # in tables: pandas would read "inf" as a number


def attacked(model, x, y, attack, *, eps, norm=np.inf, seed=0):
    """Return the images after the attack of this name: one of ATTACKS, at its usual settings."""
    if attack not in ATTACKS:
        raise ValueError(f"attack must be one of {', '.join(ATTACKS)}, got {attack!r}")
    if attack == "noise":
        return attacks.noise(x, eps=eps, norm=norm, seed=seed)
    if attack.startswith("fgsm"):
        return attacks.fgsm(model, x, y, eps=eps, norm=norm, loss=LOSSES[attack])
    return attacks.pgd(model, x, y, eps=eps, eps_iter=2.5 * eps / NB_ITER, nb_iter=NB_ITER,
                       norm=norm, seed=seed, loss=LOSSES[attack])


def answers(recipe, attack, *, norm, n, seed=0):
    """Return the network's answers under an attack, over its ladder of K radii and n test images.

    dict: eps (K,), answer (K, n), y (n,). The balls are nested, so that what PGD breaks at one radius
    stays broken at the greater ones and is not attacked again; FGSM and noise are taken at each
    radius by themselves.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y, ladder = data.x_test[:n], data.y_test[:n], LADDERS[recipe.dataset, norm]

    def hit(rows, eps):
        x_adv = attacked(model, x[rows], y[rows], attack, eps=eps, norm=norm, seed=seed) if eps else x
        return gradients.logits(model, x_adv).argmax(axis=1)

    def make():
        if attack.startswith("pgd"):
            answer = nested(hit, ladder, y)
        else:
            answer = np.stack([hit(np.arange(len(x)), eps) for eps in ladder]).astype(np.int8)
        return {"eps": np.array(ladder), "answer": answer, "y": y}

    def check(kept):
        prove(np.array_equal(kept["y"], y) and np.mean(
            kept["answer"][0] != gradients.logits(model, x).argmax(axis=1)) < 0.01, "answers", recipe)

    parameters = _parameters(recipe, len(x), seed) | {
        "attack": attack, "norm": str(norm), "eps": list(ladder), "nb_iter": NB_ITER}
    return store.cached("answers", parameters, make, check=check)


def nested(hit, ladder, y):
    """Return the answers over a ladder of radii from 0 up, int8 (K, N), the balls being nested.

    hit(rows, eps) -> the answers to these images attacked. What one radius breaks stays broken at the
    greater ones, and is not attacked again.
    """
    answer = np.empty((len(ladder), len(y)), np.int8)
    answer[0] = hit(np.arange(len(y)), 0)
    for k, eps in enumerate(ladder[1:], start=1):
        answer[k] = answer[k - 1]
        left = np.flatnonzero(answer[k] == y)
        if len(left):
            answer[k, left] = hit(left, eps)
    return answer


def accuracy_table(recipes, *, n, seed=0):
    """Return the tidy table of accuracies under every attack, norm and radius of these networks."""
    def make():
        rows = []
        for recipe in recipes:
            for norm in attacks.NORMS:
                for attack in ATTACKS:
                    rows += _accuracy_rows(recipe, attack, norm, n, seed)
        return pd.DataFrame(rows, columns=evaluation.COLUMNS)

    parameters = {"networks": [recipe.filename for recipe in recipes], "n": n, "seed": seed,
                  "nb_iter": NB_ITER, "ladders": [list(ladder) for ladder in LADDERS.values()]}
    return store.cached("robust_accuracy", parameters, make, recompute=recompute_accuracy)


def recompute_accuracy(row):
    """Return the value of one row of `accuracy_table`, attacked anew; None without the images."""
    data = datasets.load(row["dataset"])
    if row["n"] > len(data.y_test):
        return None
    x, y, eps = data.x_test[:row["n"]], data.y_test[:row["n"]], float(row["eps"])
    model, _ = training.load_or_train(training.recipe_of(row["dataset"], row["model"], row["seed"]))
    if eps:
        norm = {name: norm for norm, name in NORM_NAMES.items()}[row["norm"]]
        x = attacked(model, x, y, row["attack"], eps=eps, norm=norm, seed=int(row["seed"]))
    return float(np.mean(gradients.logits(model, x).argmax(axis=1) == y))


def _accuracy_rows(recipe, attack, norm, n, seed):
    kept = answers(recipe, attack, norm=norm, n=n, seed=seed)
    rows = []
    for eps, answer in zip(kept["eps"], kept["answer"]):
        value, low, high = evaluation.share(answer == kept["y"])
        rows.append({"dataset": recipe.dataset, "model": recipe.model, "seed": recipe.seed,
                     "attack": attack, "norm": NORM_NAMES[norm], "eps": eps,
                     "defense": "none", "quality": "", "n": len(answer), "metric": "accuracy",
                     "value": value, "low": low, "high": high})
    return rows


def transfer(recipe, others, *, n, seed=0):
    """Return what networks answer to the FGSM, PGD and noise images made on a recipe's network.

    dict: y (n,) and, for each attack and network "fgsm lenet" …, the logits (n, 10), float32. The
    radius is the data set's REFERENCE, L-infinity; "none" are the images as they are.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    names = [network.model for network in (recipe, *others)]
    if len(set(names)) < len(names):
        raise ValueError(f"the networks must differ in their model, got {names}")
    networks = {other.model: training.load_or_train(other)[0] for other in (recipe, *others)}

    def make():
        result = {"y": y}
        for attack in ("none", "fgsm", "pgd_margin", "noise"):
            x_adv = x if attack == "none" else attacked(
                model, x, y, attack, eps=REFERENCE[recipe.dataset], seed=seed)
            result |= {f"{attack} {name}": gradients.logits(network, x_adv)
                       for name, network in networks.items()}
        return result

    def check(kept):
        again = gradients.logits(model, x)
        prove(np.allclose(kept[f"none {recipe.model}"], again, rtol=1e-3, atol=1e-2), "transfer",
              recipe)

    parameters = _parameters(recipe, len(x), seed) | {
        "others": [other.filename for other in others], "eps": REFERENCE[recipe.dataset],
        "nb_iter": NB_ITER}
    return store.cached("transfer", parameters, make, check=check)


def success(shared, attack, victim):
    """Return (share, low, high, n): how often images of `transfer` fool a network that had them right.

    With the 95 % Wilson interval; (NaN, 0, 1, 0) where it had none right.
    """
    y = shared["y"]
    right = shared[f"none {victim}"].argmax(axis=1) == y
    hits, n = int(np.sum(right & (shared[f"{attack} {victim}"].argmax(axis=1) != y))), int(right.sum())
    return (hits / n, *evaluation.interval(hits, n), n) if n else (np.nan, 0.0, 1.0, 0)


def untargeted_set(recipe, *, n, confidence=0.0):
    """Return Carlini & Wagner's images for the first n test images that the network has right.

    dict: index (m,) into the test images, y (m,), x_adv (m, H, W, C), l2 (m,), m <= n. Proved on
    loading by a forward pass: answer, gap, box and norm.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    index = first_right(model, data, 2 * n + 100)[:n]

    def make():
        x, y = data.x_test[index], data.y_test[index]
        x_adv = attacks.carlini_wagner(model, x, y, confidence=confidence)
        return {"index": index, "y": y, "x_adv": x_adv, "l2": attacks.l2(x_adv - x)}

    def check(kept):
        _prove_same(kept, recipe, index=index, y=data.y_test[index])
        _prove_set(kept, data, model, recipe, confidence)

    parameters = _parameters(recipe, n, None) | {"targeted": False, "confidence": confidence}
    return store.cached("carlini_wagner", parameters, make, check=check)


def targeted_set(recipe, *, per_class):
    """Return Carlini & Wagner's images for the first `per_class` right images of each class.

    dict: index (m,), y (m,), target (m, 9), x_adv (m, 9, H, W, C), l2 (m, 9): every other class.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    right = first_right(model, data, 2000)
    index = np.concatenate([right[data.y_test[right] == k][:per_class] for k in range(10)])
    y = data.y_test[index]
    target = np.array([[k for k in range(10) if k != label] for label in y]).reshape(-1, 9)

    def make():
        x = np.repeat(data.x_test[index], 9, axis=0)
        x_adv = attacks.carlini_wagner(model, x, target.ravel(), targeted=True)
        return {"index": index, "y": y, "target": target,
                "x_adv": x_adv.reshape(len(y), 9, *x.shape[1:]),
                "l2": attacks.l2(x_adv - x).reshape(-1, 9)}

    def check(kept):
        _prove_same(kept, recipe, index=index, y=y, target=target)
        flat = {"index": np.repeat(kept["index"], 9), "y": kept["target"].ravel(),
                "x_adv": kept["x_adv"].reshape(-1, *data.x_test.shape[1:]), "l2": kept["l2"].ravel()}
        _prove_set(flat, data, model, recipe, targeted=True)

    parameters = _parameters(recipe, per_class, None) | {"targeted": True, "confidence": 0.0}
    return store.cached("carlini_wagner", parameters, make, check=check)


def confidence_growth(recipe, other, *, confidences, n):
    """Return how Carlini & Wagner's distance and transfer grow with the confidence asked for.

    dict: confidence (K,), l2 (K, m), inf where none was found; transferred (K, m), whether the other
    network errs too (on images that it has right, else NaN).
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    rival, _ = training.load_or_train(other)
    index = first_right(model, data, 2 * n + 100)[:n]
    x, y = data.x_test[index], data.y_test[index]

    def make():
        l2, transferred = np.empty((2, len(confidences), len(x)), np.float32)
        knew = gradients.logits(rival, x).argmax(axis=1) == y
        for k, confidence in enumerate(confidences):
            x_adv = attacks.carlini_wagner(model, x, y, confidence=confidence)
            l2[k] = attacks.l2(x_adv - x)
            erred = gradients.logits(rival, x_adv).argmax(axis=1) != y
            transferred[k] = np.where(knew & (l2[k] > 0), erred, np.nan)
        return {"confidence": np.array(confidences), "transferred": transferred,
                "l2": np.where(l2 > 0, l2, np.inf)}

    parameters = _parameters(recipe, n, None) | {"other": other.filename,
                                                 "confidences": list(confidences)}
    return store.cached("confidence", parameters, make)


def success_after_rounding(x_adv, y, model, *, targeted=False):
    """Return the share of these images that still succeed when rounded to 8 bits a pixel."""
    answer = gradients.logits(model, np.round(x_adv * 255) / np.float32(255)).argmax(axis=1)
    return float(np.mean((answer == y) == targeted))


def _parameters(recipe, n, seed):
    return {"network": recipe.filename, "split": "test", "n": int(n), "seed": seed}


def first_right(model, data, size):
    """Return the indices, among the first `size` test images, of those that the network has right."""
    logits = gradients.logits(model, data.x_test[:size])
    return np.flatnonzero(logits.argmax(axis=1) == data.y_test[:size])


def _prove_set(kept, data, model, recipe, confidence=0.0, targeted=False):
    """Raise ValueError unless these adversarial images are what they claim to be."""
    x, x_adv, y, l2 = data.x_test[kept["index"]], kept["x_adv"], kept["y"], kept["l2"]
    margin = evaluation.margins(gradients.logits(model, x_adv), y) * (-1 if targeted else 1)
    prove(np.all((margin <= -confidence) | (l2 == 0)) and x_adv.min() >= 0 and x_adv.max() <= 1
          and np.allclose(attacks.l2(x_adv - x), l2, atol=1e-4), "adversarial images", recipe)


def _prove_same(kept, recipe, **expected):
    """Raise ValueError unless the kept adversarial images are of these very images and classes."""
    prove(all(np.array_equal(kept[name], value) for name, value in expected.items()),
          "adversarial images", recipe)


def prove(holds, what, recipe):
    """Raise ValueError, naming the network, unless what was kept of it `holds`."""
    if not holds:
        raise ValueError(f"the kept {what} of {recipe.filename} are not those that it computes: "
                         "delete the artifact to have it made again")
