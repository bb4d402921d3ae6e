"""``kt verify``: a saved proof or evidence, verified without a network."""

from __future__ import annotations

from pathlib import Path

import click

from kt_es.cli.options import state_option
from kt_es.cli.output import Output, output_of
from kt_es.cli.people.get import show_lookup
from kt_es.client.offline import Conviction, verify_evidence, verify_proof
from kt_es.client.state import FileStateStore
from kt_es.client.states import States
from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError, EquivocationError, MalformedError, VerificationError
from kt_es.formats.evidence import MAX_EVIDENCE_FILE, evidence_in
from kt_es.formats.proofs import PROOF_FILE, ProofFile


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--vkey", help="The directory's key; default the trusted key, or else that of FILE.")
@state_option
@click.pass_context
def verify_command(context: click.Context, file: Path, vkey: str | None, state: Path) -> int:
    """Verify a saved proof, or evidence of a contradiction, without a network."""
    output = output_of(context)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_EVIDENCE_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    given = None if vkey is None else Pinned.parse(vkey)
    states = States(state)
    try:
        evidence = evidence_in(data)
    except MalformedError as error:
        raise VerificationError("evidence", error.problem) from None
    if evidence is not None:
        return _show_evidence(output, *_convicted(evidence, given, states))
    if PROOF_FILE.encode() not in data[: len(PROOF_FILE) + 8]:
        raise ConfigError(f"{file} is neither a saved proof nor evidence")
    try:
        proof = ProofFile.decode(data)
    except MalformedError as error:
        raise VerificationError("proof file", str(error)) from None
    store = states.existing(proof.origin)
    pinned = given or _trusted(store)
    vouched = pinned is not None
    if pinned is None:
        pinned = Pinned(proof.origin, proof.configs[0].config.signer_key)
        output.note(f"  no --vkey given: taking the file's word for {pinned.vkey}")
    elif given is None:
        output.note(f"  no --vkey given: verifying under the trusted key {pinned.vkey}")
    return show_lookup(output, verify_proof(proof, pinned, store, vouched=vouched))


def _trusted(store: FileStateStore | None) -> Pinned | None:
    trusted = None if store is None else store.load()
    return None if trusted is None else trusted.pinned


def _convicted(data: bytes, given: Pinned | None, states: States) -> tuple[Conviction, bool]:
    """Return what the evidence proves, and whether the directory's key was given or is trusted."""
    convicted = verify_evidence(data, given)
    if given is not None:
        return convicted, True
    trusted = _trusted(states.existing(convicted.evidence.origin))
    return verify_evidence(data, trusted), trusted is not None


def _show_evidence(output: Output, convicted: Conviction, vouched: bool) -> int:
    evidence, key = convicted.evidence, convicted.first.vkey
    output.fail(f"{evidence.origin}: {convicted.sentence}")
    output.note(f"  signed by the directory whose first key is {key}")
    if not vouched:
        output.note(
            "  no --vkey given: compare that key with the one that the directory's operator published"
        )
    document = {
        "evidence": evidence.kind.value,
        "origin": evidence.origin,
        "key": key,
        "vouched": vouched,
        "contradiction": convicted.sentence,
    }
    output.data(document, [convicted.sentence])
    return EquivocationError.exit_code
