"""All fuzz targets by name: functions of any bytes that return whether these were read, or raise for a
broken promise.

The promises: only documented errors are raised, a decoded value has one encoding, and verdicts follow from
the queue alone. The targets need no fuzzer: the ordinary tests call them with seeds, regression cases and
random changes.
"""

from __future__ import annotations

from importlib.util import find_spec

from tools.fuzz import deciding, decoders, readers
from tools.fuzz.decoders import Target

TARGETS: dict[str, Target] = {
    **decoders.CODEC_TARGETS,
    **decoders.TEXT_TARGETS,
    "pin": decoders.pin,
    "label": decoders.label,
    "armor": decoders.armor,
    "conviction": decoders.conviction,
    "page": decoders.page,
    "json": readers.json_answers,
    "lookup": readers.lookup,
    "proof": readers.proof,
    "snapshot": readers.snapshot,
    "vrf": readers.vrf_proof,
    "private-key": readers.private_key,
    "settings": readers.settings,
    "pem": readers.pem,
    "ssh": readers.ssh,
    "openpgp-binding": readers.openpgp_binding,
    "node-users": readers.node_users,
    "node-group": readers.node_group,
    "queue": deciding.queue,
    "decision": deciding.decision,
}

if find_spec("pysequoia") is not None:
    TARGETS["openpgp"] = readers.openpgp

ANY = "any"
QUICK = sorted(set(TARGETS) - {"queue", "decision"})


def any_target(data: bytes) -> bool:
    """Run ``u8 number of a quick target || its input``, so that a short run needs one process for all."""
    return bool(data) and TARGETS[QUICK[data[0] % len(QUICK)]](data[1:])
