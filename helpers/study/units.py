"""Units of proof: what is kept of some images, and what is computed of them now.

A unit is (what, kept, now, agrees): what was compared, both sides in words, and whether they agree; None
where it cannot be told, `now` saying why. The functions recompute_… of a kind of artifact yield them one
after the other, drawn at random; loading takes the first few of them, and `make verify` goes on. How much may
differ, and why, says proofs. Of answers under attack up to one in 20 is another on another processor: of
images after 80 steps of PGD, two units in 40 had one without oneDNN, one unit had 4 of 60 without AVX-512.
"""
import itertools

import numpy as np

from helpers import datasets, networks
from helpers.artifacts import proofs, store

MAY_DIFFER = 1 / 20  # of the images, on another processor
# Of the distance of one image, between two searches of Carlini & Wagner: on the adversarially trained LeNet-5
# a rounding turns a search towards another boundary, and 10 images had 0.83 to 1.39 of the distance kept.
SEARCH = 0.6


def same(what, kept, now):
    """Return the unit that asks for equal arrays; kept, now: dicts of arrays by name."""
    differ = [name for name in now if not np.array_equal(kept[name], now[name])]
    return what, "", f"{', '.join(differ)} differ" if differ else "equal", not differ


def same_answers_again(what, kept, again, rng):
    """Return the unit of answers that are given again.

    kept: (..., n). again(rows) -> the answers to these rows, (..., len(rows)). Where any of FEW rows differs,
    thrice as many more are drawn before it is judged: the share may differ that proofs.may_fail of as many
    images at the rate MAY_DIFFER, which are independent, as the answers to one image are not.
    """
    order = rng.permutation(kept.shape[-1])
    rows, more = np.sort(order[:proofs.FEW]), np.sort(order[proofs.FEW:4 * proofs.FEW])
    wrong = again(rows) != kept[..., rows]
    if wrong.any() and len(more):
        wrong = np.concatenate([wrong, again(more) != kept[..., more]], axis=-1)
    images, count = wrong.shape[-1], wrong.sum()
    agrees = bool(count * images <= proofs.may_fail(images, MAY_DIFFER) * wrong.size)
    return what, f"{wrong.size} answers", f"{count} of them others", agrees


def close(what, kept, now, *, rtol, atol, share=1.0, steady=(), each=0.0):
    """Return the unit that asks for close arrays: so in this share of all their entries.

    steady: names of arrays in every one of which the share `each` must be so. kept, now: dicts of arrays by
    name, of which those in `now` are compared; NaN is close to NaN, inf to inf.
    """
    near = {name: np.isclose(kept[name], now[name], rtol=rtol, atol=atol, equal_nan=True) for name in now}
    total, good = (sum(map(count, near.values())) for count in (np.size, np.sum))
    first = lambda values, name: np.asarray(values[name])[~near[name]].flat[0]
    far = [f"{name} {first(kept, name):.6g}, now {first(now, name):.6g}"
           for name in near if not near[name].all()]
    said = f"{total - good} of them others: {'; '.join(far[:3])}" if far else "the same"
    even = all(near[name].mean() >= each for name in steady)
    return what, f"{total} numbers", said, bool(good >= share * total and even)


def holds(what, said, condition):
    """Return the unit of a condition that what is kept must fulfil; said: in words."""
    return what, said, "it does" if condition else "it does not", bool(condition)


def prove_units(units, count, what, of):
    """Raise ValueError, naming the file `of`, unless the first `count` of these units agree."""
    for told, kept, now, agrees in itertools.islice(units, count):
        if agrees is False:
            raise ValueError(f"the kept {what} of {of} are not those that it computes: delete the artifact "
                             f"to have it made again. {told}: {kept}, now {now}")


def case(parameters):
    """Return (recipe, model, x, y) of an artifact's network and its first n test images.

    Raises store.NotHere where there are fewer at hand.
    """
    recipe = networks.recipe_named(parameters["network"])
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    if len(data.y_test) < parameters["n"]:
        raise store.NotHere(f"there are only {len(data.y_test)} test images of {recipe.dataset} here")
    return recipe, model, data.x_test[:parameters["n"]], data.y_test[:parameters["n"]]


def as_made(kept, now):
    """Raise store.NotHere unless an artifact has the parameters that this code would make it by."""
    if store.as_kept(now) != kept:
        raise store.NotHere("made by other settings than this code's")
