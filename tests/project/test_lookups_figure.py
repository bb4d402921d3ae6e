"""The picture of what a lookup costs: reading reports, and drawing them where matplotlib is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import lookups_figure
from tools.lookups_figure import KINDS, PANELS, draw, read_reports


def document(entries: int, bench: str = "shared") -> str:
    rows = [f"{kind}: {row}" for kind in KINDS for panel in PANELS for row in panel.rows]
    values = {"entries": entries, **{name: float(number + 1) for number, name in enumerate(rows)}}
    return json.dumps({"bench": bench, "rows": [{"name": n, "value": v} for n, v in values.items()]})


def test_reports_are_sorted_by_their_entries() -> None:
    assert [report["entries"] for report in read_reports(map(document, (300, 100, 200)))] == [100, 200, 300]


@pytest.mark.parametrize("wrong", [document(1, "map"), "[]", "{"])
def test_other_documents_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json raises its own
        read_reports([wrong])


def test_a_missing_report_ends_the_program_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"missing\.json"):
        lookups_figure.main([str(tmp_path / "figure.svg"), str(tmp_path / "missing.json")])


def test_the_same_reports_give_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, the optional group plot, is not installed")
    reports = read_reports(map(document, (100, 1_000)))
    draw(reports, tmp_path / "one.svg")
    draw(reports, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
