"""Every byte string that is signed, hashed, stored in a stream or sent: docs/FORMATS.md, in code."""
