"""The protocol's services over the log."""
