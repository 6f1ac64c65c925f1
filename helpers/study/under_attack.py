"""What the attacks achieve on the networks: answers under attack, minimal distances, transfer.

Everything here is an artifact, kept for each network and attack, and proved by the network itself
when it is loaded (`proofs`). Accuracy is over all images; success over those that the network had right.
"""
import numpy as np
import pandas as pd

from helpers import attacks, datasets, networks
from helpers.artifacts import proofs, store
from helpers.artifacts.proofs import prove
from helpers.attacks import gradients
from helpers.statistics import intervals
from helpers.study import accuracy

NB_ITER, STRIDE = 40, 2.5  # of PGD; eps_iter is STRIDE eps / NB_ITER, after Madry et al. 2018
LOSSES = {"fgsm": "cross_entropy", "fgsm_margin": "margin", "pgd": "cross_entropy",
          "pgd_margin": "margin"}
ATTACKS = (*LOSSES, "noise")
TRANSFERRED = ("fgsm", "pgd_margin", "noise")
CARLINI_WAGNER = {"learning_rate": 1e-2, "binary_search_steps": 9, "max_iterations": 1000,
                  "initial_const": None}
AMONG = 2000  # test images among which those of `targeted_set` are
NORM_NAMES = {np.inf: "Linf", 2: "L2"}  # in tables: pandas would read "inf" as a number
SIZED = ("n", lambda kept, n: {"eps": kept["eps"], "answer": kept["answer"][:, :n], "y": kept["y"][:n]})


def attacked(model, x, y, attack, *, eps, norm=np.inf, seed=0, positions=None):
    """Return the images after the attack of this name: one of ATTACKS, at its usual settings.

    positions: as of attacks.pgd.
    """
    if attack not in ATTACKS:
        raise ValueError(f"attack must be one of {', '.join(ATTACKS)}, got {attack!r}")
    if attack == "noise":
        return attacks.noise(x, eps=eps, norm=norm, seed=seed, positions=positions)
    if attack.startswith("fgsm"):
        return attacks.fgsm(model, x, y, eps=eps, norm=norm, loss=LOSSES[attack])
    return attacks.pgd(model, x, y, eps=eps, eps_iter=STRIDE * eps / NB_ITER, nb_iter=NB_ITER,
                       norm=norm, seed=seed, loss=LOSSES[attack], positions=positions)


def settings(attack):
    """Return what decides an attack of ATTACKS, besides model, images, eps, norm and seed: for keys."""
    more = {"nb_iter": NB_ITER, "stride": STRIDE} if attack.startswith("pgd") else {}
    return {"loss": LOSSES[attack]} | more if attack in LOSSES else {}


