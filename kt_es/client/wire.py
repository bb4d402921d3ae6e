"""Decodes the answers of a front end, beyond the declarations of ``kt_es.api``.

The binary members contain everything that matters, and ``trust`` verifies them. The functions here decode
answers and raise ``MalformedError`` with the name of the wrong member.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kt_es.api.codec import Json, decode_json, decode_member, decode_model
from kt_es.api.models import DirectoryBody, HeadBody, HistoryBody, ReceiptBody, VerdictBody
from kt_es.client.history import ClaimedVersion
from kt_es.errors import MalformedError
from kt_es.formats.configs import SignedConfig, check_directory, check_origin
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.formats.proofs import decode_configs


@dataclass(frozen=True, slots=True)
class DirectoryAnswer:
    """The answer about the directory, with its configs decoded."""

    origin: str
    directory: str
    label_policy: str
    configs: tuple[SignedConfig, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a submission. ``verdict`` and ``epoch`` are None while nothing is decided."""

    mutation: str
    verdict: str | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """The parts of a problem document (RFC 9457) that people see. All of them are printable."""

    reason: str
    detail: str
    field: str | None


def read_directory(body: Mapping[str, Json]) -> DirectoryAnswer:
    answer = decode_model(DirectoryBody, body)
    if answer.label_policy not in LABEL_POLICIES:
        raise MalformedError("label_policy", f"must be one of {', '.join(LABEL_POLICIES)}")
    return DirectoryAnswer(
        check_origin(answer.origin),
        check_directory(answer.directory),
        answer.label_policy,
        decode_configs(answer.configs),
    )


def read_head(body: Mapping[str, Json]) -> HeadBody:
    answer = decode_model(HeadBody, body)
    SignedMapHead.decode(answer.smh)
    return answer


def read_history(body: Mapping[str, Json]) -> tuple[ClaimedVersion, ...]:
    versions = []
    for answer in decode_model(HistoryBody, body).versions:
        mutation = Mutation.decode(answer.mutation)
        if answer.version != mutation.entry.version:
            raise MalformedError("version", "is not that of the mutation")
        if answer.epoch < 1:
            raise MalformedError("epoch", "must be an integer from 1")
        versions.append(ClaimedVersion(answer.epoch, mutation))
    return tuple(versions)


def read_receipt(body: Mapping[str, Json]) -> Receipt:
    # Decode only the members that the client uses: the mutation was accepted, even if others are wrong.
    mutation = decode_member(ReceiptBody, body, "mutation")
    verdict, epoch = (
        None if body.get(name) is None else decode_member(VerdictBody, body, name)
        for name in ("verdict", "epoch")
    )
    return Receipt(mutation, verdict, epoch)


def read_problem(status: int, data: bytes) -> ShownProblem:
    """Read the body of a failure. It never raises: a proxy between server and client has its own format."""
    try:
        body = decode_json(data, "problem")
    except MalformedError:
        body = {}

    def shown(name: str) -> str | None:
        value = body.get(name)
        return _printable(value) if isinstance(value, str) and value else None

    reason = shown("verdict") or shown("reason") or f"http-{status}"
    detail = shown("detail") or shown("title") or f"the server answered with status {status}"
    return ShownProblem(reason, detail, shown("field"))


def _printable(text: str) -> str:
    """``text`` without characters that control a terminal, cut at 500."""
    return "".join(character if character.isprintable() else "?" for character in text[:500])
