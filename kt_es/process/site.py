"""A few pages of a process, beside its metrics: who asks for what is not known, and everything is public."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kt_es.errors import KtError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Nothing on a page may be loaded, framed, sent or guessed at. A page that has a style allows that one.
STRICT: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. ``headers`` are added to ``STRICT``, and replace those of the same name."""

    body: bytes
    media_type: str = TEXT
    status: str = "200 OK"
    headers: Mapping[str, str] = field(default_factory=dict)


NOT_FOUND = Page(b"there is no such page\n", status="404 Not Found")
NOT_ALLOWED = Page(
    b"only GET and HEAD are allowed\n", status="405 Method Not Allowed", headers={"Allow": "GET, HEAD"}
)

Route = Callable[[str], Page | None]
"""Answers a request for its path; the argument is the rest of the path, and None is 404."""


def site(routes: Mapping[str, Route], apps: Mapping[str, WSGIApplication]) -> WSGIApplication:
    """Return an application that answers GET and HEAD.

    Args:
        routes: Functions by path. A path that ends in a slash is also asked for every path below it, unless
            it is ``/``. A route that raises ``KtError`` or ``OSError`` answers 503 without the message.
        apps: Whole applications by path, such as that of the metrics.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = str(environ.get("PATH_INFO", "")) or "/", environ["REQUEST_METHOD"]
        if path in apps:
            return apps[path](environ, start_response)
        page = _page(routes, path) if method in {"GET", "HEAD"} else NOT_ALLOWED
        headers = {
            **STRICT,
            "Content-Type": page.media_type,
            "Content-Length": str(len(page.body)),
            **page.headers,
        }
        start_response(page.status, list(headers.items()))
        return [b"" if method == "HEAD" else page.body]

    return answer


def _page(routes: Mapping[str, Route], path: str) -> Page:
    route, rest = routes.get(path), ""
    if route is None:
        folder, _, rest = path.rpartition("/")
        route = routes.get(f"{folder}/") if folder else None
    try:
        page = None if route is None else route(rest)
    except (KtError, OSError):
        return Page(b"the answer is not known now; ask again later\n", status="503 Service Unavailable")
    return NOT_FOUND if page is None else page
