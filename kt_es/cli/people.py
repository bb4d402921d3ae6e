"""What owners and users do: keys, put, get, history, watch, verify."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from kt_es.cli.clients import CHANGE_TIMEOUT, DEFAULT_KEY, Reach, keys_option, reach_options, signing_keys
from kt_es.cli.context import output_of, stop_on_signals
from kt_es.cli.output import Output, at
from kt_es.cli.profiles import read_profile_keys
from kt_es.cli.saving import save_profile
from kt_es.cli.setup import write_private
from kt_es.client.client import Client
from kt_es.client.history import History, Version
from kt_es.client.keystore import KeyStore, StoredKey
from kt_es.client.trust import Lookup, verify_proof_file
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import ConfigError, KtError, MalformedError, UnavailableError, VerificationError
from kt_es.formats.keys import PublicKey
from kt_es.formats.notes import encode_base64
from kt_es.formats.profiles import ProfileKey
from kt_es.formats.proofs import MAX_PROOF_FILE, ProofFile

PROVEN_ABSENT = 3
ALGORITHMS = {"ed25519": ED25519, "p256": ECDSA_P256}


@click.group("keys")
def keys_command() -> None:
    """Your signing keys: they authorize changes to your account."""


@keys_command.command("generate")
@click.argument("name", default=DEFAULT_KEY)
@click.option("--algorithm", type=click.Choice(list(ALGORITHMS)), default="ed25519", show_default=True)
@keys_option
@click.pass_context
def keys_generate(context: click.Context, name: str, algorithm: str, keys: Path) -> None:
    """Make a new signing key called NAME."""
    key = PrivateKey.from_seed(ALGORITHMS[algorithm], os.urandom(32))
    stored = KeyStore(keys).add(name, key)
    output = output_of(context)
    output.ok(f"made {stored.path}; keep a copy: without it your account cannot be changed")
    output.data(_key_document(stored), [stored.public.id.hex()])


@keys_command.command("list")
@keys_option
@click.pass_context
def keys_list(context: click.Context, keys: Path) -> None:
    """List your signing keys."""
    stored = KeyStore(keys).list()
    output_of(context).data(
        {"keys": [_key_document(key) for key in stored]},
        [f"{key.name}  {_algorithm(key.public)}  {key.public.id.hex()}" for key in stored],
    )


def _key_document(key: StoredKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "algorithm": _algorithm(key.public),
        "id": key.public.id.hex(),
        "public": encode_base64(key.public.raw),
    }


def _algorithm(key: PublicKey) -> str:
    return next(name for name, number in ALGORITHMS.items() if number == key.algorithm)


@click.command("put")
@click.argument("label")
@click.option(
    "--key",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A public key or certificate file; may be repeated. Its kind is recognized.",
)
@click.option(
    "--sign-with", "names", multiple=True, metavar="NAME", help="Signing keys; default: your only one."
)
@click.option("--rotate-to", "rotate", multiple=True, metavar="NAME", help="Signing keys for later changes.")
@keys_option
@reach_options
@click.pass_context
def put_command(
    context: click.Context,
    /,
    label: str,
    files: tuple[Path, ...],
    names: tuple[str, ...],
    rotate: tuple[str, ...],
    keys: Path,
    **reach: Any,
) -> None:
    """Publish LABEL's keys or change them: signs, submits, waits, and verifies that they stand."""
    output = output_of(context)
    profile = [key for path in files for key in read_profile_keys(path)]
    signers = signing_keys(keys, names)
    new = signing_keys(keys, rotate) if rotate else []
    authorized = [key.public for key in new] or None
    private = {key.name: key.private for key in (*signers, *new)}
    with Reach(**reach).client(timeout=CHANGE_TIMEOUT) as client:
        published = client.publish(label, profile, list(private.values()), authorized)
    show_checks(output, published.lookup)
    output.ok(f"version {published.submission.mutation.entry.version} of {label} stands in the directory")
    output.data(lookup_document(published.lookup), [])


@click.command("get")
@click.argument("label")
@click.option("--epoch", type=click.IntRange(1), help="As it stood in this epoch; default the latest.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the proof to FILE.")
@click.option(
    "--save", type=click.Path(path_type=Path, file_okay=False), help="Save the keys as files in a directory."
)
@reach_options
@click.pass_context
def get_command(
    context: click.Context,
    /,
    label: str,
    epoch: int | None,
    out: Path | None,
    save: Path | None,
    **reach: Any,
) -> int:
    """Look LABEL up, verify everything, and print its keys."""
    output = output_of(context)
    with Reach(**reach).client() as client:
        lookup = client.lookup(label, epoch)
    if out is not None:
        write_private(out, lookup.proof.encode(), mode=0o644)
        output.note(f"  proof saved to {out}")
    if save is not None:
        save_profile(save, lookup.profile or ())
    return show_lookup(output, lookup)


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--vkey", envvar="KT_VKEY", help="The directory's key; default the one that FILE begins with.")
@click.pass_context
def verify_command(context: click.Context, file: Path, vkey: str | None) -> int:
    """Verify a saved proof again, without a network."""
    output = output_of(context)
    try:
        with file.open("rb") as stream:
            proof = ProofFile.decode(stream.read(MAX_PROOF_FILE + 1))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except MalformedError as error:
        raise VerificationError("proof file", str(error)) from None
    if vkey is None:
        first = proof.configs[0].config
        pinned = Pinned(proof.origin, first.signer_key)
        output.note(f"  no --vkey given: taking the file's word for {pinned.vkey}")
    else:
        pinned = Pinned.parse(vkey)
    return show_lookup(output, verify_proof_file(proof, pinned))


