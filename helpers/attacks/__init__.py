"""Attacks, and the door by which they ask a model.

FGSM, PGD, noise, smallest radii, Carlini & Wagner, minimal_l2 for the smallest L2 perturbation, and Square,
which needs no gradient. `gradients` is the checked door for models, `layers` and `copies` read and copy
their insides, `float64` attacks in double precision.
"""
from helpers.attacks import copies, float64, gradients, layers
from helpers.attacks.carlini_wagner import carlini_wagner
from helpers.attacks.fgsm_pgd import (
    NORMS, checked_eps, checked_positions, checked_step, fgsm, l2, linf, noise, pgd)
from helpers.attacks.minimal import minimal_norm
from helpers.attacks.minimal_l2 import minimal_l2
from helpers.attacks.square import square

__all__ = [
    "NORMS", "carlini_wagner", "checked_eps", "checked_positions", "checked_step", "fgsm", "l2", "linf",
    "minimal_l2", "minimal_norm", "noise", "pgd", "square", "copies", "float64", "gradients", "layers"]
