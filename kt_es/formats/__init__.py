"""Encodings of every byte string that is signed, hashed, stored in a stream or sent (docs/FORMATS.md)."""
