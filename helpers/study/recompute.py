"""Entries of what is kept of networks and attacks, drawn at random and computed again: for `verify`.

Each function takes the parameters of an artifact, what it holds, and a generator of random numbers. It yields
(what, kept, now, whether they agree), some without end; `proofs` says what rounding may change. None for
`agrees`: it cannot be told here, `now` says why.
"""
import itertools

import numpy as np
import pandas as pd

from helpers import attacks, datasets, networks
from helpers.artifacts import proofs, store
from helpers.attacks import gradients
from helpers.study import accuracy, checks, scrutiny, under_attack

NORMS = {str(norm): norm for norm in attacks.NORMS}
MANY = 4 * proofs.FEW  # images, where an attack is one gradient
SEARCHES = 0.05  # relative, of two searches for one minimum: those of other libraries differ by up to 3 %


def network_and_images(parameters):
    """Return (recipe, model, x, y) of an artifact of one network and its first n test images."""
    recipe = networks.recipe_named(parameters["network"])
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    return recipe, model, data.x_test[:parameters["n"]], data.y_test[:parameters["n"]]


def same_key(parameters, expected):
    """Raise NotHere unless the artifact was made with today's settings, which alone can be run again."""
    if store.as_kept(expected) != parameters:
        raise store.NotHere("it was made with other settings than today's")


def recompute_answers(parameters, kept, rng):
    """Attack images anew as under_attack.answers attacked them, at a radius at a time."""
    recipe, model, x, y = network_and_images(parameters)
    attack, norm, seed = parameters["attack"], NORMS[parameters["norm"]], parameters["seed"]
    same_key(parameters, under_attack.answers_key(recipe, attack, norm=norm, n=parameters["n"], seed=seed))
    data_set = datasets.record(recipe.dataset)
    yield ("images, radii and what breaks stays broken", "so", "so or not",
           under_attack.well_formed(kept, data_set.ladders[norm], y, attack, data_set.classes))
    yield "without an attack", *_compared(kept["answer"][0], gradients.logits(model, x), attacked=False)
    size = proofs.FEW if attack.startswith("pgd") else MANY
    for turn in itertools.count():
        if turn % 2:
            k, rows = under_attack.telling(kept, attack, rng, size)
        else:
            k = int(rng.integers(1, len(kept["eps"])))
            left = kept["answer"][k - 1] == kept["y"] if attack.startswith("pgd") else np.ones(len(y), bool)
            rows = proofs.sample(rng, np.flatnonzero(left), size)
        if len(rows):
            now = under_attack.answers_anew(model, x, kept, attack, k, rows, norm=norm, seed=seed)
            what = (f"{attack}, {under_attack.NORM_NAMES[norm]}, eps {kept['eps'][k]:.4g}, "
                    f"images {_listed(rows)}")
            yield what, *_compared(kept["answer"][k, rows], now, attacked=attack != "noise")


def recompute_robust_accuracy(parameters, kept, rng):
    """Compare an under_attack.robust_accuracy_table with the kept answers; attack anew along ladders."""
    recipes = [networks.recipe_named(name) for name in parameters["networks"]]
    n, seed, groups = parameters["n"], parameters["seed"], under_attack.groups_of(recipes)
    same_key(parameters, under_attack.robust_accuracy_key(recipes, n=n, seed=seed))
    follows = under_attack.table_follows(kept, groups, n)
    yield "rows, and intervals by their values", "so", "so or not", follows
    while True:
        recipe, attack, norm = group = groups[rng.integers(len(groups))]
        what = f"{recipe.dataset} {recipe.model} {attack} {under_attack.NORM_NAMES[norm]}"
        yield what, "its values", "the kept answers", under_attack.group_follows(kept, group, n, seed)
        found = under_attack.answers(recipe, attack, norm=norm, n=n, seed=seed)
        key = store.as_kept(under_attack.answers_key(recipe, attack, norm=norm, n=n, seed=seed))
        for part, *rest in itertools.islice(recompute_answers(key, found, rng), 2, 3):
            yield f"{what}: {part}", *rest


