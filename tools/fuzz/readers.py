"""Fuzz targets of untrusted input: JSON of a server, lookups to verify, files to import."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kt_es.api.codec import decode_json, decode_model, read_problem
from kt_es.api.models import ConsistencyBody, ErasureBody, LookupBody, RangeBody
from kt_es.client.directory import read_directory, read_head
from kt_es.client.history import read_history
from kt_es.client.publishing import read_receipt
from kt_es.client.trust import open_answer, verify_lookup, verify_proof_file
from kt_es.client.trusted import Pinned, begin
from kt_es.config.settings import load_settings
from kt_es.crypto import vrf
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import PrivateKey
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import (
    CannotTellError,
    ConfigError,
    DivergenceError,
    KtError,
    MalformedError,
    VerificationError,
)
from kt_es.formats.entries import decode_profile, encode_profile
from kt_es.formats.labels import EMAIL, TEXT
from kt_es.formats.proofs import ProofFile
from kt_es.formats.snapshots import LENGTH_SIZE
from kt_es.importers.accounts import ImportPlan
from kt_es.importers.openpgp import mailbox, read_openpgp
from kt_es.importers.packets import binds
from kt_es.importers.pem import read_pem
from kt_es.importers.ssh import read_ssh
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rows import StateTable
from kt_es.ledger.tables import FAMILIES
from kt_es.node.access.users import decode as decode_users
from kt_es.node.access.users import encode as encode_users
from kt_es.node.groups.settings import decode_settings, encode_settings
from projections.snapshot import load, save
from tests.builders import ORIGIN, SIGNER_KEY, START, VRF, index, label_of, profile, signed_config
from tests.example_directory import BOB, ROTATED
from tools.fuzz.decoders import check

ANSWER_READERS: list[Callable[..., object]] = [
    read_directory,
    lambda body: decode_model(LookupBody, body),
    lambda body: decode_model(RangeBody, body),
    lambda body: decode_model(ConsistencyBody, body),
    lambda body: decode_model(ErasureBody, body),
    read_head,
    read_history,
    read_receipt,
]
_PINNED = Pinned(ORIGIN, SIGNER_KEY)
# The entries of the example directory in its last epoch. Nothing else can be proven.
_HELD = {"alice": ROTATED.entry_hash, "bob": BOB.entry_hash, "carol": None}
_NOW = START + 3_000


def json_answers(data: bytes) -> bool:
    """Give one body to every reader of an answer."""
    problem = read_problem(502, data)
    shown = (problem.reason, problem.detail, problem.field or "")
    check(all(text.isprintable() for text in shown), "a problem cannot be shown")
    try:
        body = decode_json(data, "answer")
    except MalformedError:
        return False
    # Each of them, whatever the one before it says.
    return sum(is_read(reader, body) for reader in ANSWER_READERS) > 0


def is_read(reader: Callable[..., object], body: object) -> bool:
    try:
        reader(body)
    except MalformedError:
        return False
    return True


def lookup(data: bytes) -> bool:
    """Verify the answer to a lookup for each user: it is refused, or proves the truth."""
    trusted = begin(_PINNED, [signed_config()])
    try:
        answer = open_answer(data)
    except VerificationError:
        return False
    verified = False
    for user, held in _HELD.items():
        told = profile("alice", 2) if user == "alice" else None
        try:
            _, proven = verify_lookup(trusted, label_of(user), answer, told, (), now=_NOW)
        except VerificationError:
            continue
        found = None if proven.mutation is None else proven.mutation.entry_hash
        check(found == held, f"something else was proven of {user}")
        verified = True
    return verified


def snapshot(data: bytes) -> bool:
    """Load a snapshot, unchanged and with a correct digest: it is refused, or saved as the same bytes."""
    loaded = False
    parts = data + bytes(LENGTH_SIZE)
    for file in (data, parts + sha256(parts)):
        store = MemoryStore(FAMILIES)
        try:
            load(io.BytesIO(file), store, ORIGIN, SIGNER_KEY)
        except DivergenceError:
            check(
                StateTable(store).committed(ORIGIN, SIGNER_KEY) is None,
                "a snapshot that was refused is committed",
            )
            continue
        again = io.BytesIO()
        save(Ledger(store, ORIGIN, SIGNER_KEY), again)
        check(again.getvalue() == file, "a snapshot that was loaded is saved otherwise")
        loaded = True
    return loaded


def proof(data: bytes) -> bool:
    """Decode and verify a proof file: it is refused, or proves the truth."""
    try:
        file = ProofFile.decode(data)
    except MalformedError:
        return False
    check(file.encode() == data, "a proof file has one encoding")
    try:
        proven = verify_proof_file(file, _PINNED)
    except (MalformedError, VerificationError, CannotTellError):
        return False
    by_label = {label_of(user): held for user, held in _HELD.items()}
    held = None if proven.mutation is None else proven.mutation.entry_hash
    check(proven.head.origin == ORIGIN, "another directory was proven")
    if proven.head.epoch == 2 and proven.label in by_label:
        check(held == by_label[proven.label], f"something else was proven of {proven.label}")
    return True


def vrf_proof(data: bytes) -> bool:
    """Verify ``proof[80] || alpha`` under the key of the directory and under a key from the input."""
    verified = False
    pi, alpha = data[:80], data[80:335]
    for public in (VRF.public, data[-32:]):
        try:
            beta = vrf.verify(public, alpha, pi)
        except VerificationError:
            continue
        except KtError as error:
            check(isinstance(error, MalformedError), "of another kind")
            continue
        if public == VRF.public:
            users = {label_of(user).encode(): index(user) for user in _HELD}
            check(alpha not in users or vrf.index_of(beta) == users[alpha], "a VRF output was forged")
        verified = True
    return verified


def openpgp_binding(data: bytes) -> bool:
    """Verify ``u16 length || key || u16 length || user id || signature``: packet bodies of a certificate."""
    key, rest = _sized(data)
    user_id, signature = _sized(rest)
    binds(key, None, signature)
    return binds(key, user_id, signature)


def _sized(data: bytes) -> tuple[bytes, bytes]:
    size = 2 + int.from_bytes(data[:2])
    return data[2:size], data[size:]


def private_key(data: bytes) -> bool:
    """Give a PEM file to both readers of private keys: a key that was read survives encoding.

    The key of the VRF is an Ed25519 seed, so the reader of signing keys takes every file of one.
    """
    try:
        vrf: VrfPrivateKey | None = VrfPrivateKey.from_pem(data)
    except MalformedError:
        vrf = None
    try:
        key = PrivateKey.from_pem(data)
    except (MalformedError, ConfigError):
        check(vrf is None, "only the reader of VRF keys accepts the file")
        return False
    check(vrf is None or VrfPrivateKey.from_pem(key.to_pem()) == vrf, "a VRF key does not come back")
    check(PrivateKey.from_pem(key.to_pem()).public == key.public, "a private key does not come back")
    return True


def settings(data: bytes) -> bool:
    """Read ``kt.toml``: it is accepted, or refused with an error that names the file."""
    with tempfile.TemporaryDirectory(prefix="kt-fuzz-") as folder:
        path = Path(folder) / "kt.toml"
        path.write_bytes(data)
        try:
            read = load_settings(path)
        except ConfigError as error:
            check(str(path) in str(error), "the error does not name the file")
            return False
        check(read.pinned.id == Pinned.parse(read.key).key.id, "the pinned key is another")
        return True


def _plan(data: bytes, read: Callable[[Path], ImportPlan]) -> bool:
    with tempfile.TemporaryDirectory(prefix="kt-fuzz-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        try:
            plan = read(path)
        except MalformedError:
            return False
        check(read(path) == plan, "the same file makes another plan")
    for account in plan.accounts:
        check(decode_profile(encode_profile(account.keys)) == account.keys, "a profile does not come back")
    check(all(skipped.what.isprintable() for skipped in plan.skipped), "what was skipped cannot be shown")
    return bool(plan.accounts)


def pem(data: bytes) -> bool:
    plans = [_plan(data, partial(read_pem, policy=policy)) for policy in (EMAIL, TEXT)]
    return any(plans)


def ssh(data: bytes) -> bool:
    plans = [_plan(data, partial(read_ssh, policy=policy)) for policy in (EMAIL, TEXT)]
    return any(plans)


def openpgp(data: bytes) -> bool:
    mailbox(data[:1024].decode("utf-8", "replace"))
    plans = [_plan(data, partial(read_openpgp, certifications=used)) for used in (True, False)]
    return any(plans)


def node_users(data: bytes) -> bool:
    """Decode the node's file of users: it survives encoding."""
    try:
        users = decode_users(data, Path("users.json"))
    except ConfigError:
        return False
    check(decode_users(encode_users(users), Path("users.json")) == users, "users are kept otherwise")
    return True


def node_group(data: bytes) -> bool:
    """Decode the stored settings of a persistent subscription: they survive encoding."""
    try:
        settings = decode_settings(data)
    except MalformedError:
        return False
    check(decode_settings(encode_settings(settings)) == settings, "settings are kept otherwise")
    return True
