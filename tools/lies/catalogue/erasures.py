"""Profiles that the operator withholds and claims to be erased."""

from __future__ import annotations

from dataclasses import replace

from kt_es.formats.proofs import LookupAnswer, ProofFile
from kt_es.formats.queue import Record, Verdict
from tools.lies import answers, people
from tools.lies.commands import Ran
from tools.lies.people import label
from tools.lies.registry import BY_FRONT_END, BY_SIGNER, Lie, lie, scene
from tools.lies.stage import Stage

ALICE = label("alice")


def _erased(name: str, teller: str = BY_FRONT_END, message: str = "opening: ") -> Lie:
    return lie(name, teller, "kt get", 4, message, case=name)


@scene(
    _erased("profile-withheld"),
    _erased("erasure-record-forged"),
    _erased("erasure-of-another-entry"),
    _erased("erasure-without-a-signature", BY_SIGNER),
    _erased("erasure-that-had-no-effect"),
    _erased("erasure-that-is-not-in-the-log"),
    _erased("erasure-under-another-head"),
    also="tests/client/test_openings.py",
)
def erasure(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    alice, bob = universe.put("alice"), universe.put("bob")
    universe.epoch()
    universe.erase(bob, people.key("bob"))
    universe.epoch()
    own = len(universe.records)
    if case == "erasure-without-a-signature":
        universe.erase(alice, people.key("alice"), origin="other.example.org/people")
    elif case == "erasure-that-had-no-effect":
        universe.erase(alice, people.STRANGER, Verdict.FOREIGN_ERASURE)
    else:
        universe.erase(alice, people.key("alice"))
    universe.epoch()
    front_end = stage.front_end(universe)

    def change(true: LookupAnswer) -> LookupAnswer:
        proof = answers.erasure_proof(universe, own)
        match case:
            case "profile-withheld":
                return replace(true, opening=None, erasure=None)
            case "erasure-record-forged":
                record = replace(Record.decode(proof.record_bytes), sequence=own + 1)
                return replace(true, erasure=replace(proof, record_bytes=record.encode()))
            case "erasure-of-another-entry":
                other = answers.erasure_proof(universe, universe.erased[bob.entry_hash])
                return replace(true, opening=None, erasure=other)
            case "erasure-that-had-no-effect":
                return replace(true, opening=None, erasure=proof)
            case "erasure-that-is-not-in-the-log":
                return replace(true, erasure=replace(proof, inclusion=proof.inclusion[:-1]))
            case "erasure-under-another-head":
                first = universe.epochs[0].event.smh_bytes
                return replace(true, erasure=replace(proof, smh_bytes=first))
        return true

    front_end.rewrite_lookup(change)
    if case is not None:
        # The front end removes the profile from every answer.
        change_lookup = front_end.rewrite["/v1/lookup"]
        front_end.rewrite["/v1/lookup"] = lambda asked, true: {**change_lookup(asked, true), "profile": None}
    return stage.user(front_end).kt("get", ALICE)


@scene(
    lie("proof-file-without-its-profile", "anybody", "kt verify", 4, "profile", case="profile"),
    lie("proof-file-of-a-withheld-profile", "anybody", "kt verify", 4, "opening: ", case="opening"),
    lie("proof-file-for-another-label", "anybody", "kt verify", 4, "vrf: ", case="label"),
    lie("proof-file-of-another-directory", "anybody", "kt verify", 4, "config: ", case="key"),
    also="tests/client/test_openings.py",
)
def proof_files(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe(signer=people.STRANGER if case == "key" else people.SIGNER)
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end, "somebody", None)
    user.ok("get", ALICE, "--out", "proof")
    path = user.home / "proof"
    proof = ProofFile.decode(path.read_bytes())
    match case:
        case "profile":
            proof = replace(proof, profile=None)
        case "opening":
            proof = replace(proof, profile=None, answer=replace(proof.answer, opening=None))
        case "label":
            proof = replace(proof, label=label("bob"))
    path.write_bytes(proof.encode())
    # The reader who verifies the file knows the key of the directory.
    return stage.user(front_end, "reader").kt("verify", path)