def answers(recipe, attack, *, norm, n, seed=0):
    """Return the network's answers under an attack, over K radii, its data set's ladder, and n test images.

    dict: eps (K,), answer (K, n), y (n,). The balls are nested, so that what PGD breaks at one radius
    stays broken at the greater ones and is not attacked again; FGSM and noise are taken at each
    radius by themselves.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y, ladder = data.x_test[:n], data.y_test[:n], data.record.ladders[norm]

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
        prove(well_formed(kept, ladder, y, attack, data.record.classes), "answers", recipe)
        rng = np.random.default_rng()
        rows = proofs.sample(rng, len(y), 200)
        same = proofs.same_answers(kept["answer"][0, rows], gradients.logits(model, x[rows]))
        prove(same.all(), "answers", recipe)
        for _ in range(1 if attack.startswith("pgd") else 3):  # radii, of which PGD's cost most
            k, rows = telling(kept, attack, rng, proofs.FEW)
            again = answers_anew(model, x, kept, attack, k, rows, norm=norm, seed=seed)
            same = proofs.same_answers(kept["answer"][k, rows], again, attacked=True)
            prove(proofs.agree(same), "answers", recipe)

    parameters = answers_key(recipe, attack, norm=norm, n=len(x), seed=seed)
    return store.cached("answers", parameters, make, check=check, sized=SIZED)


def answers_key(recipe, attack, *, norm, n, seed):
    """Return the parameters by which `answers` are kept."""
    return _parameters(recipe, n, seed) | {
        "attack": attack, "norm": str(norm), "eps": list(datasets.record(recipe.dataset).ladders[norm]),
        **settings(attack)}


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


def telling(kept, attack, rng, size):
    """Return (k, rows): a radius and images of `answers`, drawn at random, that tell most when attacked anew.

    Of PGD, images that are first broken at the radius, or last survive it: the others say nothing
    that these do not. Images that no radius breaks last survive the greatest.
    """
    answer, y = kept["answer"], kept["y"]
    if not attack.startswith("pgd"):
        return int(rng.integers(1, len(answer))), proofs.sample(rng, len(y), size)
    right = answer[0] == y
    broken = answer != y
    first = np.where(broken.any(axis=0), broken.argmax(axis=0), len(answer))  # radius that breaks it
    if not right.any():
        return 1, np.arange(0)
    drawn = first[rng.choice(np.flatnonzero(right))]
    k = int(np.clip(drawn - rng.integers(2), 1, len(answer) - 1))
    return k, proofs.sample(rng, np.flatnonzero(right & ((first == k) | (first == k + 1))), size)


def answers_anew(model, x, kept, attack, k, rows, *, norm, seed):
    """Return the logits of these images attacked anew at the radius k of kept `answers`, as they were then.

    PGD attacked those that the smaller radii had left, and each started by its place among them.
    """
    if not len(rows):
        return gradients.logits(model, x[:1])[:0]
    left = np.arange(len(kept["y"]))
    if attack.startswith("pgd"):
        left = left[kept["answer"][k - 1] == kept["y"]]
    return gradients.logits(model, attacked(
        model, x[rows], kept["y"][rows], attack, eps=float(kept["eps"][k]), norm=norm, seed=seed,
        positions=np.searchsorted(left, rows)))


def well_formed(kept, ladder, y, attack, classes):
    """Return whether kept answers are of these images, radii and classes, and nested if they are of PGD."""
    answer = kept["answer"]
    if not (np.array_equal(kept["y"], y) and np.array_equal(kept["eps"], ladder)
            and answer.shape == (len(ladder), len(y)) and np.isin(answer, range(classes)).all()):
        return False
    broken = answer[:-1] != y
    return not attack.startswith("pgd") or np.array_equal(answer[1:][broken], answer[:-1][broken])


def robust_accuracy_table(recipes, *, n, seed=0):
    """Return the tidy table of accuracies under every attack, norm and radius of these networks."""
    groups = groups_of(recipes)

    def make():
        rows = [row for group in groups for row in accuracy_rows(*group, n, seed)]
        return pd.DataFrame(rows, columns=accuracy.COLUMNS)

    def check(kept):
        prove(table_follows(kept, groups, n), "accuracies", recipes[0])
        for i in proofs.sample(np.random.default_rng(), len(groups), 2):
            recipe, attack, norm = groups[i]
            if store.has("answers", answers_key(recipe, attack, norm=norm, n=n, seed=seed), sized=SIZED):
                prove(group_follows(kept, groups[i], n, seed), "accuracies", recipe)

    return store.cached("robust_accuracy", robust_accuracy_key(recipes, n=n, seed=seed), make, check=check)


def robust_accuracy_key(recipes, *, n, seed):
    """Return the parameters by which `robust_accuracy_table` is kept."""
    names = dict.fromkeys(recipe.dataset for recipe in recipes)
    ladders = {f"{name} {NORM_NAMES[norm]}": list(ladder)
               for name in names for norm, ladder in datasets.record(name).ladders.items()}
    return {"networks": [recipe.filename for recipe in recipes], "n": n, "seed": seed, "ladders": ladders,
            "attacks": {attack: settings(attack) for attack in ATTACKS}}


def groups_of(recipes):
    """Return the groups (recipe, attack, norm) of the rows of `robust_accuracy_table`, in their order."""
    return [(recipe, attack, norm) for recipe in recipes for norm in attacks.NORMS for attack in ATTACKS]


def accuracy_rows(recipe, attack, norm, n, seed):
    """Return the rows of `robust_accuracy_table` of one group: from kept answers, or of an attack now."""
    kept, fixed = answers(recipe, attack, norm=norm, n=n, seed=seed), group_columns(recipe, attack, norm, n)
    return [row | dict(zip(("value", "low", "high"), intervals.share(answer == kept["y"])))
            for row, answer in zip(fixed, kept["answer"], strict=True)]


def group_columns(recipe, attack, norm, n):
    """Return what the rows of one group of `robust_accuracy_table` state before anything is measured."""
    n = min(n, len(datasets.load(recipe.dataset).y_test))
    return [{"dataset": recipe.dataset, "model": recipe.model, "seed": recipe.seed, "attack": attack,
             "norm": NORM_NAMES[norm], "eps": float(eps), "defense": "none", "quality": "", "n": n,
             "metric": "accuracy"}
            for eps in datasets.record(recipe.dataset).ladders[norm]]


def table_follows(table, groups, n):
    """Return whether an accuracy table has the rows of these groups, and the intervals of its values."""
    fixed = pd.DataFrame([row for group in groups for row in group_columns(*group, n)])
    return proofs.same_rows(table, fixed) and accuracy.intervals_follow(table)


def group_follows(table, group, n, seed):
    """Return whether the rows of a group, in a whole accuracy table, are those of the kept answers."""
    recipe, attack, norm = group
    rows = table[(table.dataset == recipe.dataset) & (table.model == recipe.model) & (table.attack == attack)
                 & (table.norm == NORM_NAMES[norm])]
    values = [row["value"] for row in accuracy_rows(*group, n, seed)]
    return len(rows) == len(values) and np.allclose(rows.value, values, rtol=0, atol=1e-9)


def transfer(recipe, others, *, n, seed=0):
    """Return what networks answer to the FGSM, PGD and noise images made on a recipe's network.

    dict: y (n,) and, for each attack and network "fgsm lenet" …, the logits (n, classes), float32. The
    radius is the data set's `reference`, L-infinity; "none" are the images as they are.
    """
    data, trained = datasets.load(recipe.dataset), victims(recipe, others)
    x, y = data.x_test[:n], data.y_test[:n]

    def make():
        result = {"y": y}
        for attack in ("none", *TRANSFERRED):
            result |= transferred(recipe, trained, x, y, attack, seed=seed)
        return result

    def check(kept):
        rng, kinds = np.random.default_rng(), ("none", *TRANSFERRED)
        names = [f"{attack} {name}" for attack in kinds for name in trained]
        shape = len(x), data.record.classes
        prove(set(kept) == {"y", *names} and np.array_equal(kept["y"], y)
              and all(kept[name].shape == shape for name in names), "transfer", recipe)
        for attack in kinds:
            rows = proofs.sample(rng, len(x), proofs.FEW)
            same = transfer_anew(recipe, trained, x, y, kept, attack, rows, seed)
            prove(proofs.agree(same), "transfer", recipe)

    parameters = transfer_key(recipe, others, n=len(x), seed=seed)
    return store.cached("transfer", parameters, make, check=check, sized=(
        "n", lambda kept, n: {name: values[:n] for name, values in kept.items()}))


def transfer_key(recipe, others, *, n, seed):
    """Return the parameters by which `transfer` is kept."""
    return _parameters(recipe, n, seed) | {
        "others": [other.filename for other in others], "eps": datasets.record(recipe.dataset).reference,
        "attacks": {attack: settings(attack) for attack in TRANSFERRED}}


def victims(recipe, others):
    """Return the networks of these recipes by their model's name; ValueError where two have the same."""
    names = [network.model for network in (recipe, *others)]
    if len(set(names)) < len(names):
        raise ValueError(f"the networks must differ in their model, got {names}")
    return {other.model: networks.load_or_train(other)[0] for other in (recipe, *others)}


