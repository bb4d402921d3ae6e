"""Key files of other tools: recognizes public keys, refuses private keys, and plans accounts to publish.

- ``recognize`` finds the public keys of a file, ``private`` finds private keys in any form
- ``packets``, ``views``: OpenPGP packets and self-signatures, and encodings of bytes, used by both
- ``accounts``: the plan of an import, and the keys of an import with the keys that an account has
- ``pem``, ``ssh``, ``openpgp``: the readers that make a plan
- ``openpgp_keyring``, ``openpgp_certificate``: the certificates of a keyring
"""
