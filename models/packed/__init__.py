"""A fit in one file, any part of which can be read on its own: docs/format.md describes its bytes."""
