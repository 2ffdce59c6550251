"""A package overlay for every JupyterHub user, on top of unmodified container images.

Importing this package costs nothing: public names are resolved on first use, because the same package
is imported by the Hub (which has JupyterHub but no Jupyter Server) and, from ``overlay.pyz``, by the
single-user server (which has Jupyter Server but, often, no JupyterHub).
"""

from __future__ import annotations

__version__ = "0.1.0"

_LAZY = {
    "OverlayCommandMixin": "overlayspawner.hub.command",
    "OverlaySpawnerMixin": "overlayspawner.hub.mixin",
    "OverlayDockerSpawner": "overlayspawner.hub.docker",
    "OverlayKubeSpawner": "overlayspawner.hub.kube",
    "OverlayLocalSpawner": "overlayspawner.hub.local",
    "OverlaySwarmSpawner": "overlayspawner.hub.swarm",
    "OverlaySystemUserSpawner": "overlayspawner.hub.system_user",
}

__all__ = [
    "OverlayCommandMixin",
    "OverlayDockerSpawner",
    "OverlayKubeSpawner",
    "OverlayLocalSpawner",
    "OverlaySpawnerMixin",
    "OverlaySwarmSpawner",
    "OverlaySystemUserSpawner",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _jupyter_server_extension_points() -> list[dict[str, object]]:
    """Tell Jupyter Server which module holds the server extension."""
    return [{"module": "overlayspawner"}]


def _load_jupyter_server_extension(serverapp: object) -> None:
    """Load the server extension (Jupyter Server calls this at start)."""
    from overlayspawner.payload.server.app import load

    load(serverapp)
