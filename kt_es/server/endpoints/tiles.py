"""Endpoints of both logs as tiles, for monitors and other readers that know C2SP tlog-tiles."""

from __future__ import annotations

from kt_es.api import operations
from kt_es.api.tiles import BUNDLES, TILE_MEDIA, TileParameters
from kt_es.formats.heads import LogName
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.common import Endpoints, Frontend
from kt_es.server.responses import Answer
from kt_es.server.submission import run_in


class TileEndpoints:
    """Answer with files that never change, so caches may keep them."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    def by_operation(self) -> Endpoints:
        return [(operations.HEADS_TILE, self._heads), (operations.MUTATIONS_TILE, self._mutations)]

    async def _heads(self, asked: TileParameters, _: Scope) -> Answer:
        return await self._tile("heads", asked)

    async def _mutations(self, asked: TileParameters, _: Scope) -> Answer:
        return await self._tile("mutations", asked)

    async def _tile(self, log: LogName, asked: TileParameters) -> Answer:
        tiles = self._frontend.tiles
        pool = self._frontend.large if asked.tile.startswith(BUNDLES) else self._frontend.reads
        body = await run_in(pool, lambda: tiles.read(log, asked.tile))
        return Answer(body, TILE_MEDIA, lasts=True)
