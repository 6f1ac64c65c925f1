"""What the networks see: MNIST and CIFAR-10, proved by SHA-256; `download` brings the full CIFAR-10."""
from helpers.datasets.loading import (
    ARRAYS, BYTES, CLASS_NAMES, NAMES, SHA256, ClassName, Dataset, array_sha256, check, first_per_class,
    load, read_checked, statistics, statistics_of)

__all__ = [
    "ARRAYS", "BYTES", "CLASS_NAMES", "NAMES", "SHA256", "ClassName", "Dataset", "array_sha256", "check",
    "first_per_class", "load", "read_checked", "statistics", "statistics_of", "download"]
