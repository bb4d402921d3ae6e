"""The picture of what a lookup costs: reading reports, and drawing them where matplotlib is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import lookups_figure
from tools.lookups_figure import KINDS, PANELS, draw, read_reports


def document(entries: int, bench: str = "shared", plus: float = 0.0) -> str:
    rows = [f"{kind}: {row}" for kind in KINDS for panel in PANELS for row in panel.rows]
    values = {"entries": float(entries), **{name: number + plus for number, name in enumerate(rows, 1)}}
    return json.dumps({"bench": bench, "rows": [{"name": n, "runs": [v]} for n, v in values.items()]})


def test_reports_are_sorted_by_their_entries() -> None:
    assert [report["entries"] for report in read_reports(map(document, (300, 100, 200)))] == [100, 200, 300]


def test_reports_of_the_same_size_are_one_with_the_medians_of_all_runs() -> None:
    documents = [document(100, plus=plus) for plus in (0.0, 10.0, 2.0)]
    (merged,) = read_reports(documents)
    (middle,) = read_reports([documents[2]])
    assert merged == middle


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
