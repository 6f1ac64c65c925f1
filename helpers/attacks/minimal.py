"""The smallest radius at which an attack succeeds, by bisection."""
import numpy as np

from helpers.attacks import fgsm_pgd, gradients


def minimal_norm(model, x, y, *, attack, high, norm=np.inf, halvings=10, nb_iter=40, seed=0,
                 loss="margin", batch_size=128, positions=None):
    """Return (x_adv, eps): for each image the smallest radius at which "fgsm" or "pgd" breaks it.

    By bisection between 0 and `high`, to high / 2^halvings; eps is np.inf, and x_adv the image itself,
    where even `high` does not break it, and 0 where the model has it wrong. PGD takes steps of
    2.5 eps / nb_iter. FGSM may fail beyond a radius at which it succeeds: then the one found is a
    crossing of the boundary, not always the first. positions: as of `pgd`. Raises ValueError for what
    does not fit.
    """
    x, y = gradients.checked(model, x, y, loss)
    fgsm_pgd._check_norm(norm)
    if attack not in ("fgsm", "pgd"):
        raise ValueError(f"attack must be fgsm or pgd, got {attack!r}")
    high = fgsm_pgd.checked_eps("high", high, norm=norm, shape=x.shape)
    for name, value in (("nb_iter", nb_iter), ("batch_size", batch_size)):
        gradients.check_count(name, value)
    gradients.check_count("halvings", halvings, smallest=0)
    if attack == "fgsm":
        direction = fgsm_pgd._unit_steps(model, x, y, norm, False, loss, batch_size)
    positions, zero = fgsm_pgd.checked_positions(positions, len(x)), np.ones(len(x), bool)
    start = fgsm_pgd._in_ball(x.shape[1:], norm, seed, 0, positions)

    def attacked(rows, eps):
        wide = eps.reshape(-1, 1, 1, 1)
        if attack == "fgsm":
            x_adv = np.clip(x[rows] + wide * direction[rows], 0, 1)
            return x_adv, gradients.logits(model, x_adv).argmax(axis=1) != y[rows]
        x_adv, score, still = fgsm_pgd._descend(model, x[rows], y[rows], start[rows], eps,
                                                2.5 * eps / nb_iter,
                                                nb_iter, norm, False, loss, batch_size)
        zero[rows] &= still
        return x_adv, score < 0

    best, found = x.copy(), np.where(gradients.logits(model, x).argmax(axis=1) == y, np.inf, 0.0)
    low, top = np.zeros(len(x), np.float32), np.full(len(x), high, np.float32)
    rows, eps = np.flatnonzero(found > 0), top
    for _ in range(halvings + 1):
        if not len(rows):
            break
        x_adv, broken = attacked(rows, eps[rows])
        hit = rows[broken]
        best[hit], found[hit], top[hit] = x_adv[broken], eps[hit], eps[hit]
        low[rows[~broken]] = eps[rows[~broken]]
        rows = rows[np.isfinite(found[rows])]
        eps = (low + top) / 2
    if attack == "pgd":  # FGSM has warned already
        gradients.warn_of_zeros(zero & np.isinf(found), loss)
    return best, found
