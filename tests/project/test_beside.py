"""Two environments by turns: each figure's medians and how they compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kt_es.process.files import replace_file
from tools import beside

ROW: dict[str, object] = {"unit": "events/s", "limit": None, "runs": []}


def kt(folder: Path, name: str, values: list[float], code: int = 0) -> str:
    """A ``kt`` whose ``bench`` prints one value after the other."""
    (folder / f"{name}.json").write_text(json.dumps(values))
    program = f"""#!{sys.executable}
import json, pathlib, sys
assert sys.argv[1:] == ["--json", "-q", "bench", "node", "--runs", "1"], sys.argv
kept = pathlib.Path({str(folder / name)!r} + ".json")
value, *rest = json.loads(kept.read_text())
kept.write_text(json.dumps(rest))
with open({str(folder / "turns")!r}, "a") as turns:
    turns.write({name!r} + " ")
print(json.dumps({{"client": {name!r}, "rows": [{{"name": "append", "value": value, **{ROW!r}}}]}}))
sys.exit({code})
"""
    path = folder / f"kt-{name}"
    replace_file(path, program.encode(), 0o755)
    return str(path)


def test_the_environments_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = kt(tmp_path, "old", [100, 300, 200]), kt(tmp_path, "new", [400, 250, 300], code=1)
    beside.main(["node", "3", old, new])
    assert (tmp_path / "turns").read_text() == "old new new old old new "
    assert capsys.readouterr().out.splitlines() == [
        "| figure | unit | old | new | second / first |",
        "|---|---|---:|---:|---:|",
        "| append | events/s | 200.0 | 300.0 | 1.50 |",
    ]


def test_a_bench_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="exit status 7"):
        beside.run(kt(tmp_path, "old", [1], code=7), "node")