def recompute_transfer(parameters, kept, rng):
    """Make images of under_attack.transfer anew, and ask all networks."""
    recipe, _, x, y = network_and_images(parameters)
    others = [networks.recipe_named(name) for name in parameters["others"]]
    same_key(parameters, under_attack.transfer_key(
        recipe, others, n=parameters["n"], seed=parameters["seed"]))
    trained = under_attack.victims(recipe, others)
    yield "labels", "so", "so or not", np.array_equal(kept["y"], y)
    for attack in itertools.cycle(("none", *under_attack.TRANSFERRED)):
        rows = proofs.sample(rng, len(x), proofs.FEW if attack.startswith("pgd") else MANY)
        same = under_attack.transfer_anew(recipe, trained, x, y, kept, attack, rows, parameters["seed"])
        yield (f"logits of {', '.join(trained)} under {attack} on {recipe.model}, images {_listed(rows)}",
               f"{len(rows)} images", f"{same.sum()} the same", proofs.agree(same))


def recompute_carlini_wagner(parameters, kept, rng):
    """Prove the images of under_attack.untargeted_set or targeted_set, and search for some of them anew."""
    recipe, model, *_ = network_and_images(parameters)
    n, targeted, confidence = (parameters[name] for name in ("n", "targeted", "confidence"))
    same_key(parameters, under_attack.targeted_key(recipe, per_class=n) if targeted else
             under_attack.untargeted_key(recipe, n=n, confidence=confidence))
    if targeted:
        under_attack.targeted_set(recipe, per_class=n)  # raises ValueError where they are not what they claim
    else:
        under_attack.untargeted_set(recipe, n=n, confidence=confidence)
    others = datasets.record(recipe.dataset).classes - 1 if targeted else 1
    x = np.repeat(datasets.load(recipe.dataset).x_test[kept["index"]], others, axis=0)
    y = (kept["target"] if targeted else kept["y"]).ravel()
    yield "answers, distances, box and boundary", "so", "so", True
    while True:
        i = proofs.sample(rng, len(y), 2)
        x_adv = under_attack.usual_carlini_wagner(model, x[i], y[i], targeted=targeted, confidence=confidence)
        yield f"searches {_listed(i)}", *_distances(kept["l2"].ravel()[i], attacks.l2(x_adv - x[i]))


def recompute_confidence(parameters, kept, rng):
    """Search anew for images of under_attack.confidence_growth, and ask the other network."""
    recipe, other = (networks.recipe_named(parameters[name]) for name in ("network", "other"))
    told, n = parameters["confidences"], parameters["n"]
    same_key(parameters, under_attack.confidence_key(recipe, other, confidences=told, n=n))
    data = datasets.load(recipe.dataset)
    (model, _), (rival, _) = map(networks.load_or_train, (recipe, other))
    index = under_attack.first_right(model, data, 2 * n + 100)[:n]
    x, y = data.x_test[index], data.y_test[index]
    yield ("confidences, order and no shorter step that succeeds", "so", "so or not", np.array_equal(
        kept["confidence"], told) and under_attack.growth_follows(model, rival, x, y, kept, rng))
    while True:
        k, i = int(rng.integers(len(told))), proofs.sample(rng, len(x), 2)
        x_adv = under_attack.usual_carlini_wagner(model, x[i], y[i], confidence=told[k])
        l2 = attacks.l2(x_adv - x[i])
        margin = gradients.margins(gradients.logits(rival, x_adv), y[i])
        erred = kept["transferred"][k, i]
        same = np.isnan(erred) | (erred == (margin < 0)) | (np.abs(margin) < 0.5)  # near the rival's boundary
        far, now, close = _distances(np.where(np.isfinite(kept["l2"][k, i]), kept["l2"][k, i], 0), l2)
        yield (f"confidence {told[k]:g}, images {_listed(index[i])}", f"{far}, transferred {erred}",
               f"{now}, margins of {other.model} {margin}", close and bool(same.all()))


