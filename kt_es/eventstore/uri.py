"""Connection strings. Current and former names of schemes have the same meaning, and no part is ignored."""

from __future__ import annotations

from urllib.parse import parse_qsl

from kt_es.errors import ConfigError
from kt_es.process.redaction import keep_secret

_SCHEMES = ("esdb", "kurrentdb", "kdb")
_DISCOVER = "+discover"

_UNUSABLE = (
    "connection string: the user or the password has one of the characters @ / ? # which cannot stand there; "
    "write them as %40 %2F %3F %23, and % as %25"
)

OPTIONS = (
    "Tls",
    "ConnectionName",
    "MaxDiscoverAttempts",
    "DiscoveryInterval",
    "GossipTimeout",
    "NodePreference",
    "TlsVerifyCert",
    "DefaultDeadline",
    "KeepAliveInterval",
    "KeepAliveTimeout",
    "TlsCaFile",
    "UserCertFile",
    "UserKeyFile",
)


def check_uri(uri: str) -> None:
    """Raise ``ConfigError`` as ``normalized`` does. Call this before ``uri`` is stored anywhere."""
    normalized(uri)


def normalized(uri: str) -> str:
    """Return ``uri`` with a scheme that both client libraries know: ``esdb`` or ``esdb+discover``.

    Raises:
        ConfigError: the scheme is unknown, the user or password has a character that must be escaped, or an
            option is unknown, empty or given twice. The error never contains ``uri``, which may contain a
            password.
    """
    keep_secret(uri)
    scheme, mark, rest = uri.strip().partition("://")
    scheme = scheme.lower()
    if not mark or scheme.removesuffix(_DISCOVER) not in _SCHEMES:
        raise ConfigError(
            "connection string: it begins with none of esdb://, esdb+discover://, kurrentdb://, "
            "kurrentdb+discover://, kdb:// and kdb+discover://"
        )
    authority, _, query = rest.partition("?")
    if authority.count("@") > 1 or "#" in rest or "/" in authority.rpartition("@")[0]:
        raise ConfigError(_UNUSABLE)
    _check_options(query)
    return f"esdb{_DISCOVER if scheme.endswith(_DISCOVER) else ''}://{rest}"


def is_plain(uri: str) -> bool:
    """Return whether the connection string ``uri`` asks for a connection without TLS."""
    options = parse_qsl(uri.partition("?")[2])
    return any(name.lower() == "tls" and value.lower() == "false" for name, value in options)


def _check_options(query: str) -> None:
    known = {name.lower(): name for name in OPTIONS}
    seen = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        spelled = known.get(name.lower())
        if spelled is None and "@" in name:
            # The name may be part of a password, so the error must not contain it.
            raise ConfigError(_UNUSABLE)
        if spelled is None:
            raise ConfigError(
                f"connection string: the option {name!r} is unknown; known: {', '.join(OPTIONS)}"
            )
        if not value:
            raise ConfigError(f"connection string: the option {spelled} has no value; write {spelled}=...")
        if spelled in seen:
            raise ConfigError(f"connection string: the option {spelled} is given twice")
        seen.add(spelled)
