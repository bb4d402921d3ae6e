"""Who may register a label: the gate in front of first versions, and its ways.

A front end asks the gate about the first version of a label only. Later versions need the signature of the
owner and nothing else. The signer knows nothing of the gate: it decides by signatures alone.
"""