def show_checks(output: Output, lookup: Lookup | History) -> None:
    for check in lookup.checks:
        output.ok(check)


def show_lookup(output: Output, lookup: Lookup) -> int:
    """The lookup for people or as JSON; the exit code."""
    show_checks(output, lookup)
    output.note(f"  as of {at(lookup.timestamp)}, epoch {lookup.epoch} of {lookup.head.origin}")
    if lookup.absent:
        lines = []
    elif lookup.profile is None:
        lines = [f"{lookup.label}  (profile erased)" if lookup.erased else lookup.label]
    else:
        lines = [_key_line(key) for key in lookup.profile]
    output.data(lookup_document(lookup), lines)
    return PROVEN_ABSENT if lookup.absent else 0


def _key_line(key: ProfileKey) -> str:
    text = (
        key.data.decode("ascii", "replace").strip()
        if key.type in ("ssh", "age")
        else f"{len(key.data)} bytes"
    )
    return f"{key.type}  {key.name}  {text}"


def lookup_document(lookup: Lookup) -> dict[str, Any]:
    entry = lookup.entry
    return {
        "label": lookup.label,
        "origin": lookup.head.origin,
        "epoch": lookup.epoch,
        "timestamp": lookup.timestamp,
        "absent": lookup.absent,
        "erased": lookup.erased,
        "version": None if entry is None else entry.version,
        "keys": None if lookup.profile is None else [_profile_document(key) for key in lookup.profile],
        "authorized_keys": None if entry is None else [key.id.hex() for key in entry.authorized_keys],
        "checks": list(lookup.checks),
    }


def _profile_document(key: ProfileKey) -> dict[str, str]:
    return {"name": key.name, "type": key.type, "data": encode_base64(key.data)}


@click.command("history")
@click.argument("label")
@reach_options
@click.pass_context
def history_command(context: click.Context, /, label: str, **reach: Any) -> int:
    """Every version of LABEL: since when, signed by which key; all of it verified."""
    output = output_of(context)
    with Reach(**reach).client() as client:
        history = client.history(label)
    show_checks(output, history)
    output.data(
        {"label": history.label, "versions": [_version_document(version) for version in history.versions]},
        [_version_line(version) for version in history.versions],
    )
    return 0 if history.versions else PROVEN_ABSENT


def _version_document(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "epoch": version.epoch,
        "timestamp": version.timestamp,
        "entry": version.mutation.entry_hash.hex(),
        "signed_by": [key.id.hex() for key in version.signers],
        "authorized_keys": [key.id.hex() for key in version.entry.authorized_keys],
        "erased": version.erased,
    }


def _version_line(version: Version) -> str:
    signers = ", ".join(key.id.hex() for key in version.signers)
    return (
        f"version {version.number}  since epoch {version.epoch}, {at(version.timestamp)}  signed by {signers}"
    )


@click.command("watch")
@click.argument("labels", nargs=-1, required=True)
@click.option("--interval", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Check once and end.")
@click.option(
    "--mine", "names", multiple=True, metavar="NAME", help="Your signing keys; default all in --keys."
)
@keys_option
@reach_options
@click.pass_context
def watch_command(
    context: click.Context,
    /,
    labels: tuple[str, ...],
    interval: float,
    once: bool,
    names: tuple[str, ...],
    keys: Path,
    **reach: Any,
) -> int:
    """Watch your LABELS: alarm on any version that is not signed by a key of yours alone."""
    output = output_of(context)
    store = KeyStore(keys)
    mine = frozenset(key.public for key in (map(store.get, names) if names else store.list()))
    if not mine:
        raise ConfigError(f"there is no signing key in {keys} to know your changes by")
    stop = stop_on_signals()
    seen: dict[str, int] = {}
    alarms: list[dict[str, Any]] = []
    with Reach(**reach).client() as client:
        while not stop.is_set():
            try:
                for label in labels:
                    alarms += _watch_one(output, client, label, mine, seen)
            except UnavailableError as error:
                if once:
                    raise
                output.fail(f"cannot look now, trying again: {error}")
            if alarms or once:
                break
            stop.wait(interval)
    output.data({"labels": list(labels), "alarms": alarms}, [])
    if alarms:
        raise KtError(
            f"{len(alarms)} versions are not yours: tell the operator and everybody who uses the keys"
        )
    return 0


def _watch_one(
    output: Output, client: Client, label: str, mine: frozenset[PublicKey], seen: dict[str, int]
) -> list[dict[str, Any]]:
    """Look at the versions of one label that were not seen yet; the ones that are not ours."""
    history = client.history(label)
    known = seen.get(label, 0)
    foreign = []
    for version in history.versions[known:]:
        if mine.isdisjoint(version.signers) or not mine.issuperset(version.entry.authorized_keys):
            output.fail(f"{label}: {_version_line(version)}: not yours")
            foreign.append({"label": label, **_version_document(version)})
        else:
            output.ok(f"{label}: {_version_line(version)}: yours")
    if len(history.versions) < known:
        raise VerificationError("history", f"{label} has fewer versions than were seen before")
    if not history.versions and label not in seen:
        output.ok(f"{label}: not published, as of {at(int(time.time() * 1000))}")
    seen[label] = len(history.versions)
    return foreign
