"""Limits that options and files share."""

MOST_COSINES = 2**14
"""Pixels of a block whose network is one of cosines, at most."""
