"""Policy files: the syntax of C2SP tlog-policy, its limits, and quorums against a naive reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.hashes import sha256
from kt_es.errors import MalformedError
from kt_es.formats.notes import encode_base64
from kt_es.formats.policies import MAX_DEFINED, MAX_POLICY_SIZE, Cosigner, Policy, PolicyLog


def vkey(name: str, number: int = 0, kind: int = 0x04, size: int = 32) -> str:
    data = bytes([kind]) + number.to_bytes(2) + bytes(size - 2)
    return f"{name}+{sha256(name.encode() + bytes([10]) + data)[:4].hex()}+{encode_base64(data)}"


LOG = vkey("log.example/heads", 1, 0x01)
X1, X2, X3 = (vkey(f"x{number}.example", number) for number in (1, 2, 3))
Y1, Y2, Y3 = (vkey(f"y{number}.example", number) for number in (4, 5, 6))

# The example of the specification, with keys.
EXAMPLE = f"""log {LOG}

witness X1 {X1}
witness X2 {X2}
witness X3 {X3}
group X-witnesses 2 X1 X2 X3

witness Y1 {Y1}
witness Y2 {Y2}
witness Y3 {Y3}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def refusal(text: str | bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        Policy.parse(text)
    return caught.value.problem


class TestTheExampleOfTheSpecification:
    def test_defines_its_log_and_its_witnesses(self) -> None:
        policy = Policy.parse(EXAMPLE)
        assert policy.logs == (PolicyLog(LOG, None),)
        assert policy.logs[0].origin == "log.example/heads"
        assert [cosigner.name for cosigner in policy.cosigners] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
        assert policy.cosigners[0] == Cosigner("X1", X1, None)
        assert policy.cosigners[0].key_name == "x1.example"

    @pytest.mark.parametrize(
        ("names", "satisfied"),
        [
            ("X1 X2 Y3", True),
            ("X1 X2 X3 Y1 Y2 Y3", True),
            ("X1 X3", False),
            ("X1 Y1 Y2 Y3", False),
            ("", False),
            ("X-witnesses Y-witnesses X-and-Y none", False),  # names of groups are not cosigners
            ("X1 X2 Y4", False),
        ],
    )
    def test_quorum(self, names: str, *, satisfied: bool) -> None:
        assert Policy.parse(EXAMPLE).is_satisfied(names.split()) is satisfied


class TestSyntax:
    def test_spaces_tabs_comments_and_empty_lines(self) -> None:
        text = f"# who\n \t\n\t witness  X1\t{X1} \t https://x1.example/w#1 \n  # quorum X9\n\tquorum X1\t\n"
        assert Policy.parse(text).cosigners == (Cosigner("X1", X1, "https://x1.example/w#1"),)

    def test_quorum_none_needs_no_witness(self) -> None:
        policy = Policy.parse("quorum none\n")
        assert policy.is_satisfied([])
        assert not policy.cosigners

    def test_quorum_of_one_witness(self) -> None:
        policy = Policy.parse(f"witness X1 {X1}\nwitness X2 {X2}\nquorum X2\n")
        assert [policy.is_satisfied([name]) for name in ("X1", "X2")] == [False, True]

    def test_a_quorum_may_also_be_a_member(self) -> None:
        assert Policy.parse(f"witness X1 {X1}\ngroup G any X1\nquorum X1\n").is_satisfied(["X1"])

    def test_keys_of_ml_dsa(self) -> None:
        key = vkey("pq.example", 7, 0x06, 1312)
        assert Policy.parse(f"witness pq {key}\nquorum pq\n").cosigners[0].vkey == key

    def test_names_are_octets(self) -> None:
        kelvin = "\N{KELVIN SIGN}"
        text = f"witness K {X1}\nwitness {kelvin} {X2}\nquorum {kelvin}\n".encode()
        assert Policy.parse(text).is_satisfied([kelvin])
        assert not Policy.parse(text).is_satisfied(["K"])

    def test_names_need_not_be_utf8(self) -> None:
        policy = Policy.parse(b"witness \xff " + X1.encode() + b"\nquorum \xff\n")
        assert policy.cosigners[0].name == "\\xff"
        assert policy.is_satisfied(["\\xff"])
        text = b"witness \xff " + X1.encode() + b"\nwitness \\xff " + X2.encode() + b"\nquorum \xff\n"
        assert "taken" in refusal(text)

    def test_two_witnesses_may_share_a_key_name(self) -> None:
        other = vkey("x1.example", 9)
        assert len(Policy.parse(f"witness a {X1}\nwitness b {other}\nquorum a\n").cosigners) == 2


W = f"witness X1 {X1}\nwitness X2 {X2}\n"


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "no quorum line"),
            (W, "no quorum line"),
            (f"{W}quorum X1", "line 3 does not end in a newline"),
            (f"{W}quorum X1\nquorum X1\n", "line 4 is a second quorum line"),
            (f"{W}quorum X3\n", "line 3 has the quorum 'X3', which no line above defines"),
            (f"quorum X1\n{W}", "line 1 has the quorum 'X1', which no line above defines"),
            (f"{W}group G any X1 G\nquorum G\n", "line 3 has the member 'G', which no line above defines"),
            (f"{W}group G any none\nquorum G\n", "line 3 has the member 'none'"),
            (f"{W}group G any X1 X1\nquorum G\n", "line 3 has the member 'X1', which is already a member"),
            (
                f"{W}group G any X1\ngroup H any X1\nquorum H\n",
                "line 4 has the member 'X1', which is already",
            ),
            (f"{W}group X1 any X2\nquorum X1\n", "line 3 defines the name 'X1', which is taken"),
            (f"witness none {X1}\nquorum none\n", "line 1 defines the name 'none', which is taken"),
            (
                f"{W}group G 0 X1 X2\nquorum G\n",
                "line 3 has the threshold '0'; must be any, all or a number in 1",
            ),
            (f"{W}group G 3 X1 X2\nquorum G\n", "line 3 has the threshold '3'"),
            (f"{W}group G 01 X1 X2\nquorum G\n", "line 3 has the threshold '01'"),
            (f"{W}group G 1_0 X1 X2\nquorum G\n", "line 3 has the threshold '1_0'"),
            (f"{W}group G ANY X1 X2\nquorum G\n", "line 3 has the threshold 'ANY'"),
            (f"{W}group G any\nquorum X1\n", "line 3 has 2 items after group; must be 'group NAME"),
            (f"{W}quorum X1 X2\n", "line 3 has 2 items after quorum"),
            ("witness X1\nquorum none\n", "line 1 has 1 items after witness; must be 'witness NAME VKEY'"),
            (f"log {LOG} https://a https://b\nquorum none\n", "line 1 has 3 items after log"),
            (f"{W}policy 1\nquorum X1\n", "line 3 begins with 'policy', not with log, witness"),
            (f"Witness X1 {X1}\nquorum X1\n", "line 1 begins with 'Witness'"),
            (f"{W}\r\nquorum X1\n", "line 3 has the control character 0x0d"),
            (f"{W}# \x7f\nquorum X1\n", "line 3 has the control character 0x7f"),
            (f"{W}\N{NO-BREAK SPACE}quorum X1\n", "line 3 begins with '\\xa0quorum'"),
        ],
    )
    def test_lines(self, text: str, problem: str) -> None:
        assert problem in refusal(text)

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (f"witness a {LOG}", "of type 0x01; a witness has a key of type 0x04 or 0x06"),
            (f"log {X1}", "of type 0x04; a log has a key of type 0x01"),
            (f"witness a {vkey('a', 1, 0x04, 33)}", "with 33 bytes instead of 32"),
            (f"witness a {vkey('a', 1, 0x06, 32)}", "with 32 bytes instead of 1312"),
            (f"witness a {X1}!", "which contains invalid base64"),
            # Which of the two problems it is depends on the Python.
            (f"witness a {X1}=", "base64"),
            ("witness a key", "a key has the form name+hash+base64"),
            ("witness a k+01020304+", "of type nothing"),
            (f"witness a y{X1}", "whose hash is not that of its name and key"),
            (f"witness a {X1.replace('+', '+F', 1)}", "whose hash is not that"),
            (f"witness a {vkey('other.example', 1)}", "the public key of another witness once more"),
            (f"log {vkey('other.example', 1, 0x01)}", "the public key of another log once more"),
        ],
    )
    def test_keys(self, line: str, problem: str) -> None:
        found = refusal(f"log {LOG}\nwitness X1 {X1}\n{line}\nquorum X1\n")
        assert found.startswith("line 3 has the ")
        assert problem in found

    def test_errors_do_not_repeat_a_long_key(self) -> None:
        assert len(refusal(f"witness a {vkey('a', 1, 0x06, 1400)}\nquorum a\n")) < 250

    @pytest.mark.parametrize(
        ("what", "line"),
        [
            ("logs", lambda n: f"log {vkey('l', n, 0x01)}\n"),
            ("witnesses", lambda n: f"witness w{n} {vkey('w', n)}\n"),
            ("groups", lambda n: f"group g{n} any {'X1' if n == 0 else f'g{n - 1}'}\n"),
        ],
    )
    def test_counts(self, what: str, line: object) -> None:
        assert callable(line)
        start = "" if what == "witnesses" else f"witness X1 {X1}\n"
        full = start + "".join(line(number) for number in range(MAX_DEFINED))
        Policy.parse(full + "quorum none\n")
        assert f"the {MAX_DEFINED} {what} that" in refusal(full + line(MAX_DEFINED) + "quorum none\n")

    def test_size(self) -> None:
        comment = "#" * (MAX_POLICY_SIZE - 13) + "\nquorum none\n"
        Policy.parse(comment)
        assert str(MAX_POLICY_SIZE) in refusal("#" + comment)

    @given(
        st.lists(
            st.sampled_from([*EXAMPLE.splitlines(keepends=True), "quorum none\n", "group", "\xe9 ", "\n"])
        )
    )
    def test_any_order_of_lines_is_parsed_or_refused(self, lines: list[str]) -> None:
        try:
            policy = Policy.parse("".join(lines))
        except MalformedError:
            return
        assert policy.is_satisfied([cosigner.name for cosigner in policy.cosigners])

    @given(st.binary(max_size=200))
    def test_any_octets_are_parsed_or_refused(self, octets: bytes) -> None:
        try:
            Policy.parse(octets + b"\nquorum none\n")
        except MalformedError:
            return


