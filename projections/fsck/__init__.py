"""Examination of data directories, ``kt fsck``."""
