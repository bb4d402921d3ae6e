"""docs/API.md: every public name of ``kt_es.client``, with its signature and its errors."""

from __future__ import annotations

import inspect
import re

import pytest

import kt_es.client
from kt_es.client import AsyncClient, Client
from tools import api_page

PAGE = api_page.PAGE.read_text()


def test_the_page_is_that_of_the_code() -> None:
    assert api_page.page() == PAGE, "write docs/API.md again: .venv/bin/python -m tools.api_page"


def test_the_page_has_every_public_name() -> None:
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == kt_es.client.__all__


@pytest.mark.parametrize("name", [name for name in vars(Client) if not name.startswith("_")])
def test_every_call_of_a_client_is_described(name: str) -> None:
    described = PAGE.partition(f"### Client.{name}\n")[2].partition("\n##")[0]
    assert re.search(r"```\n\n[A-Z].*\.", described), "the docstring is missing"
    member = inspect.getattr_static(Client, name)
    if inspect.isfunction(member):
        for parameter in list(inspect.signature(member).parameters)[1:]:
            assert f"{parameter}: " in described


def test_the_asynchronous_client_has_every_call_of_the_other() -> None:
    assert {name for name in vars(Client) if not name.startswith("_")} <= vars(AsyncClient).keys()
