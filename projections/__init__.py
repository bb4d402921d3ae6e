"""Followers of the logs: the front end with its replica and its openings, monitor, audit, snapshots, fsck."""
