"""Readers of key files that other programs wrote: OpenPGP keyrings, PEM bundles, SSH key files."""
