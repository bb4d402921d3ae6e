"""What is said of a ``kt.toml`` that cannot be used: the file, the field, the problem and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.config import FILE_NAME, load_settings
from kt_es.errors import ConfigError

ORIGIN = "kt.example.org/people"
VKEY = "kt.example.org/people/heads+0d67076e+AQ9MgHao9sWUV/+bMuLXVSe94rylmUX8Vp/WfXv2iyFY"
GOOD = f'directory = "people"\norigin = "{ORIGIN}"\nkey = "{VKEY}"\n'


def problem_of(folder: Path, text: str) -> str:
    path = folder / FILE_NAME
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(path)
    assert str(refused.value).startswith(f"{path}")
    return str(refused.value).removeprefix(f"{path}")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(GOOD)
    assert load_settings(tmp_path / FILE_NAME).origin == ORIGIN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            GOOD.replace(f'"{ORIGIN}"', '"other.example/people"'),
            ": key: the key is of kt.example.org/people",
        ),
        (GOOD.replace("+0d67076e", ""), ": key: "),
        (GOOD.replace('"people"', '"Pe ople"'), ": directory: "),
        (f"{GOOD}[frontend]\nexempt = 'here'\n", ": frontend.exempt: "),
        (f"{GOOD}[node]\nmax_append = 1\n", ": node: "),
        (f"{GOOD}[signer]\nno_such_field = 1\n", ": signer.no_such_field: "),
        (f"{GOOD}log = ", ": not valid TOML: "),
    ],
)
def test_a_wrong_field_is_named_with_its_problem(tmp_path: Path, text: str, problem: str) -> None:
    said = problem_of(tmp_path, text)
    assert said.startswith(problem)
    assert "Value error" not in said
    assert said.endswith(("; change it in that file", "; mend it there"))
