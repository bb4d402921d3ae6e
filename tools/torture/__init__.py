"""Torture of a real directory: its processes, faults drawn from a seed, and the checks after each round."""
