"""Implementations of `fit_points`, one signature: the reference is the definition."""

from models.ops import reference

FIT_POINTS = {"reference": reference.fit_points}
