"""The client: believes nothing that it is told before it has verified it (design, section 4)."""