def transferred(recipe, trained, x, y, attack, *, seed, positions=None):
    """Return the logits of every network on images attacked on the recipe's: by "attack name".

    attack: one of TRANSFERRED, or "none", the images as they are.
    """
    x_adv = x if attack == "none" else attacked(
        trained[recipe.model], x, y, attack, eps=datasets.record(recipe.dataset).reference, seed=seed,
        positions=positions)
    return {f"{attack} {name}": gradients.logits(network, x_adv) for name, network in trained.items()}


def transfer_anew(recipe, trained, x, y, kept, attack, rows, seed):
    """Return where kept logits of all networks on these images are those of the attack made anew, (N,)."""
    now = transferred(recipe, trained, x[rows], y[rows], attack, seed=seed, positions=rows)
    by_gradient = attack not in ("none", "noise")
    return np.logical_and.reduce([proofs.same_logits(kept[name][rows], logits, attacked=by_gradient)
                                  for name, logits in now.items()])


def success(shared, attack, victim):
    """Return (share, low, high, n): how often images of `transfer` fool a network that had them right.

    With the 95 % Wilson interval; (NaN, 0, 1, 0) where it had none right.
    """
    y = shared["y"]
    right = shared[f"none {victim}"].argmax(axis=1) == y
    hits, n = int(np.sum(right & (shared[f"{attack} {victim}"].argmax(axis=1) != y))), int(right.sum())
    return (hits / n, *intervals.interval(hits, n), n) if n else (np.nan, 0.0, 1.0, 0)


