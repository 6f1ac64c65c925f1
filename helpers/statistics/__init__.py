"""Estimates with their uncertainty: `intervals` of proportions and of statistics, `trends` over seeds."""
from helpers.statistics import intervals, trends

__all__ = ["intervals", "trends"]
