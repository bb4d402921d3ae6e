"""The alarms and the dashboard of deploy/ ask for figures that real processes show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import NewDirectory, write_directory
from tests.contracts.certificates import certify, trusting
from tests.e2e.processes import ORIGIN, SHORT, Running, Stranger, running_up, until
from tests.e2e.test_witnesses import OwnWitness

pytestmark = pytest.mark.e2e

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\b(?:kt|process)_[a-z_]+\b")
# Of every target, from Prometheus itself; job names look like figures.
OTHERS = {"up"}


def expressions() -> list[str]:
    """All that is asked of Prometheus."""
    rules = (DEPLOY / "prometheus" / "kt-es.rules.yml").read_text()
    asked = [line.partition("expr:")[2] for line in rules.splitlines() if line.strip().startswith("expr:")]
    dashboard = json.loads((DEPLOY / "grafana" / "kt-es.json").read_text())
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return asked


def names(page: str) -> set[str]:
    """Of the samples of a page; of a figure without samples, those that it would have."""
    found = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if line and not line.startswith("#")}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {name + suffix for suffix in suffixes}
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The pages of all processes of a directory that serves HTTPS, after a submission."""
    folder = tmp_path_factory.mktemp("deployed")
    made = write_directory(
        folder / "data", NewDirectory("people", ORIGIN, "esdb://localhost", "email", 0.2, 5.0)
    )
    certified = certify(folder)
    text = (made.base / "kt.toml").read_text()
    where = {}
    text += "\n[cosign]\npolicy = 'policy'\n"
    for process in ("signer", "monitor", "cosign"):
        free = free_address()
        where[process] = f"http://{free}/metrics"
        text = text.replace(f"[{process}]\n", f'[{process}]\nmetrics = "{free}"\n')
    tls = f'tls_cert = "{certified.certificate}"\ntls_key = "{certified.key}"\n'
    (made.base / "kt.toml").write_text(text.replace("[frontend]\n", f"[frontend]\n{tls}"))
    with ExitStack() as stack:
        witness = OwnWitness(folder / "witness", "--log", made.key)
        stack.callback(witness.stop)
        (vkey,), url = witness.serving["vkeys"], witness.serving["url"]
        (made.base / "policy").write_text(f"witness own {vkey} {url}\nquorum own\n")
        up = stack.enter_context(running_up(folder / "data", *SHORT))
        assert up.url.startswith("https://")
        where["frontend"] = f"{up.url}/metrics"
        node = Running(
            folder / "node.log", "node", "--data", folder / "node", "--listen", "127.0.0.1:0",
            "--http", "127.0.0.1:0",
        )  # fmt: skip
        stack.callback(node.stop)
        address = json.loads(node.wait_for_line('"serving metrics"'))["address"]
        where["node"] = f"http://{address}/metrics"
        someone = Stranger(folder / "someone")
        (folder / "id.raw").write_bytes(b"some key")
        reach = ("--server", up.url, "--vkey", up.vkey, "--ca", certified.authority)
        someone.kt("keys", "generate")
        someone.kt("put", *reach, "someone@example.org", "--key", folder / "id.raw", "--type", "raw")
        context = trusting(certified.authority)
        with httpx.Client(verify=context) as client:

            def read() -> dict[str, str]:
                return {name: client.get(url).text for name, url in where.items()}

            until(lambda: "kt_monitor_verdicts_total{" in read()["monitor"], "the monitor has verified")
            until(lambda: 'result="cosigned"' in read()["cosign"], "the witness has cosigned")
            yield read()


def test_every_metric_of_the_dashboard_and_the_alerts_exists(pages: dict[str, str]) -> None:
    assert pages.keys() == {"signer", "monitor", "cosign", "frontend", "node"}
    shown = set().union(*(names(page) for page in pages.values()))
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 30
    assert asked <= shown | OTHERS


def test_labels_that_are_asked_for_are_there(pages: dict[str, str]) -> None:
    shown = "".join(pages.values())
    for expression in expressions():
        for label, value in re.findall(r'[{,]\s*([a-z]+)="([^"]*)"', expression):
            assert f'{label}="{value}"' in shown, expression
    for label in ("verdict", "route", "phase", "result", "le"):
        assert f'{label}="' in shown


def test_nothing_private_is_in_them(pages: dict[str, str]) -> None:
    assert "someone" not in "".join(pages.values())
