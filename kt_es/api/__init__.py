"""The contract of the HTTP interface: what front end, client, OpenAPI document and tests have in common.

- ``models``: the members of every request and answer, with their limits.
- ``operations``: the paths, and which request and answers each of them has; the reasons of problems.
- ``codec``: JSON to these models and back, without pydantic: the client is installed without it.

The front end derives its validation and ``docs/openapi.json`` from the same declarations
(``kt_es.server.contract``).
"""