def untargeted_set(recipe, *, n, confidence=0.0):
    """Return Carlini & Wagner's images for the first n test images that the network has right.

    dict: index (m,) into the test images, y (m,), x_adv (m, H, W, C), l2 (m,), m <= n. Proved on
    loading: answer, gap, box and norm, that nothing shorter along the same line would do, and that the
    attack fails anew where it is said to.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    index = first_right(model, data, 2 * n + 100)[:n]

    def make():
        x, y = data.x_test[index], data.y_test[index]
        x_adv = usual_carlini_wagner(model, x, y, confidence=confidence)
        return {"index": index, "y": y, "x_adv": x_adv, "l2": attacks.l2(x_adv - x)}

    def check(kept):
        _prove_same(kept, recipe, index=index, y=data.y_test[index])
        prove_set(model, data.x_test[index], kept["y"], kept["x_adv"], kept["l2"], recipe,
                  confidence=confidence)

    parameters = untargeted_key(recipe, n=n, confidence=confidence)
    return store.cached("carlini_wagner", parameters, make, check=check, sized=(
        "n", lambda kept, _: {name: values[:len(index)] for name, values in kept.items()}))


def untargeted_key(recipe, *, n, confidence):
    """Return the parameters by which `untargeted_set` is kept."""
    return _parameters(recipe, n, None) | {"targeted": False, "confidence": confidence, **CARLINI_WAGNER}


def usual_carlini_wagner(model, x, y, *, targeted=False, confidence=0.0):
    """Return the images after Carlini & Wagner's attack at the usual settings."""
    return attacks.carlini_wagner(model, x, y, targeted=targeted, confidence=confidence, **CARLINI_WAGNER)


