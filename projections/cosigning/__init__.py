"""``kt cosign``: asks witnesses for cosignatures, and publishes them for the front ends of the directory."""
