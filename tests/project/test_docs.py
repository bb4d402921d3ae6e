"""What the documents name exists: commands, options, variables, files; and nothing of any one machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.config.settings import Settings
from tests.reference.command_line import check_words, variables

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/API.md",
    "docs/ARCHITECTURE.md",
    "docs/DECISIONS.md",
    "docs/DESIGN.md",
    "docs/FORMATS.md",
    "docs/GRPC.md",
    "docs/HTTP.md",
    "docs/LIBRARY.md",
    "docs/OPERATIONS.md",
    "docs/RELEASE.md",
    "docs/THREATS.md",
    "examples/README.md",
    "examples/go/README.md",
    "tests/README.md",
)
FOLDERS = (".", "docs", "examples", "examples/go", "tests")
# Variables that are no option's: of the image, of the demonstration, of the tests, and a secret.
OTHER_VARIABLES = {
    "KT_CASSANDRA_JARS",
    "KT_DEBUG",
    "KT_DEMO_ARGS",
    "KT_JSON",
    "KT_REGISTRATION",
    "KT_TEST_ESDB",
}

_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_FILE = re.compile(r"`((?:kt_es|projections|signer|tools|tests|docs|examples)(?:/[A-Za-z0-9_.\-*{},]+)+/?)`")
_CITED = re.compile(r"docs/DESIGN\.md,\s+sections?\s+(\d+)(?:\s+and\s+(\d+))?")
_TEST = re.compile(r"`(tests/[^`\s:]*\.py)(?:::([^`\s]*))?`")


@pytest.fixture(params=DOCUMENTS)
def text(request: pytest.FixtureRequest) -> str:
    return (ROOT / str(request.param)).read_text()


def alternatives(pattern: str) -> list[str]:
    """``a/{b,c}.py`` as its two names; stars stay."""
    before, brace, rest = pattern.partition("{")
    inner, _, after = rest.partition("}")
    return [before + name + after for name in inner.split(",")] if brace else [pattern]


def commands(text: str) -> Iterator[list[str]]:
    """What follows ``kt`` in code spans that begin with it, and in lines of blocks that are input."""
    blocks = "".join(_FENCE.findall(text))
    lines = [line.strip() for line in blocks.splitlines()]
    typed = [line.removeprefix("$ ") for line in lines if line.startswith(("$ kt ", "kt "))]
    for code in [*typed, *(span for span in _SPAN.findall(_FENCE.sub("", text)) if span.startswith("kt "))]:
        yield shlex.split(code.partition("   ")[0], comments=True)[1:]


def test_commands_and_options_exist(text: str) -> None:
    for words in commands(text):
        check_words(words)


def test_the_readme_and_the_operations_name_commands() -> None:
    for document in ("README.md", "docs/OPERATIONS.md"):
        assert len(list(commands((ROOT / document).read_text()))) > 10


def test_variables_exist(text: str) -> None:
    named = set(re.findall(r"\bKT_[A-Z][A-Z_]*[A-Z]\b", text))
    assert named <= variables() | OTHER_VARIABLES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_exist(document: str) -> None:
    path = ROOT / document
    text = path.read_text()
    for target in _LINK.findall(text):
        if "://" not in target:
            assert (path.parent / target).exists(), target
    for pattern in _FILE.findall(text):
        for name in alternatives(pattern):
            assert any(ROOT.glob(name)), name


def test_named_tests_exist(text: str) -> None:
    for file, name in _TEST.findall(text):
        for path in ROOT.glob(file) if name else ():
            assert f"def {name}(" in path.read_text(), f"{file}::{name}"


def test_every_document_is_read_and_whatever_it_names_is_checked() -> None:
    """A check that recognizes nothing would hold of any document."""
    found = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.md")}
    assert found == set(DOCUMENTS)
    whole = "\n".join((ROOT / document).read_text() for document in DOCUMENTS)
    files = re.findall(r"`(?:kt_es|projections|signer|tools|tests|docs|examples)/[^`:\s]+`", whole)
    assert len(_FILE.findall(whole)) == len(files) > 400
    tests = re.findall(r"`tests/[^`]*::", whole)
    assert len([name for _, name in _TEST.findall(whole) if name]) == len(tests) > 30
    assert len(_LINK.findall(whole)) == whole.count("](") - whole.count("](#") > 50


def test_cited_sections_of_the_design_exist() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs/DESIGN.md").read_text(), re.MULTILINE))
    cited = {
        (path.relative_to(ROOT).as_posix(), number)
        for top in ("kt_es", "projections", "signer", "tests", "tools")
        for path in (ROOT / top).rglob("*.py")
        for numbers in _CITED.findall(path.read_text())
        for number in numbers
        if number
    }
    assert len(cited) > 5
    assert {number for _, number in cited} <= sections, sorted(cited)


def test_the_table_of_changes_names_files() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## I want to change X")[2]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for change, opened, tests in rows:
        assert 1 <= len(_FILE.findall(opened)) <= 2, change
        assert _FILE.findall(tests), change


def test_the_architecture_walks_through_files() -> None:
    """``test_files_exist`` has every path; here each step of a walk names one file."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    for walk in ("submission", "lookup"):
        steps = text.partition(f"## The walk of a {walk}\n")[2].partition("\n## ")[0]
        rows = [line.split("|")[1:-1] for line in steps.splitlines() if re.match(r"\| \d", line)]
        assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= 10
        assert all(len(_FILE.findall(file)) == 1 for _, _, file, _ in rows), rows


def test_hooks_run_what_make_check_runs() -> None:
    makefile, hooks = ((ROOT / name).read_text() for name in ("Makefile", ".pre-commit-config.yaml"))
    checks = re.findall(
        r"^\t(.*)$", makefile.partition("\ncheck: ")[2].partition("\ntest: ")[0], re.MULTILINE
    )
    entries = re.findall(r"^ +entry: (.*)$", hooks, re.MULTILINE)
    assert [entry.removesuffix(" --force-exclude") for entry in entries] == [
        check.removesuffix(" .") for check in checks
    ]


def test_the_reference_of_the_settings_is_complete() -> None:
    text = (ROOT / "docs/OPERATIONS.md").read_text()
    for name, field in Settings.model_fields.items():
        if field.exclude:
            continue
        inner = getattr(field.annotation, "model_fields", None)
        for setting in [f"{name}.{key}" for key in inner] if inner else [name]:
            assert f"`{setting}`" in text, setting


def test_nothing_is_of_one_machine(text: str) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|tmp|root|home)/", text)
