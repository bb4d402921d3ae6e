"""``kt init``: make a directory: keys, ``kt.toml``, and the signed config that begins the queue."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kt_es.cli.operators.rights import set_rights
from kt_es.cli.options import NEW_FOLDER, Number, given_options, options, patience_option
from kt_es.cli.output import config_path, output_of
from kt_es.cli.saving import write_private
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, Settings, dump_settings, load_settings
from kt_es.config.tables import FrontendTable, NodeTable
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import ConfigError, KtError, MalformedError, WrongRevisionError
from kt_es.eventstore.connecting import Connector, check_uri
from kt_es.eventstore.patient import Patience
from kt_es.eventstore.streams import NO_STREAM, EventLog, content_event
from kt_es.formats.codec import MAX_INTERVAL
from kt_es.formats.configs import Config, SignedConfig, check_directory, check_origin
from kt_es.formats.entries import PublicKey
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.formats.queue import CONFIG, Record, decode_records
from kt_es.process.files import read_key
from kt_es.process.log_filters import without_credentials, without_password
from signer.keys import load_key

CONFIG_OPTIONS = ("label_policy", "min_interval", "max_interval")
"""Options of a new directory that become part of its signed config."""

SIGNER_KEY = Path("keys/signer/signer.pem")
VRF_KEY = Path("keys/vrf.pem")


new_directory_options = options(
    click.option(
        "--origin",
        default="localhost/people",
        show_default=True,
        help="For a new directory: its schema-less URL.",
    ),
    click.option(
        "--label-policy",
        type=click.Choice(LABEL_POLICIES),
        default=LABEL_POLICIES[0],
        show_default=True,
        help="For a new directory: which labels it has.",
    ),
    click.option(
        "--min-interval",
        type=Number(0),
        default=1.0,
        show_default=True,
        help="For a new directory: seconds that an epoch collects submissions.",
    ),
    click.option(
        "--max-interval",
        type=Number(0.1),
        default=60.0,
        show_default=True,
        help="For a new directory: seconds between two heads at most.",
    ),
)
"""The options of a new directory for ``kt init`` and ``kt up``: fields of ``NewDirectory``."""


@dataclass(frozen=True, slots=True)
class NewDirectory:
    """The options of a new directory. Intervals are in seconds."""

    directory: str
    origin: str
    log: str
    label_policy: str
    min_interval: float
    max_interval: float
    node_listen: str = "127.0.0.1:2113"
    frontend_listen: str = "127.0.0.1:8080"
    save_credentials: bool = False

    @property
    def kept_log(self) -> str:
        """``log`` for ``kt.toml``: without credentials, since the file is copied to many machines."""
        return self.log if self.save_credentials else without_credentials(self.log)

    def milliseconds(self, name: str) -> int:
        return round(float(getattr(self, name)) * 1000)


@click.command("init")
@click.option("--data", type=NEW_FOLDER, help="Where to make it; default here.")
@click.option("--directory", default="people", show_default=True, help="Its name, which names the streams.")
@click.option(
    "--log",
    default="esdb://127.0.0.1:2113?Tls=false",
    show_default=True,
    metavar="URI",
    help="Connection string of the event log.",
)
@new_directory_options
@click.option("--acl", is_flag=True, help="Set the streams' rights for users frontend, signer, monitor.")
@click.option("--save-credentials", is_flag=True, help="Keep user and password of --log in kt.toml.")
@patience_option
@click.pass_context
def init_command(
    context: click.Context, /, data: Path | None, acl: bool, patience: float, **given: Any
) -> None:
    """Make a directory: its keys, kt.toml, and the config that begins its queue.

    Run again, it does what is still missing. It overwrites nothing.
    """
    output = output_of(context)
    base = data or config_path(context).parent
    new = NewDirectory(**given)
    check_uri(new.log)
    if (base / FILE_NAME).exists():
        settings = load_settings(base / FILE_NAME)
        refuse_other_settings(context, settings, "directory", "origin", "log")
    else:
        settings = write_directory(base, new)
        output.ok(f"made keys and {base / FILE_NAME} for {settings.origin}")
        if settings.log != new.log:
            output.note(
                f"  {FILE_NAME} has the log's address without user and password: give each process its own "
                "with --log or KT_LOG"
            )
    connector = Connector(new.log if given_options(context, ("log",)) else settings.log)

    def begin() -> bool:
        with closing(connector()) as event_log:
            # The rights come first. Otherwise every user could write the streams as soon as they exist.
            problems = set_rights(event_log, settings) if acl else []
            for problem in problems:
                output.fail(problem)
            if problems:
                raise KtError(
                    f"rights that are not as they have to be: {len(problems)}; the queue was not begun. "
                    "Mend the rights above, and run kt init --acl again"
                )
            return begin_queue(settings, event_log, new, given_options(context, CONFIG_OPTIONS))

    # After an outage ``begin`` runs again. It leaves existing things unchanged.
    begun = Patience(patience, output.note).until_done(begin)
    output.ok(f"{'began' if begun else 'found'} the queue {settings.names.queue}")
    document = {"origin": settings.origin, "directory": settings.directory, "key": settings.key}
    output.data(document, [settings.key])


def refuse_other_settings(context: click.Context, settings: Settings, *names: str) -> None:
    """Refuse options that contradict the existing ``kt.toml``."""
    for name in given_options(context, names):
        given, stands = context.params[name], getattr(settings, name)
        if name == "log" and stands == without_credentials(stands):
            given = without_credentials(given)
        if given != stands:
            raise ConfigError(
                f"{settings.base / FILE_NAME} exists and says {name} = "
                f"{without_password(repr(stands))}: change it there, or make another "
                "directory with --data"
            )


def write_directory(base: Path, new: NewDirectory) -> Settings:
    """Make keys in ``base`` and then ``kt.toml``, and overwrite nothing. If the file exists, the keys do."""
    try:
        check_directory(new.directory)
        check_origin(new.origin)
    except MalformedError as error:
        raise ConfigError(f"{error}; give another --directory or --origin") from None
    if not new.min_interval <= new.max_interval <= MAX_INTERVAL / 1000:
        raise ConfigError(
            f"--min-interval {new.min_interval:g} and --max-interval {new.max_interval:g}: the first may not "
            f"be more than the second, which may be {MAX_INTERVAL // 1000} s (30 days) at most; change them"
        )
    path = base / FILE_NAME
    if path.exists():
        raise ConfigError(f"{path} exists already: this directory has been made; name another with --data")
    signer_key = _new_key(base / SIGNER_KEY)
    _new_key(base / VRF_KEY)
    settings = Settings(
        directory=new.directory,
        origin=new.origin,
        key=Pinned(new.origin, PublicKey(ED25519, signer_key.public)).vkey,
        log=new.kept_log,
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


def begin_queue(settings: Settings, log: EventLog, new: NewDirectory, given: Sequence[str] = ()) -> bool:
    """Put the first config into the queue; return False if it is there already.

    ``given`` are the fields of ``new`` that an option or a variable gave.

    Raises:
        ConfigError: The queue belongs to another directory; or the directory exists, and no config of it has
            the values that were given.
    """
    queue = settings.names.queue
    first = next(iter(log.read(queue, 0, 1)), None)
    if first is None:
        signer_key = load_key(settings.path(SIGNER_KEY))
        config = Config(
            settings.origin,
            (PublicKey(ED25519, signer_key.public),),
            read_key(settings.path(VRF_KEY), "the VRF key", VrfPrivateKey.from_pem).public,
            new.label_policy,
            new.milliseconds("min_interval"),
            new.milliseconds("max_interval"),
            new.milliseconds("max_interval"),
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
        raise ConfigError(
            f"{queue} does not begin with the config of {settings.origin} under this key: it belongs to "
            "another directory; name another event log with --log, or another directory with --directory"
        )
    _refuse_other_config(data, settings, log, new, given)
    return False


def _refuse_other_config(
    first: bytes, settings: Settings, log: EventLog, new: NewDirectory, given: Sequence[str]
) -> None:
    """Refuse values that no config of an existing directory has."""
    signed = _config_of(first)
    for name in given:
        wanted = new.label_policy if name == "label_policy" else new.milliseconds(name)
        present = None if signed is None else getattr(signed.config, name)
        # Later configs are read last, because the queue may be long.
        if wanted != present and not any(
            getattr(later.config, name) == wanted for later in _later_configs(settings, log)
        ):
            shown = present if name == "label_policy" or present is None else f"{present / 1000:g} s"
            raise ConfigError(
                f"the directory {settings.origin} exists, and its signed config says {name} = {shown}: "
                f"leave --{name.replace('_', '-')} out, or make another directory with --data"
            )


def _later_configs(settings: Settings, log: EventLog) -> Iterator[SignedConfig]:
    for event in log.read(settings.names.queue):
        if event.type == CONFIG and (signed := _config_of(event.data)) is not None:
            yield signed


def _first_item(settings: Settings, log: EventLog) -> bytes:
    """Return the first item of a truncated queue, from the first record; empty if there is none."""
    event = next(iter(log.read(settings.names.mutations, 0, 1)), None)
    if event is None:
        return b""
    try:
        content = Record.decode(decode_records(event.data)[1][0]).item.content
    except MalformedError:
        return b""
    return content if isinstance(content, bytes) else b""


def _begins(data: bytes, settings: Settings, log: EventLog) -> bool:
    """Return whether the first config is of this directory, under the pinned key or an earlier one."""
    first = _config_of(data)
    if first is None or first.config.origin != settings.origin:
        return False
    return first.is_signed_by(settings.pinned) or any(
        signed.config.signer_key == settings.pinned for signed in _later_configs(settings, log)
    )


def _config_of(data: bytes) -> SignedConfig | None:
    try:
        return SignedConfig.decode(data)
    except MalformedError:
        return None
