"""No option of a bench is ignored: what another one has is refused."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli

BENCHES = ("map", "signer", "node", "recovery", "frontend", "batch", "monitor", "shared", "all")


@pytest.mark.parametrize(
    ("option", "value", "used_by"),
    [
        ("--entries", "9", "recovery, batch, monitor, shared"),
        ("--runs", "1", "node"),
        ("--workers", "1", "frontend"),
        ("--beside", "kt", "frontend"),
        ("--shared", "cassandra://127.0.0.1/kt_bench", "signer, shared"),
        ("--sizes", "200", "all"),
        ("--turns", "1", "all"),
        ("--plot", "picture.png", "all"),
        ("--akd", "program", "all"),
    ],
)
def test_an_option_that_a_bench_does_not_use_is_refused(option: str, value: str, used_by: str) -> None:
    for bench in set(BENCHES).difference(used_by.split(", ")):
        result = CliRunner().invoke(cli, ["bench", bench, option, value])
        assert result.exit_code == 2
        assert f"kt bench {bench} has no {option}: it is for {used_by}" in result.stderr
