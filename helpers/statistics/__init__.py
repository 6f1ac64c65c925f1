"""Estimates with their uncertainty: `intervals` of proportions and of statistics, `trends` over seeds."""

__all__ = ["intervals", "trends"]
