"""Thin library under the notebooks: data, networks, training, evaluation, artifacts and figures."""
