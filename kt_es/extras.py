"""The optional parts of kt-es: the modules that each part needs, and the error if one is not installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from kt_es.errors import ConfigError

MODULES: Mapping[str, tuple[str, ...]] = {
    "server": (
        "esdbclient" if sys.version_info < (3, 14) else "kurrentdbclient",
        *("rocksdict", "pydantic", "httptools", "regex", "uvloop", "prometheus_client", "joserfc"),
    ),
    "openpgp": ("pysequoia",),
    "shared": ("cassandra",),
    "grpc": ("grpc_health", "grpc_reflection", "grpc_status"),
    "plot": ("matplotlib",),
}
"""The modules that each extra of ``pyproject.toml`` installs. Checking for a module does not import it."""

# Either of the two client libraries of the event log is sufficient, as in ``eventstore.driver``.
_INSTEAD = {"esdbclient": "kurrentdbclient", "kurrentdbclient": "esdbclient"}


def missing(extra: str) -> str | None:
    """Return the first module of ``extra`` that is not installed, or None if all are installed."""
    return next((name for name in MODULES[extra] if not _is_there(name)), None)


def _is_there(name: str) -> bool:
    return find_spec(name) is not None or (name in _INSTEAD and find_spec(_INSTEAD[name]) is not None)


def require(extra: str, what: str) -> None:
    """Raise ``ConfigError`` if ``extra`` is not installed. ``what`` is the feature that needs the extra."""
    module = missing(extra)
    if module is not None:
        raise ConfigError(
            f"{what} needs an extra that is not installed (no module {module}): pip install 'kt-es[{extra}]'"
        )
