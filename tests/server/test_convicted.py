"""A front end that knows evidence against its directory: it keeps the first, and answers nothing for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.errors import ConfigError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.server.cosigning import Cosigners
from tests.reference.cosigning import CosigningParty, signed
from tests.reference.forks import story
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

MONITOR = CosigningParty("monitor")
KNOWN = Cosigners((), (MONITOR.key,))
STREAMS = story("alice", "bob", "carol")
OF_HEADS = signed("heads", 3, bytes(32))
OF_MUTATIONS = signed("mutations", STREAMS.ledger.committed.log.size, bytes(32))


def made(data: Path, streams: SignedStreams = STREAMS) -> Front:
    return Front(streams, cosigners=KNOWN, data=data)


def files(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "evidence").iterdir())


def offer(running: Front, note: str, at: int) -> int:
    body = {"note": note + MONITOR.line(note, at) if at else note}
    return running.post("/v1/cosignatures", body).status_code


@pytest.mark.parametrize(
    ("note", "name"),
    [(OF_HEADS, "checkpoints-size-3.evidence"), (OF_MUTATIONS, "head-checkpoint-epoch-3.evidence")],
)
@pytest.mark.parametrize("cosigned", [False, True])
def test_the_first_proof_is_kept_and_no_other(
    tmp_path: Path, note: str, name: str, *, cosigned: bool
) -> None:
    with capture_logs() as said, front(STREAMS, made=made(tmp_path)) as running:
        assert offer(running, note, cosigned) == 403
        for at, other in enumerate([note, OF_HEADS, OF_MUTATIONS, signed("heads", 2, bytes(32))], 2):
            assert offer(running, other, at) == 503
    assert files(tmp_path) == [name]
    # Cosignatures are no part of it, so that everybody keeps the same file for the same fork.
    data = (tmp_path / "evidence" / name).read_bytes()
    assert MONITOR.name.encode() not in data
    assert convict(Evidence.decode(data))
    assert [line["evidence"] for line in said if line["event"] == "stopped serving"] == [
        str(tmp_path / "evidence" / name)
    ]


def test_many_cosignatures_do_not_spoil_the_evidence(tmp_path: Path) -> None:
    lines = "".join(CosigningParty(f"w{number}").line(OF_HEADS, 1) for number in range(60))
    with front(STREAMS, made=made(tmp_path)) as running:
        assert running.post("/v1/cosignatures", {"note": OF_HEADS + lines}).status_code == 403
    assert files(tmp_path) == ["checkpoints-size-3.evidence"]


def test_it_stays_convicted_until_somebody_moves_the_evidence(tmp_path: Path) -> None:
    with front(STREAMS, made=made(tmp_path)) as running:
        offer(running, OF_HEADS, 0)
    with capture_logs() as said, front(STREAMS, made=made(tmp_path)) as running:
        ready = running.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["equivocation"])
        (problem,) = ready.json()["problems"]
        assert "two different logs of 3 leaves" in problem
        assert "checkpoints-size-3.evidence in the folder evidence of frontend.data" in problem
        assert "move it away" in problem
        assert str(tmp_path) not in problem
        for path in ("/v1/directory", "/v1/heads/latest", "/heads/checkpoint", "/v1/cosigned"):
            answer = running.get(path)
            assert answer.status_code == 503
            assert "its directory is convicted" in answer.json()["detail"]
    assert [line["event"] for line in said if line["log_level"] == "error"] == ["stopped serving"]
    assert files(tmp_path) == ["checkpoints-size-3.evidence"]
    shutil.move(tmp_path / "evidence", tmp_path / "settled")
    with front(STREAMS, made=made(tmp_path)) as running:
        assert running.get("/readyz").status_code == 200


def test_a_damaged_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "heads-epoch-1.evidence").write_bytes(b"half")
    with pytest.raises(ConfigError, match="is damaged"), front(STREAMS, made=made(tmp_path)):
        pass


def test_what_another_worker_has_found_convicts_this_one(tmp_path: Path) -> None:
    with front(STREAMS, made=made(tmp_path)) as running, front(STREAMS, made=made(tmp_path)) as other:
        assert other.get("/v1/directory").status_code == 200
        offer(running, OF_MUTATIONS, 0)
        until(lambda: other.get("/v1/directory").status_code == 503)
        assert other.get("/readyz").json()["reasons"] == ["equivocation"]
    assert files(tmp_path) == ["head-checkpoint-epoch-3.evidence"]
