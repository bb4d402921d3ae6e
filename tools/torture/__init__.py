"""Torture: a real directory as processes, faults drawn from a seed, and what must hold after each round."""