@st.composite
def forests(draw: st.DrawFn) -> tuple[int, dict[str, tuple[str, list[str]]], str]:
    """Return the number of witnesses w0, w1, ..., groups in order as (threshold, members), and the quorum."""
    witnesses = draw(st.integers(1, 8))
    free = [f"w{number}" for number in range(witnesses)]
    groups: dict[str, tuple[str, list[str]]] = {}
    for number in range(draw(st.integers(0, 5))):
        if not free:
            break
        members = draw(st.lists(st.sampled_from(free), unique=True, min_size=1))
        threshold = draw(st.sampled_from(["any", "all", *map(str, range(1, len(members) + 1))]))
        groups[f"g{number}"] = threshold, members
        free = [name for name in free if name not in members] + [f"g{number}"]
    names = [f"w{number}" for number in range(witnesses)] + list(groups)
    return witnesses, groups, draw(st.sampled_from([*names, "none"]))


def counts(name: str, groups: Mapping[str, tuple[str, list[str]]], signed: Iterable[str]) -> bool:
    """The reference: whether ``name`` counts as a cosigner, by the words of the specification."""
    if name not in groups:
        return name in signed
    threshold, members = groups[name]
    number = sum(counts(member, groups, signed) for member in members)
    if threshold == "any":
        return number > 0
    if threshold == "all":
        return number == len(members)
    return number >= int(threshold)


class TestQuorums:
    @given(forests(), st.data())
    def test_as_the_reference(
        self, forest: tuple[int, dict[str, tuple[str, list[str]]], str], data: st.DataObject
    ) -> None:
        witnesses, groups, quorum = forest
        names = [f"w{number}" for number in range(witnesses)]
        lines = [f"witness {name} {vkey(name, number)}\n" for number, name in enumerate(names)]
        lines += [f"group {name} {k} {' '.join(members)}\n" for name, (k, members) in groups.items()]
        policy = Policy.parse("".join([*lines, f"quorum {quorum}\n"]))
        signed = data.draw(st.lists(st.sampled_from(names), unique=True))
        assert policy.is_satisfied(signed) == (quorum == "none" or counts(quorum, groups, signed))
        if policy.is_satisfied(signed):
            assert policy.is_satisfied(names), "more cosignatures never break a quorum"
