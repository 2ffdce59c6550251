"""The part of the REST interface that finds packages: ``search``, ``projects``, ``updates``, ``modules``."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from tornado import web

from overlayspawner.payload.server.base import OverlayHandler


class SearchHandler(OverlayHandler):
    """``search?q=``: packages by what somebody types."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what is found, the best first."""
        self.only_arguments("q")
        text = self.get_query_argument("q", "", strip=False)
        self.reply(await self.service.ask_index(lambda: self.service.finder.search(text)))


class ProjectHandler(OverlayHandler):
    """``projects/NAME``: what the index has of one package."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Describe it, with its versions."""
        self.only_arguments()
        self.reply(await self.service.ask_index(lambda: self.service.finder.project(name)))


class UpdatesHandler(OverlayHandler):
    """``updates``: newer versions of what the user asked for."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List them."""
        self.only_arguments()
        self.reply(await self.service.ask_index(self.service.finder.updates))


class ModulesHandler(OverlayHandler):
    """``modules/NAME``: what has the module that an import did not find."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """List the packages that are known to have it."""
        self.only_arguments()
        self.reply(await self.off_loop(lambda: self.service.modules(name)))


ROUTES: list[tuple[str, type[OverlayHandler]]] = [
    ("search", SearchHandler),
    ("projects/(?P<name>[^/]*)", ProjectHandler),
    ("updates", UpdatesHandler),
    ("modules/(?P<name>[^/]*)", ModulesHandler),
]
