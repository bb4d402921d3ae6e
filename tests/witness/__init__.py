"""The witness: what it decides, what it remembers, and what it answers."""
