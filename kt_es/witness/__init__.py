"""``kt witness``: a witness of transparency logs, also of others than those of kt-es (C2SP tlog-witness).

``judging`` decides, ``state`` remembers on disk, ``witness`` puts both together under a lock for each log,
``app`` speaks HTTP, ``logs`` reads which logs are known, and ``service`` is the process.
"""