def targeted_set(recipe, *, per_class):
    """Return Carlini & Wagner's images for the first `per_class` right images of each class.

    dict: index (m,), y (m,), target (m, T), x_adv (m, T, H, W, C), l2 (m, T): every other class, T in all.
    Proved on loading, as `untargeted_set`.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    right = first_right(model, data, AMONG)
    classes = range(data.record.classes)
    index = np.concatenate([right[data.y_test[right] == k][:per_class] for k in classes])
    y, others = data.y_test[index], len(classes) - 1
    target = np.array([[k for k in classes if k != label] for label in y]).reshape(-1, others)

    def make():
        x = np.repeat(data.x_test[index], others, axis=0)
        x_adv = usual_carlini_wagner(model, x, target.ravel(), targeted=True)
        return {"index": index, "y": y, "target": target,
                "x_adv": x_adv.reshape(len(y), others, *x.shape[1:]),
                "l2": attacks.l2(x_adv - x).reshape(-1, others)}

    def check(kept):
        _prove_same(kept, recipe, index=index, y=y, target=target)
        x = np.repeat(data.x_test[index], others, axis=0)
        prove_set(model, x, kept["target"].ravel(), kept["x_adv"].reshape(-1, *x.shape[1:]),
                  kept["l2"].ravel(), recipe, targeted=True)

    def cut(kept, _):
        rows = np.isin(kept["index"], index)
        return {name: values[rows] for name, values in kept.items()}

    return store.cached("carlini_wagner", targeted_key(recipe, per_class=per_class), make, check=check,
                        sized=("n", cut))


def targeted_key(recipe, *, per_class):
    """Return the parameters by which `targeted_set` is kept: n are the images of each class."""
    return _parameters(recipe, per_class, None) | {"targeted": True, "confidence": 0.0, "among": AMONG,
                                                   **CARLINI_WAGNER}


def confidence_growth(recipe, other, *, confidences, n):
    """Return how Carlini & Wagner's distance and transfer grow with the confidence asked for.

    dict: confidence (K,), l2 (K, m), inf where none was found; transferred (K, m), whether the other
    network errs too (on images that it has right, else NaN). On loading, what can be seen at once is
    proved (`growth_follows`): the images are not kept, and a search takes seconds.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    rival, _ = networks.load_or_train(other)
    index = first_right(model, data, 2 * n + 100)[:n]
    x, y = data.x_test[index], data.y_test[index]

    def make():
        l2, transferred = np.empty((2, len(confidences), len(x)), np.float32)
        knew = gradients.logits(rival, x).argmax(axis=1) == y
        for k, confidence in enumerate(confidences):
            x_adv = usual_carlini_wagner(model, x, y, confidence=confidence)
            l2[k] = attacks.l2(x_adv - x)
            erred = gradients.logits(rival, x_adv).argmax(axis=1) != y
            transferred[k] = np.where(knew & (l2[k] > 0), erred, np.nan)
        return {"confidence": np.array(confidences), "transferred": transferred,
                "l2": np.where(l2 > 0, l2, np.inf)}

    def check(kept):
        follows = growth_follows(model, rival, x, y, kept, np.random.default_rng())
        prove(np.array_equal(kept["confidence"], confidences) and follows, "distances by confidence", recipe)

    def cut(kept, _):
        return {"confidence": kept["confidence"],
                **{name: kept[name][:, :len(index)] for name in ("transferred", "l2")}}

    parameters = confidence_key(recipe, other, confidences=confidences, n=n)
    return store.cached("confidence", parameters, make, check=check, sized=("n", cut))


def confidence_key(recipe, other, *, confidences, n):
    """Return the parameters by which `confidence_growth` is kept."""
    return _parameters(recipe, n, None) | {"other": other.filename, "confidences": list(confidences),
                                           **CARLINI_WAGNER}


