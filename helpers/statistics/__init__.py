"""Estimates with their uncertainty: `intervals` of proportions and resampled statistics, `trends` over seeds.
"""

__all__ = ["intervals", "trends"]
