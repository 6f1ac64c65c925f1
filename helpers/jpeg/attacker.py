"""Who attacks a network behind JPEG and knows of it."""
from helpers import attacks

# Of the PGD of who knows: its gradients are rough, and with under_attack's 40 steps of eps / 16 it leaves
# up to 21 points more (LeNet-5 of MNIST, the first 200 test images, eps 0.1, qualities 10 and 50).
NB_ITER, STRIDE = 80, 1 / 8  # eps_iter is STRIDE eps


def aware_pgd(behind, x, y, *, eps, seed, positions=None):
    """Return images after the PGD of who knows of JPEG: L-infinity, with the margin.

    positions: as of attacks.pgd.
    """
    return attacks.pgd(behind, x, y, eps=eps, eps_iter=STRIDE * eps, nb_iter=NB_ITER, seed=seed,
                       loss="margin", positions=positions)


def pgd_settings():
    """Return the settings of `aware_pgd` that decide its answers, as JSON holds them."""
    return {"loss": "margin", "nb_iter": NB_ITER, "stride": STRIDE}
