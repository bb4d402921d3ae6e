"""Answers as bytes of HTTP/1.1."""

from __future__ import annotations

import functools
import time
from email.utils import formatdate
from http import HTTPStatus

from kt_es.api.operations import PROBLEM_MEDIA
from kt_es.server.problems import Problem

Headers = list[tuple[bytes, bytes]]


def encode_head(status: int, headers: Headers, *, keep_alive: bool) -> bytes:
    """Status line and headers with the empty line behind them."""
    lines = [_status_line(status), _date(int(time.time()))]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in headers if name.lower() != b"connection"]
    lines.append(b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(lines)


def problem_headers(problem: Problem, body: bytes) -> Headers:
    headers = {"content-length": str(len(body)), "content-type": PROBLEM_MEDIA, **problem.headers}
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def problem_answer(problem: Problem) -> bytes:
    """A whole answer, the last one of its connection."""
    body = problem.encode()
    return encode_head(problem.status, problem_headers(problem, body), keep_alive=False) + body


def closing(headers: Headers) -> bool:
    """Whether the answer's headers say that the connection ends with it."""
    return any(name == b"connection" and value == b"close" for name, value in headers)


def retry_after(headers: Headers) -> float:
    """Seconds that the answer tells its client to wait."""
    return next((float(value) for name, value in headers if name == b"retry-after"), 1.0)


@functools.lru_cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@functools.lru_cache(2)
def _date(now: int) -> bytes:
    return f"date: {formatdate(now, usegmt=True)}\r\n".encode()