def growth_follows(model, rival, x, y, kept, rng):
    """Return whether a kept `confidence_growth` can be true.

    A longer distance for more confidence; answers of the other network where it had the image right;
    and no success of one step along the margin's gradient that is clearly shorter than the distance
    kept: so distances are not longer than a search finds. That they are not shorter only a search shows.
    Where nothing is said to have been found, an image drawn at random is attacked anew.
    """
    l2, told = kept["l2"], kept["transferred"]
    if not l2.shape == told.shape == (len(kept["confidence"]), len(x)) or not (l2 > 0).all():
        return False
    knew = gradients.logits(rival, x).argmax(axis=1) == y
    asked = np.isfinite(told)
    if not np.array_equal(asked, knew & np.isfinite(l2)) or not np.isin(told[asked], (0, 1)).all():
        return False
    order = np.argsort(kept["confidence"])
    if not proofs.agree(l2[order][1:] >= 0.95 * l2[order][:-1]):
        return False
    rows = proofs.sample(rng, len(x), proofs.FEW)
    slope = gradients.slopes(model, x[rows], y[rows])  # of the loss, along which the margin falls
    size = np.maximum(attacks.l2(slope), 1e-30)[:, None, None, None]
    shorter = []
    for confidence, distance in zip(kept["confidence"], l2[:, rows], strict=True):
        far = np.where(np.isfinite(distance), 0.9 * distance, 0)[:, None, None, None]
        logits = gradients.logits(model, np.clip(x[rows] + far * slope / size, 0, 1))
        shorter.append(gradients.margins(logits, y[rows]) > -confidence - 1e-2)

    def missed(entry):
        k, i = entry
        again = usual_carlini_wagner(model, x[[i]], y[[i]], confidence=kept["confidence"][k].item())
        return (again == x[[i]]).all()

    return proofs.agree(np.concatenate(shorter)) and _missed_again(np.argwhere(np.isinf(l2)), missed, rng)


def _missed_again(entries, missed, rng):
    """Return whether attacks that are said to have failed fail again: missed(entry) attacks anew.

    One drawn at random; where it succeeds, three more, of which, with it, at most half may: where a search
    just fails a rounding can make it succeed, as 1 of 4 failures did on a processor without AVX-512.
    """
    drawn = rng.permutation(len(entries))[:4]
    found = np.sum([not missed(entries[i]) for i in drawn[:1]])
    if found:
        found += np.sum([not missed(entries[i]) for i in drawn[1:]])
    return bool(found <= len(drawn) / 2)


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


def prove_set(model, x, y, x_adv, l2, recipe, *, confidence=0.0, targeted=False):
    """Raise ValueError unless images of Carlini & Wagner are what they claim to be.

    They succeed, within the box, with these distances; a perturbation shorter by a hundredth does not (of all
    but one in 16: the attack shortens each up to the boundary, and beyond it is another's region at times).
    Where the attack is said to have failed, an image drawn at random is attacked anew.
    """
    found = l2 > 0
    sign = -1 if targeted else 1
    def gap(images):
        return sign * gradients.margins(gradients.logits(model, images), y) + confidence

    whole = x_adv.shape == x.shape and l2.shape == (len(x),) and len(x) > 0
    prove(whole and x_adv.min() >= 0 and x_adv.max() <= 1 and (x_adv[~found] == x[~found]).all()
          and np.allclose(attacks.l2(x_adv - x), l2, atol=1e-4), "adversarial images", recipe)
    prove((gap(x_adv) <= 1e-2)[found].all(), "adversarial images", recipe)  # up to rounding
    shorter = gap(x + np.float32(0.99) * (x_adv - x)) > 0
    prove(proofs.agree(shorter[found]), "distances of adversarial images", recipe)

    def missed(row):
        again = usual_carlini_wagner(model, x[[row]], y[[row]], targeted=targeted, confidence=confidence)
        return (again == x[[row]]).all()

    again = _missed_again(np.flatnonzero(~found), missed, np.random.default_rng())
    prove(again, "failures of the attack", recipe)


def _prove_same(kept, recipe, **expected):
    """Raise ValueError unless the kept adversarial images are of these very images and classes."""
    prove(all(np.array_equal(kept[name], value) for name, value in expected.items()),
          "adversarial images", recipe)