def recompute_logits(parameters, kept, rng):
    """Ask the network again about images of accuracy.test_logits."""
    recipe, model, x, y = network_and_images(parameters)
    if len(y) < parameters["n"]:
        missing = f"{parameters['n'] - len(y)} of the {parameters['n']} images are not here: make data"
        yield "the rest", "", missing, None
    yield ("labels and shape", "so", "so or not", np.array_equal(kept["y"][:len(y)], y)
           and kept["logits"].shape == (parameters["n"], datasets.record(recipe.dataset).classes))
    while True:
        rows = proofs.sample(rng, len(y), 500)
        same = proofs.same_logits(kept["logits"][rows], accuracy.predict(model, x[rows]))
        yield (f"logits of {len(rows)} images", f"{len(rows)} images", f"{same.sum()} the same",
               bool(same.all()))


def recompute_accuracy(parameters, kept, rng):
    """Compare a table of accuracy.accuracy_table with the kept logits, and these with the networks."""
    recipes = {networks.recipe_named(name): n for name, n in parameters["networks"].items()}
    same_key(parameters, accuracy.accuracy_key(recipes))
    yield "intervals by their values", "so", "so or not", accuracy.intervals_follow(kept)
    if any(not store.has("logits", accuracy.logits_key(recipe, n)) for recipe, n in recipes.items()):
        raise store.NotHere("the logits of its networks are not here")
    measured = {recipe: accuracy.test_logits(recipe, n) for recipe, n in recipes.items()}  # proved by then
    expected = accuracy.accuracies(measured)
    yield "all values", "its values", "the kept logits", proofs.same_rows(kept, expected)


def recompute_statistics(parameters, kept, rng):
    """Compute datasets.statistics again, a split at a time."""
    data = datasets.load(parameters["dataset"])
    if data.complete != parameters["complete"]:
        yield "all", "", f"all of {data.name} is not here: make data", None
        return
    now = datasets.statistics_of(data)
    for split in now.split.unique():
        yield (f"{data.name}, {split}", "its values", "of the images",
               proofs.same_rows(kept[kept.split == split], now[now.split == split]) and len(kept) == len(now))


def recompute_checks(parameters, kept, rng):
    """Make checks of `scrutiny` anew, a group at a time: seconds to minutes."""
    found = pd.DataFrame(kept)
    key, groups = scrutiny.again(parameters)
    same_key(parameters, key)
    yield "thresholds, and what has passed", "so", "so or not", checks.follows(found)
    expected, told = set(), set(found.check)
    for name in rng.permutation(list(groups)):
        rows = checks.as_table(groups[name]())
        expected |= set(rows.check)
        values = found.set_index("check").value.reindex(rows.check).to_numpy()
        image = np.array([_OF_AN_IMAGE.get(check, 0) for check in rows.check]) / parameters["n_check"]
        same = np.abs(values - rows.value) <= np.maximum(image, 0.02 * np.abs(rows.value)) + 1e-6
        yield (f"{parameters['network']}, {name}", dict(zip(rows.check, values)),
               dict(zip(rows.check, rows.value)),
               bool((same | (np.isnan(values) & np.isnan(rows.value))).all()))
    yield "no check less or more", told - expected, expected - told, told == expected


# By how much one of n images changes a check, times n; by as much two searches differ (more_search).
_OF_AN_IMAGE = {
    "clean_accuracy": 1, "pgd_beats_fgsm": 1, "zero_gradient": 1, "zero_eps": 100, "more_iterations": 100,
    "more_restarts": 100, "white_box_transfer": 100, "transfer_noise": 100, "masking_loss": 100,
    "masking_float64": 100, "jpeg_aware": 100, "jpeg_score": 100, "gradient_free": 100, "more_search": 1}


def _compared(kept, logits, attacked):
    """Return (kept, now, whether they agree) of answers, told where they differ."""
    same, now = proofs.same_answers(kept, logits, attacked), logits.argmax(axis=1)
    return (f"answers {kept[~same][:8]}", f"{now[~same][:8]}, {same.sum()} of {len(same)} the same",
            proofs.agree(same) if attacked else bool(same.all()))


def _distances(kept, now):
    """Return (kept, now, whether they agree) of L2 distances of two searches, 0 where nothing was found."""
    close = np.abs(now / np.maximum(kept, 1e-30) - 1) <= SEARCHES
    same = np.where((kept > 0) & (now > 0), close, kept == now)
    return f"L2 {kept}", f"{now}", bool(same.all())


def _listed(rows):
    """Return the numbers of images in few words."""
    return ", ".join(map(str, rows[:4])) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")
