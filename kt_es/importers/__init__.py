"""Key files of other tools: recognizes public keys, refuses private keys, and plans accounts to publish.

- ``recognize`` finds the public keys of a file, ``private`` finds private keys in any form
- ``der``, ``packets``, ``views``: X.690, OpenPGP packets, and encodings of bytes, used by both
- ``accounts``: the plan of an import; ``pem``, ``ssh``, ``openpgp``: the readers that make a plan
- ``openpgp_keyring``, ``openpgp_certificate``, ``openpgp_bindings``: certificates and their self-signatures
- ``combining``: the keys of an import with the keys that an account has
"""
