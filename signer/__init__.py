"""The signer: the single reader of the queue, which decides, advances epochs and signs heads."""
