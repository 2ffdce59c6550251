"""Which server extensions of ``~/.local`` are left out, because the server runs without the user site."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import notice


def look(context: Context) -> None:
    """Add the notice ``user-site-hidden`` where an enabled extension is found only in ``~/.local``.

    Jupyter does not read ``~/.local/etc/jupyter`` without the user site, so nothing else would say so.
    Reads the user's storage: not for the start path.
    """
    if "PYTHONNOUSERSITE" not in context.restore_env or not context.home:
        return
    site = os.path.join(context.home, ".local", "lib", f"python{context.base.version}", "site-packages")
    found = sorted(name for name in _enabled(context.home) if _is_only_in(site, name))
    if found:
        context.notices.append(
            notice(
                "user-site-hidden",
                f"Server extensions in ~/.local are not loaded: {', '.join(found)}.",
                "The server runs on the image's packages only, so that nothing in ~/.local can stop it. Ask "
                "your administrator to add them to the image, or to set overlay_user_site to 'server'.",
            )
        )


def _enabled(home: str) -> set[str]:
    """Names of the extensions that configuration files of the user's switch on."""
    names: set[str] = set()
    for parts in ((".local", "etc", "jupyter"), (".jupyter",)):
        root = os.path.join(home, *parts)
        for directory in (root, os.path.join(root, "jupyter_server_config.d")):
            try:
                files = sorted(os.listdir(directory))
            except OSError:
                continue
            for file in files:
                if file.endswith(".json") and (directory != root or file == "jupyter_server_config.json"):
                    names |= _switched_on(os.path.join(directory, file))
    return names


def _switched_on(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8") as f:
            extensions = json.load(f)["ServerApp"]["jpserver_extensions"]
        return {str(name) for name, on in extensions.items() if on}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()  # not ours to complain about


def _is_only_in(site: str, name: str) -> bool:
    top = name.split(".")[0]
    path = os.path.join(site, top)
    if not (os.path.isdir(path) or os.path.isfile(path + ".py")):
        return False
    try:
        return find_spec(top) is None
    except (ImportError, ValueError):
        return True
