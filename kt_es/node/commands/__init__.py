"""The commands of ``kt node``. They stand above ``kt_es.cli``, which finds them by name."""
