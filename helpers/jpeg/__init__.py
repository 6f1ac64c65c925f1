"""JPEG as a defence: the real codec and a differentiable one, and what it does to a perturbation.

`attacker` is who knows of it.
"""
from helpers.jpeg import attacker
from helpers.jpeg.codec import (
    BLOCK, CENTRE, CHROMA, LUMA, ROUNDINGS, SUBSAMPLINGS, TO_RGB, TO_YCC, check_quality, check_subsampling,
    coefficients, compress, compress_blocks, compress_differentiable, compressed_size, cubic, dct_matrix,
    defended, filtered, real, steps, straight, tables)
from helpers.jpeg.gain import WIDE, linear_margin, measured_gain, predicted_gain, predicted_margin, variances

__all__ = [
    "BLOCK", "CENTRE", "CHROMA", "LUMA", "ROUNDINGS", "SUBSAMPLINGS", "TO_RGB", "TO_YCC", "WIDE",
    "check_quality", "check_subsampling", "coefficients", "compress", "compress_blocks",
    "compress_differentiable", "compressed_size", "cubic", "dct_matrix", "defended", "filtered",
    "linear_margin", "measured_gain", "predicted_gain", "predicted_margin", "real", "steps", "straight",
    "tables", "variances", "attacker"]
