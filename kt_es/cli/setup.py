"""Making a directory: keys, ``kt.toml``, and the signed config that begins the queue."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kt_es.client.trusted import Pinned
from kt_es.config import FILE_NAME, FrontendTable, NodeTable, Settings, dump_settings
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import ConfigError, MalformedError, WrongRevisionError
from kt_es.eventstore.streams import NO_STREAM, EventLog, content_event
from kt_es.formats.configs import Config, SignedConfig, check_directory, check_origin
from kt_es.formats.keys import PublicKey
from kt_es.formats.queue import CONFIG
from kt_es.formats.records import Record, decode_records
from kt_es.process.files import PRIVATE, replace_file
from kt_es.server.keys import load_vrf_key
from signer.keys import load_key

SIGNER_KEY = Path("keys/signer/signer.pem")
VRF_KEY = Path("keys/vrf.pem")


@dataclass(frozen=True, slots=True)
class NewDirectory:
    """What ``kt init`` is asked for. Intervals in seconds."""

    directory: str
    origin: str
    log: str
    label_policy: str
    min_interval: float
    max_interval: float
    node_listen: str = "127.0.0.1:2113"
    frontend_listen: str = "127.0.0.1:8080"


def write_directory(base: Path, new: NewDirectory) -> Settings:
    """Make keys and ``kt.toml`` in ``base``; nothing that exists is overwritten.

    The settings file comes last: where it stands, the keys stand too.
    """
    try:
        check_directory(new.directory)
        check_origin(new.origin)
    except MalformedError as error:
        raise ConfigError(str(error)) from None
    path = base / FILE_NAME
    if path.exists():
        raise ConfigError(f"{path} exists already: this directory has been made")
    signer_key = _new_key(base / SIGNER_KEY)
    _new_key(base / VRF_KEY)
    settings = Settings(
        directory=new.directory,
        origin=new.origin,
        key=Pinned(new.origin, PublicKey(ED25519, signer_key.public)).vkey,
        log=new.log,
        node=NodeTable(listen=new.node_listen),
        frontend=FrontendTable(listen=new.frontend_listen),
        base=base,
    )
    # The connection string may hold a password.
    write_private(path, dump_settings(settings).encode())
    return settings


def _new_key(path: Path) -> PrivateKey:
    if path.exists():
        return load_key(path)
    key = PrivateKey.from_seed(ED25519, os.urandom(32))
    write_private(path, key.to_pem())
    return key


def write_private(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """A whole file, on disk before its name is; ``ConfigError`` if it cannot be written."""
    try:
        replace_file(path, data, mode)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def begin_queue(settings: Settings, log: EventLog, new: NewDirectory) -> bool:
    """Put the first config into the queue; False if it stands there already.

    Raises ``ConfigError`` if the queue begins with something else: it is another directory's.
    """
    queue = settings.names.queue
    first = next(iter(log.read(queue, 0, 1)), None)
    if first is None:
        signer_key = load_key(settings.path(SIGNER_KEY))
        config = Config(
            settings.origin,
            (PublicKey(ED25519, signer_key.public),),
            load_vrf_key(settings.path(VRF_KEY)).public,
            new.label_policy,
            round(new.min_interval * 1000),
            round(new.max_interval * 1000),
            round(new.max_interval * 1000),
            None,
        )
        data = SignedConfig.sign(config, [signer_key]).encode()
        try:
            log.append(queue, NO_STREAM, [content_event(queue, CONFIG, data)])
            return True
        except WrongRevisionError:
            first = next(iter(log.read(queue, 0, 1)))
    data = first.data if first.revision == 0 else _first_item(settings, log)
    if not _begins(data, settings, log):
        raise ConfigError(f"{queue} does not begin with the config of {settings.origin} under this key")
    return False


def _first_item(settings: Settings, log: EventLog) -> bytes:
    """What a queue that has been truncated began with, by its first record; nothing if there is none."""
    event = next(iter(log.read(settings.names.mutations, 0, 1)), None)
    if event is None:
        return b""
    try:
        content = Record.decode(decode_records(event.data)[1][0]).item.content
    except MalformedError:
        return b""
    return content if isinstance(content, bytes) else b""


def _begins(data: bytes, settings: Settings, log: EventLog) -> bool:
    """Whether the first config is of this directory and its key, or of one that rotated to this key."""
    first = _config_of(data)
    if first is None or first.config.origin != settings.origin:
        return False
    return first.is_signed_by(settings.pinned) or any(
        signed is not None and signed.config.signer_key == settings.pinned
        for event in log.read(settings.names.queue)
        if event.type == CONFIG
        for signed in [_config_of(event.data)]
    )


def _config_of(data: bytes) -> SignedConfig | None:
    try:
        return SignedConfig.decode(data)
    except MalformedError:
        return None
