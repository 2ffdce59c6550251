"""Finding packages, for the server extension and the command line. Only reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from overlayspawner.payload import catalogue, modules, search
from overlayspawner.payload.catalogue import Catalogue
from overlayspawner.payload.context import Context
from overlayspawner.payload.updates import Updates


class Finder:
    """What is found, as one server sees it; it remembers what the index said.

    Parameters
    ----------
    context:
        Returns the server's view of its overlay.
    """

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._catalogue = Catalogue(context)
        self._updates = Updates(self._catalogue)

    def search(self, text: str) -> dict[str, Any]:
        """Return the packages that are found by what somebody types.

        Raises
        ------
        OverlayError
            See :func:`overlayspawner.payload.search.search`.
        """
        return search.search(self._context(), self._catalogue, text)

    def project(self, name: str) -> dict[str, Any]:
        """Return what the index has of a package.

        Raises
        ------
        OverlayError
            See :func:`overlayspawner.payload.catalogue.details`.
        """
        return catalogue.details(self._context(), self._catalogue, name)

    def updates(self) -> dict[str, Any]:
        """Return what could be upgraded.

        Raises
        ------
        OverlayError
            See :meth:`overlayspawner.payload.updates.Updates.find`.
        """
        return self._updates.find(self._context())

    def modules(self, name: str) -> dict[str, Any]:
        """Return the packages that are known to have a module.

        Raises
        ------
        OverlayError
            See :func:`overlayspawner.payload.modules.packages`.
        """
        return modules.packages(self._context(), name)
