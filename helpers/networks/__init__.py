"""Architectures, recipes, training, and networks kept in files.

`models` builds them, `batches` orders and augments their images, `adversarial` trains against an attack,
`keras_files` reads files of others.
"""
from helpers.networks.batches import images
from helpers.networks.keras_files import read_checkpoint
from helpers.networks.models import blocks
from helpers.networks.recipes import (
    ADVERSARIAL, ENDS, KINDS, OPTIMIZERS, RECIPES, VACCINATED, Recipe, as_json, from_json, recipe_named,
    recipes_for)
from helpers.networks.training import first_epoch, load_or_train, read_network, recipe_of, trajectory

__all__ = [
    "ADVERSARIAL", "ENDS", "KINDS", "OPTIMIZERS", "RECIPES", "VACCINATED", "Recipe", "as_json", "blocks",
    "first_epoch", "from_json", "images", "load_or_train", "read_checkpoint", "read_network",
    "recipe_named", "recipe_of", "recipes_for", "trajectory", "adversarial", "batches", "keras_files",
    "models"]
