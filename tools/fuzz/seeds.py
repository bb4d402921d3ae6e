"""Valid initial inputs for every target: the examples of FORMATS, and inputs made from them."""

from __future__ import annotations

import base64
import datetime
import io
import json
from itertools import groupby
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from kt_es.client.trusted import Pinned, begin
from kt_es.config.settings import Settings, dump_settings
from kt_es.crypto.hashes import HASH_SIZE, log_leaf_hash
from kt_es.formats.codec import encode
from kt_es.formats.evidence import armored
from kt_es.formats.proofs import encode_configs
from kt_es.formats.snapshots import LENGTH_SIZE
from kt_es.ledger.rows import Committed
from kt_es.merkle.log import LogState
from kt_es.node.access.users import Secret, User
from kt_es.node.access.users import encode as encode_users
from kt_es.node.groups.settings import Filter, GroupSettings, encode_settings
from projections.snapshot import save
from tests.builders import (
    ORIGIN,
    SIGNER,
    SIGNER_KEY,
    VRF,
    label_of,
    opening,
    p256_key,
    profile,
    seed,
    signed_config,
)
from tests.example_directory import ALICE, QUEUE, STORY
from tests.examples import EXAMPLES
from tools.fuzz.deciding import EVENT_TYPES, frame
from tools.fuzz.signing import Run

_OPENPGP = Path(__file__).with_name("openpgp_seeds.json")
_EC_SEED = int.from_bytes(seed("fuzz"))


def seeds() -> dict[str, list[bytes]]:
    """Return the inputs by target. They are deterministic."""
    examples = sorted((made.rule, made.data) for made in EXAMPLES.values())
    by_rule = {rule: [data for _, data in made] for rule, made in groupby(examples, lambda pair: pair[0])}
    return {
        **by_rule,
        "cbor": [EXAMPLES["map-head"].data, EXAMPLES["profile"].data, encode([0, None, "é", [[b""]]])],
        "committed": [_committed()],
        "trusted": [begin(_pinned(), [signed_config()]).encode()],
        "note": [STORY.heads_checkpoint().encode()],
        "checkpoint": [STORY.heads_checkpoint().partition("\n\n")[0].encode() + b"\n"],
        "vkey": [_pinned().vkey.encode()],
        "pin": [_pinned().vkey.encode(), b" " + _pinned().vkey.encode() + b"\n"],
        "label": [label_of("alice").encode(), "Émile@Exämple.org".encode(), "e\u0301\u00df".encode()],
        "armor": [armored(EXAMPLES["evidence-heads"].data).encode()],
        "conviction": by_rule["evidence"],
        "page": [_page()],
        "json": [json.dumps(body).encode() for body in _bodies()],
        "lookup": by_rule["lookup-answer"],
        "proof": by_rule["proof-file"],
        "snapshot": _snapshots(),
        "vrf": [VRF.prove(b"alice@example.org")[1] + b"alice@example.org"],
        "private-key": [SIGNER.to_pem(), p256_key("alice phone").to_pem()],
        "settings": [_settings()],
        "pem": [_certificate()],
        "ssh": _ssh(),
        "openpgp": [bytes.fromhex(data) for data in _openpgp().values()],
        "openpgp-binding": [_binding(bytes.fromhex(data)) for data in _openpgp().values()],
        "node-users": [
            encode_users({"alice": User(frozenset({"$admins"}), Secret.of("password", bytes(16)))})
        ],
        "node-group": [
            encode_settings(GroupSettings()),
            encode_settings(GroupSettings(filter=Filter(True, "", ("kt_", "$"), 32))),
        ],
        "queue": _queues(),
        "decision": _programs(),
    }


def _pinned() -> Pinned:
    return Pinned(ORIGIN, SIGNER_KEY)


def _committed() -> bytes:
    log, _ = LogState().append([log_leaf_hash(record) for record in STORY.records])
    return Committed(STORY.standing, log=log, queue_next=6, records_next=2).encode()


def _page() -> bytes:
    return bytes((3,)) + bytes(2 + 5 + 8) + (0b01_10_00_01).to_bytes(4) + bytes(200)


def _snapshots() -> list[bytes]:
    """Return a snapshot file, and its parts without the end and the digest."""
    run = Run.begin(1 << 20)
    for revision, event in enumerate(QUEUE):
        run.step(revision, event)
    file = io.BytesIO()
    save(run.ledger, file)
    whole = file.getvalue()
    return [whole, whole[: -LENGTH_SIZE - HASH_SIZE]]


