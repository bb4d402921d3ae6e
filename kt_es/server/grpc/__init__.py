"""gRPC for users: the operations of ``kt_es.api`` as ``proto/kt/v1/kt.proto`` has them.

- ``messages``: the models of requests and answers as messages, and back.
- ``statuses``: problem documents as rich statuses.
- ``calls``: what every call passes through: limits, deadlines, metrics, failures.
- ``methods``, ``watching``: the methods of ``kt.v1.DirectoryService``.
- ``standard``: health and reflection.
- ``listening``: the server: its port, its certificate, its limits, its end.

Only ``listening`` is imported by others. The extra ``grpc`` installs what the package needs.
"""
