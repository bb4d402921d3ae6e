"""Projections of the streams into RocksDB: the map, both logs and the openings, and their replay."""
