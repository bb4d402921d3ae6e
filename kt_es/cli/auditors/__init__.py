"""Commands of those who examine a directory: audit, fsck."""
