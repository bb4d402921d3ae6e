"""Every changed byte of every format is refused, or means something else and is signed by nobody."""

from __future__ import annotations

import pytest

from kt_es.epochs import is_authorized
from kt_es.errors import KtError, MalformedError, VerificationError
from kt_es.formats.configs import SignedConfig, check_first_config
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.queue import Marker
from tests.builders import ORIGIN, SIGNER_KEY, current, every_changed_byte
from tests.example_directory import ALICE
from tests.examples import EXAMPLES, Example


def named_in(error: BaseException) -> str:
    assert isinstance(error, (MalformedError, VerificationError))
    return error.step if isinstance(error, VerificationError) else error.what


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_changed_byte_is_refused_or_means_something_else(example: Example) -> None:
    for changed in every_changed_byte(example.data):
        try:
            again = example.again(changed)
        except KtError:
            continue
        assert again == changed != example.data


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_nothing_may_be_missing_or_follow(example: Example) -> None:
    for broken in (example.data[:-1], example.data + b"\x00", b"", example.data * 2):
        with pytest.raises(MalformedError) as caught:
            example.again(broken)
        assert caught.value.what


def test_a_changed_map_head_is_refused_with_its_step() -> None:
    steps = set()
    for changed in every_changed_byte(EXAMPLES["smh"].data):
        with pytest.raises((MalformedError, VerificationError)) as caught:
            SignedMapHead.decode(changed).verify(ORIGIN, SIGNER_KEY)
        steps.add(named_in(caught.value))
    assert {"map head", "map head epoch", "signed map head"} <= steps
    assert all(step.startswith(("map head", "signed map head")) for step in steps)


def test_a_changed_marker_is_signed_by_nobody() -> None:
    for changed in every_changed_byte(EXAMPLES["marker"].data):
        try:
            marker = Marker.decode(changed)
        except MalformedError as error:
            assert error.what.startswith("marker")  # noqa: PT017
            continue
        assert not marker.is_signed_by(SIGNER_KEY, ORIGIN)


def test_a_changed_config_is_refused_with_its_step() -> None:
    for changed in every_changed_byte(EXAMPLES["signed-config"].data):
        with pytest.raises((MalformedError, VerificationError)) as caught:
            check_first_config(SignedConfig.decode(changed), ORIGIN, SIGNER_KEY)
        assert named_in(caught.value).startswith(("config", "signed config", "origin"))


@pytest.mark.parametrize("name", ["mutation", "mutation-rotation"])
def test_a_changed_mutation_is_authorized_by_nobody(name: str) -> None:
    before = None if name == "mutation" else current(ALICE)
    assert is_authorized(Mutation.decode(EXAMPLES[name].data), before, ORIGIN)
    for changed in every_changed_byte(EXAMPLES[name].data):
        try:
            mutation = Mutation.decode(changed)
        except MalformedError as error:
            assert error.what.startswith(("mutation", "entry"))  # noqa: PT017
            continue
        assert not is_authorized(mutation, before, ORIGIN)
