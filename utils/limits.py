"""What options, files and the pyramid share."""

MOST_COSINES = 2**14
"""Pixels of a block whose network is one of cosines, at most."""

APART = 3
"""Levels from one that is whole, a picture by itself, to the next: the finest is one."""
