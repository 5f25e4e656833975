"""Fits into one file each."""