def _bodies() -> list[dict[str, object]]:
    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return [
        {
            "origin": ORIGIN,
            "directory": "people",
            "label_policy": "email",
            "configs": text(encode_configs([signed_config()])),
        },
        {
            "epoch": 2,
            "answer": text(EXAMPLES["answer-present"].data),
            "profile": text(profile("alice", 2)),
            "consistency": [text(bytes(32))],
        },
        {
            "epoch": 2,
            "smh": text(STORY.smhs[1]),
            "heads_checkpoint": STORY.heads_checkpoint(),
            "mutations_checkpoint": STORY.heads_checkpoint(),
            "inclusion": [text(bytes(32))],
            "latest_checkpoint": STORY.heads_checkpoint(),
        },
        {"hashes": [text(bytes(32))]},
        {"first": 1, "last": 2, "answer": text(b"answer"), "consistency": [text(bytes(32))]},
        {"entry": ALICE.entry_hash.hex(), "event": None, "epoch": 2},
        {
            "versions": [
                {
                    "version": 1,
                    "epoch": 1,
                    "mutation": text(ALICE.encode()),
                    "opening": text(opening("alice")),
                    "profile": text(profile("alice")),
                }
            ],
            "more": False,
        },
        {"mutation": ALICE.entry_hash.hex(), "verdict": "accepted", "epoch": 1},
        {"title": "Conflict", "detail": "is taken", "reason": "conflict", "field": "version", "status": 409},
    ]


def _settings() -> bytes:
    return dump_settings(Settings(directory="people", origin=ORIGIN, key=_pinned().vkey)).encode()


def _certificate() -> bytes:
    """Return a certificate with a name and addresses. Ed25519 is deterministic, so its bytes never change."""
    key = Ed25519PrivateKey.from_private_bytes(seed("certificate"))
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Alice"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "alice@example.org"),
        ]
    )
    alternative = x509.SubjectAlternativeName([x509.RFC822Name("a@example.org"), x509.DNSName("example.org")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2034, 1, 1, tzinfo=datetime.UTC))
        .add_extension(alternative, critical=False)
        .sign(key, None)
    )
    return made.public_bytes(Encoding.PEM)


def _ssh() -> list[bytes]:
    keys = (
        Ed25519PrivateKey.from_private_bytes(seed("ssh")),
        ec.derive_private_key(_EC_SEED, ec.SECP256R1()),
    )
    lines = [key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) for key in keys]
    options = b'namespaces="git",valid-after="20240101" '
    return [
        b"\n".join(line + b" alice@example.org" for line in lines),
        b"# allowed signers\nalice@example.org,bob@example.org " + options + lines[0] + b"\n",
        b'command="echo \\"x\\"",no-pty ' + lines[1] + b" Alice's laptop\n",
    ]


def _openpgp() -> dict[str, str]:
    found: dict[str, str] = json.loads(_OPENPGP.read_text(encoding="utf-8"))
    return found


def _binding(certificate: bytes) -> bytes:
    """Return the key, the user id and the last signature of a certificate with four packets."""
    bodies = []
    while certificate:
        size, header = certificate[1], 2
        if size >= 192:
            size, header = (size - 192 << 8) + certificate[2] + 192, 3
        bodies.append(certificate[header : header + size])
        certificate = certificate[header + size :]
    key, user_id, signature = bodies[0], bodies[2], bodies[3]
    return len(key).to_bytes(2) + key + len(user_id).to_bytes(2) + user_id + signature


def _queues() -> list[bytes]:
    known = [(kind if kind in EVENT_TYPES else EVENT_TYPES[3], data) for kind, data in QUEUE[1:]]
    story = b"".join(frame(kind, data) for kind, data in known)
    foreign = bytearray(frame(*QUEUE[2]))
    foreign[0] |= 0x80
    return [story, bytes(foreign), *(frame(kind, data) for kind, data in known)]


def _programs() -> list[bytes]:
    """Return programs with changes, an epoch, a rotation, a replay, a conflict, a config and broken items."""
    change, end, again, damaged, config, broken, flush = range(7)
    alice = [change, 0, 0, 0, 0, 0, 0, 0]
    return [
        bytes([*alice, end, 0, 0, 0, change, 0, 0, 0, 2, 3, 0, 1, end, 0, 0, 0, again, 0]),
        bytes([*alice, change, 0, 0, 0, 0, 0, 0, 1, again, 0, flush, damaged, 0, 0, 60, 3]),
        bytes([*alice, config, 0, 1, 0, 0, 5, end, 0, 0, 0, end, 0, 0, 1]),
        bytes([byte for number in range(13) for byte in (broken, number)]),
    ]
