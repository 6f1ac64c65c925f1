"""The checks of a network (`checks`) that take minutes: kept, in groups that can be computed again.

Those that follow at once from other artifacts are told as `more`, and are not kept.
"""
import functools

import pandas as pd

from helpers import attacks, datasets, jpeg, networks
from helpers.jpeg import attacker
from helpers.study import behind_jpeg, checks, under_attack

FEW = 20  # images with which it is tried whether more steps of a search serve
SQUARE = 1000  # iterations of the attack without gradients


def of_attacks(recipe, rival, *, n_check, few, seed, more=()):
    """Return the table of checks of a network under attack without a defence, with the rows `more`.

    rival: recipe of the network that lends its gradient to the attacker who does not know this one.
    n_check, few: test images, and those of a search that is tried with fewer steps.
    """
    return _table(recipe, attacks_key(recipe, rival, n_check=n_check, few=few, seed=seed),
                  lambda: attack_groups(recipe, rival, n_check=n_check, few=few, seed=seed), more)


def attacks_key(recipe, rival, *, n_check, few, seed):
    """Return the parameters by which `of_attacks` is kept."""
    return {"of": "attacks", "network": recipe.filename, "rival": rival.filename, "n_check": n_check,
            "few": few, "seed": seed, "eps": datasets.record(recipe.dataset).reference,
            "bounds": checks.bounds_as_kept(),
            "attacks": {attack: under_attack.settings(attack) for attack in under_attack.ATTACKS},
            "carlini_wagner": under_attack.CARLINI_WAGNER, "square": SQUARE}


def attack_groups(recipe, rival, *, n_check, few, seed):
    """Return the checks of `of_attacks` in groups: dict from a name to a function that returns rows."""
    data = datasets.load(recipe.dataset)
    eps = data.record.reference
    (model, _), (other, _) = map(networks.load_or_train, (recipe, rival))
    x, y = data.x_test[:n_check], data.y_test[:n_check]
    pgd = {"eps": eps, "eps_iter": under_attack.STRIDE * eps / under_attack.NB_ITER,
           "nb_iter": under_attack.NB_ITER}

    @functools.cache
    def made(attack, source=model):
        return under_attack.attacked(source, x, y, attack, eps=eps, seed=seed)

    def more_search():
        found = under_attack.untargeted_set(recipe, n=few)
        x, y = data.x_test[found["index"]], found["y"]
        less = attacks.carlini_wagner(model, x, y, **under_attack.CARLINI_WAGNER | {"binary_search_steps": 1})
        return checks.more_search(*(checks.adversarial_norms(model, x, y, x_adv)
                                    for x_adv in (less, found["x_adv"])))

    return {
        "ball": lambda: checks.ball_and_box(x, made("pgd_margin"), eps=eps),
        "no radius": lambda: checks.zero_eps(model, x, y),
        "PGD and FGSM": lambda: checks.pgd_beats_fgsm(model, x, y, x_fgsm=made("fgsm_margin"),
                                                      x_pgd=made("pgd_margin")),
        "more iterations": lambda: checks.more_iterations(model, x, y, loss="margin", seed=seed, **pgd),
        "order": lambda: checks.order_of_attackers(model, y, white_box=made("pgd_margin"),
                                                   noise=made("noise"), transfer=made("pgd_margin", other)),
        "Square": lambda: checks.gradient_free(model, x, y, eps=eps, seed=seed, nb_iter=SQUARE,
                                               sets=[made(attack) for attack in under_attack.LOSSES]),
        "masking": lambda: checks.masking(model, x, y, seed=seed, **pgd),
        "more search": more_search,
    }


def of_jpeg(recipe, *, n_check, seed, quality=50, more=()):
    """Return the table of checks of a network behind JPEG of this quality, with the rows `more`."""
    return _table(recipe, jpeg_key(recipe, n_check=n_check, seed=seed, quality=quality),
                  lambda: jpeg_groups(recipe, n_check=n_check, seed=seed, quality=quality), more)


def jpeg_key(recipe, *, n_check, seed, quality):
    """Return the parameters by which `of_jpeg` is kept."""
    return {"of": "jpeg", "network": recipe.filename, "n_check": n_check, "quality": quality, "seed": seed,
            "eps": datasets.record(recipe.dataset).small, "through": list(behind_jpeg.AWARE),
            "nb_iter": attacker.NB_ITER, "stride": attacker.STRIDE, "fixed": list(behind_jpeg.FIXED),
            "blind": under_attack.settings("pgd_margin"),
            "bounds": checks.bounds_as_kept()}


def jpeg_groups(recipe, *, n_check, seed, quality):
    """Return the checks of `of_jpeg` in groups: dict from a name to a function that returns rows."""
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y, eps = data.x_test[:n_check], data.y_test[:n_check], data.record.small
    behind = {how: jpeg.defended(model, quality, how) for how in behind_jpeg.AWARE}

    @functools.cache
    def made(how):
        return attacker.aware_pgd(behind[how], x, y, eps=eps, seed=seed)

    return {
        "ball": lambda: checks.ball_and_box(x, made("differentiable"), eps=eps),
        "attackers": lambda: checks.jpeg_attackers(
            model, y, quality, x, aware={how: made(how) for how in behind},
            blind=under_attack.attacked(model, x, y, "pgd_margin", eps=eps, seed=seed)),
        "more iterations": lambda: checks.more_iterations(
            behind["differentiable"], x, y, scored=behind["identity"], eps=eps,
            eps_iter=attacker.STRIDE * eps, nb_iter=attacker.NB_ITER, loss="margin", seed=seed),
        "codec": lambda: checks.jpeg_error(x, behind_jpeg.FIXED),
    }


def again(parameters):
    """Return (today's key, the groups of checks) of what kept parameters ask for."""
    recipe = networks.recipe_named(parameters["network"])
    asked = {name: parameters[name] for name in ("n_check", "few", "quality", "seed") if name in parameters}
    rival = [networks.recipe_named(parameters["rival"])] if "rival" in parameters else []
    key, groups = (attacks_key, attack_groups) if parameters["of"] == "attacks" else (jpeg_key, jpeg_groups)
    return key(recipe, *rival, **asked), groups(recipe, *rival, **asked)


def _table(recipe, key, groups, more):
    measured_on = {"dataset": recipe.dataset, "model": recipe.model}
    kept = checks.kept(key, lambda: sum((rows() for rows in groups().values()), []), **measured_on)
    return pd.concat([kept, checks.as_table(more, **measured_on)], ignore_index=True) if more else kept
