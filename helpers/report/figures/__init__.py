"""Figures: functions take data and axes, draw, and return the axes; labels are Spanish, with units."""
from helpers.report.figures.attacks import (
    accuracy_curve, chance, class_grid, cumulative, growth, ladder, matrix, perturbation, radius_axis)
from helpers.report.figures.common import (
    COLORS, HALF, LINES, MARKERS, WIDTH, class_counts, decorate, image, image_grid, log_axis, percent_axis,
    row_labels, show, style)
from helpers.report.figures.frequency import RADIAL, bode, by_ring, frequency_plane, phase, radial_axis, shade
from helpers.report.figures.images import class_rows, distances, misclassified
from helpers.report.figures.jpeg import (
    agreement, before_and_after, coefficients, colour_plane, curves_by_quality, dct_axes, map_of_decibels,
    quality_curve, quality_label, quality_style, spectrum, table)
from helpers.report.figures.networks import (
    architectures, confusions, learning_curves, margins, reliabilities, surest_errors)
from helpers.report.figures.saliency import before_after, dots, overlay, signed, similarity

__all__ = [
    "COLORS", "HALF", "LINES", "MARKERS", "RADIAL", "WIDTH", "accuracy_curve", "agreement", "architectures",
    "before_after", "before_and_after", "bode", "by_ring", "chance", "class_counts", "class_grid",
    "class_rows", "coefficients", "colour_plane", "confusions", "cumulative", "curves_by_quality",
    "dct_axes", "decorate", "distances", "dots", "frequency_plane", "growth", "image", "image_grid",
    "ladder", "learning_curves", "log_axis", "map_of_decibels", "margins", "matrix", "misclassified",
    "overlay", "percent_axis", "perturbation", "phase", "quality_curve", "quality_label", "quality_style",
    "radial_axis", "radius_axis", "reliabilities", "row_labels", "shade", "show", "signed", "similarity",
    "spectrum", "style", "surest_errors", "table"]
