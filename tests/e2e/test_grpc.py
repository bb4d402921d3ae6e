"""gRPC of a real front end process: beside HTTP, over TLS, through SIGHUP and to a clean end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from kt_es.formats.entries import decode_profile
from kt_es.formats.notes import encode_base64
from kt_es.formats.proofs import LookupAnswer
from tests.contracts.certificates import Certified, certify
from tests.e2e.processes import SHORT, Running, Stranger, Up, running_up, until
from tests.reference.grpc_doors import Stub, channel_to

pytestmark = pytest.mark.e2e
LABEL = "alice@example.org"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("grpc")
    with running_up(folder / "data", *SHORT) as up:
        owner = up.stranger(folder / "owner")
        key = owner.home / "id"
        key.write_text("a key of alice\n")
        owner.kt("keys", "generate")
        owner.kt("put", LABEL, "--key", key, "--type", "raw")
        yield up


@contextmanager
def front_end(directory: Up, folder: Path, *options: str | Path) -> Iterator[tuple[Running, dict[str, Any]]]:
    """A front end with gRPC, and the members of its line "serving"; SIGTERM ends it without a complaint."""
    words = ("-c", directory.settings, "frontend", "--log", directory.log_uri, "--data", folder / "replica")
    where = ("--listen", "127.0.0.1:0", "--grpc-port", "0", *options)
    process = Running(folder / "frontend.log", *words, *where)
    try:
        yield process, json.loads(process.wait_for_line('"serving"'))
        assert process.stop(signal.SIGTERM) == 0, process.spoken
        assert "Traceback" not in process.spoken
        assert LABEL not in process.spoken
    finally:
        process.stop(signal.SIGKILL)


def port_of(served: dict[str, Any]) -> int:
    return int(served["grpc"].rpartition(":")[2])


def caught_up(stub: Stub, directory: Up) -> None:
    """Wait until the front end has the epoch that the other one has."""
    epoch = httpx.get(f"{directory.url}/v1/heads/latest").json()["epoch"]

    def has() -> bool:
        try:
            return bool(stub.call("LatestHead").epoch >= epoch)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    until(has, "the front end has followed")


def test_both_interfaces_answer_from_one_process(directory: Up, tmp_path: Path) -> None:
    with front_end(directory, tmp_path) as (process, served):
        channel = channel_to(port_of(served))
        stub = Stub(channel)
        caught_up(stub, directory)
        answer = stub.call("Lookup", label=LABEL, epoch=2)
        same = httpx.post(f"{served['url']}/v1/lookup", json={"label": LABEL, "epoch": 2}).json()
        assert same["profile"] == (encode_base64(answer.profile) if answer.HasField("profile") else None)
        latest = stub.call("Lookup", label=LABEL)
        assert decode_profile(latest.profile)[0].data == b"a key of alice\n"
        assert LookupAnswer.decode(latest.answer).mutation is not None
        # A watch ends with the process, and says so with OK.
        watch = stub.call("WatchHeads", timeout=None)
        assert next(watch).head.epoch >= 2
        process.process.send_signal(signal.SIGTERM)
        list(watch)
        assert watch.code() is grpc.StatusCode.OK
        # A second signal would end it at once.
        process.process.wait(40)
        channel.close()


def test_tls_has_the_certificate_of_http_and_is_exchanged_with_it(directory: Up, tmp_path: Path) -> None:
    first, second = (certify(_made(tmp_path / name)) for name in ("first", "second"))
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"

    def install(made: Certified) -> None:
        certificate.write_bytes(made.certificate.read_bytes())
        key.write_bytes(made.key.read_bytes())

    install(first)
    with front_end(directory, tmp_path, "--tls-cert", certificate, "--tls-key", key) as (process, served):
        assert served["url"].startswith("https://")
        with trusting(first, served) as old:
            caught_up(old, directory)
            install(second)
            process.process.send_signal(signal.SIGHUP)
            process.wait_for_line("reloaded")
            # The old connection goes on; new ones get the new certificate.
            assert old.call("LatestHead").epoch
            with trusting(second, served) as new:
                assert new.call("LatestHead").epoch
            with trusting(first, served) as refused, pytest.raises(grpc.RpcError) as caught:
                refused.call("LatestHead", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        # Without TLS nothing is answered.
        plain = channel_to(port_of(served))
        with pytest.raises(grpc.RpcError):
            Stub(plain).call("LatestHead", timeout=10)
        plain.close()


def test_the_port_comes_from_the_settings_and_a_taken_one_is_an_error(directory: Up, tmp_path: Path) -> None:
    text = directory.settings.read_text().replace("keys/", f"{directory.data}/keys/")
    config = tmp_path / "kt.toml"
    someone = Stranger(tmp_path / "someone")
    with front_end(directory, tmp_path) as (_, served):
        config.write_text(text.replace("[frontend]\n", f"[frontend]\ngrpc_port = {port_of(served)}\n"))
        words = ("-c", config, "frontend", "--log", directory.log_uri, "--data", tmp_path / "other")
        ran = someone.kt(*words, "--listen", "127.0.0.1:0", code=2)
        assert f"gRPC cannot listen on 127.0.0.1:{port_of(served)}: Address already in use" in ran.err
    config.write_text(text.replace("[frontend]\n", "[frontend]\ngrpc_port = 70000\n"))
    assert "grpc_port" in someone.kt("-c", config, "frontend", code=2).err


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def trusting(made: Certified, served: dict[str, Any]) -> Iterator[Stub]:
    """A stub on a connection of its own that trusts one authority."""
    credentials = grpc.ssl_channel_credentials(made.authority.read_bytes())
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(f"127.0.0.1:{port_of(served)}", credentials, options=own) as channel:
        yield Stub(channel)
