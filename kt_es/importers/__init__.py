"""Key files of other tools: recognizes public keys, refuses private keys, and plans accounts to publish.

- ``recognize``: the public keys of a file; ``private``: private keys in any form
- ``der``, ``packets``, ``views``: X.690, OpenPGP packets, and encodings of bytes, for both
- ``accounts``: the plan of an import; ``pem``, ``ssh``, ``openpgp``: its readers
- ``openpgp_keyring``, ``openpgp_certificate``, ``openpgp_bindings``: certificates and their self-signatures
- ``combining``: the keys of an import with the keys that an account has
"""
