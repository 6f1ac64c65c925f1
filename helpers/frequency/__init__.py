"""The Fourier basis of images, a network's transfer function, and what JPEG makes of a wave."""
from helpers.frequency.codec_response import harmonic_matrix, harmonics_of
from helpers.frequency.fourier import (
    OPPONENT, checked_frequencies, checked_plane, decibels, fourier_basis, half_plane, low_pass, luma,
    plane_names, planes, radial, radial_frequency, radial_profile, ring_of, ring_sample, transform,
    whole_plane)
from helpers.frequency.response import (
    PHASES, Describing, Gain, describing_function, error_map, gain, minimal_norm_at, normalised, one_sided,
    relative_phase, respond, ring_phase, stage_gain)

__all__ = [
    "OPPONENT", "PHASES", "Describing", "Gain", "checked_frequencies", "checked_plane", "decibels",
    "describing_function", "error_map", "fourier_basis", "gain", "half_plane", "harmonic_matrix",
    "harmonics_of", "low_pass", "luma", "minimal_norm_at", "normalised", "one_sided", "plane_names",
    "planes", "radial", "radial_frequency", "radial_profile", "relative_phase", "respond", "ring_of",
    "ring_phase", "ring_sample", "stage_gain", "transform", "whole_plane"]
