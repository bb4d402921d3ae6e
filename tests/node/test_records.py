"""Stored events against the protocol's own messages; filters over them."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.node.groups.settings import make_filter, predicate
from kt_es.node.protocol import persistent_pb2, shared_pb2, streams_pb2
from kt_es.node.refusals import Refusal
from kt_es.node.store.records import (
    Proposed,
    canonical_id,
    created_of,
    delivery,
    encoder,
    id_of,
    name_of,
    parsed,
    position_of,
    read_response,
    revision_of,
    structured,
    type_of,
    varint,
    with_structured_ids,
)

texts = st.text(min_size=1, max_size=300).filter(lambda text: text.isprintable())
proposals = st.builds(
    Proposed,
    st.uuids().map(str),
    texts,
    st.sampled_from(["application/json", "application/octet-stream"]),
    st.binary(max_size=300),
    st.binary(max_size=40_000),
)
u63 = st.integers(0, 2**63 - 1)


@given(proposals, texts, u63, u63, u63)
def test_a_stored_event_is_the_protocols_message(
    event: Proposed, stream: str, revision: int, position: int, created: int
) -> None:
    stored = encoder(stream.encode(), created)(event, revision, position)
    expected = streams_pb2.ReadResp.ReadEvent.RecordedEvent(
        id=shared_pb2.UUID(string=event.id),
        stream_identifier=shared_pb2.StreamIdentifier(stream_name=stream.encode()),
        stream_revision=revision,
        prepare_position=position,
        commit_position=position,
        metadata={"type": event.type, "content-type": event.content_type, "created": str(created)},
        custom_metadata=event.metadata,
        data=event.data,
    )
    whole = streams_pb2.ReadResp.ReadEvent(event=expected, commit_position=position)
    assert parsed(stored) == whole
    assert streams_pb2.ReadResp.FromString(read_response(stored)) == streams_pb2.ReadResp(event=whole)
    delivered = persistent_pb2.ReadResp.FromString(delivery(stored, 7)).event
    assert delivered.retry_count == 7
    assert delivered.event.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )
    assert (position_of(stored), created_of(stored), revision_of(stored)) == (position, created, revision)
    assert (id_of(stored), name_of(stored), type_of(stored)) == (event.id, stream, event.type)


@given(st.integers(0, 2**64 - 1))
def test_varints_are_protobufs(value: int) -> None:
    encoded = streams_pb2.ReadReq.Options(count=value).SerializeToString()
    assert encoded[1:] == varint(value)


@given(st.uuids())
def test_ids_have_two_spellings_and_one_text(value: uuid.UUID) -> None:
    for spelled in (
        shared_pb2.UUID(string=str(value)),
        shared_pb2.UUID(string=str(value).upper()),
        shared_pb2.UUID(string="{" + str(value) + "}"),
        structured(value),
    ):
        assert canonical_id(spelled) == str(value)
    event = streams_pb2.ReadResp.ReadEvent()
    event.event.id.string = str(value)
    with_structured_ids(event)
    assert event.event.id == structured(value)
    assert event.link.id == shared_pb2.UUID()


@pytest.mark.parametrize("text", ["", "no id", "0" * 31, "0" * 33])
def test_other_texts_are_no_ids(text: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        canonical_id(shared_pb2.UUID(string=text))


def stored(stream: str, type_: str) -> bytes:
    event = Proposed(str(uuid.UUID(int=1)), type_, "application/json", b"", b"")
    return encoder(stream.encode(), 0)(event, 0, 1)


@pytest.mark.parametrize(
    ("by_stream", "regex", "prefixes", "passes"),
    [
        (False, "^A|B$", (), [True, True, True, False]),
        (True, "^one$", (), [True, True, False, False]),
        (False, r"^(?!(\$.+$))", (), [True, True, True, False]),
        (False, "", ("A", "$"), [True, False, True, True]),
        (True, "", ("t",), [False, False, True, True]),
    ],
)
def test_filters(by_stream: bool, regex: str, prefixes: tuple[str, ...], passes: list[bool]) -> None:
    events = [stored("one", "A1"), stored("one", "XB"), stored("two", "Axe"), stored("two", "$system")]
    check = predicate(make_filter(by_stream, regex, prefixes, 10, 5))
    assert [check(event) for event in events] == passes


def test_a_filter_that_cannot_be_compiled_is_named() -> None:
    with pytest.raises(Refusal, match="regular expression"):
        predicate(make_filter(False, "(", (), 1, 1))
