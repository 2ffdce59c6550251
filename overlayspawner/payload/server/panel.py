"""Brings the panel into JupyterLab: the built front end, out of the payload and into the runtime dir.

The directory of the runtime dir that JupyterLab looks into exists since the start and is on its path. The
files come there while the server is loading: the start does not wait for them, the first page finds them.
"""

from __future__ import annotations

import os
import zipfile
from typing import Any

from overlayspawner.payload import files
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import LABEXTENSION

NAME = "overlayspawner"
"""Name of the extension, and of its directory."""

_JUPYTERLAB = "4"
"""Major version of JupyterLab that the front end is built for; Notebook 7 is made of it."""


def deliver(serverapp: Any, context: Context) -> bool:
    """Put the panel where JupyterLab finds it; return whether it is there.

    Parameters
    ----------
    serverapp:
        The server, whose JupyterLab is loaded already.
    context:
        What the start found.

    Nothing is done where the image's JupyterLab could not load it, or where the payload was built without it.

    Raises
    ------
    OSError, zipfile.BadZipFile
        The payload can't be read, or there is no space.
    """
    if not context.runtime or jupyterlab_major() != _JUPYTERLAB:
        return False
    parent = os.path.join(context.runtime, "share", "jupyter", "labextensions")
    found = _read(context.payload)
    # a page that is loaded in between finds all of it or nothing
    fresh = os.path.join(parent, f".{NAME}")
    for name, data in found.items():
        folder = fresh
        *inner, last = name.split("/")
        for part in ("", *inner):
            folder = os.path.join(folder, part)
            files.mkdir(folder, 0o700)
        files.write_atomic(os.path.join(folder, last), data, sync=False)
    if found:
        files.rename(fresh, os.path.join(parent, NAME))
        make_known(serverapp, parent)
    return bool(found)


def make_known(serverapp: Any, directory: str) -> None:
    """Have a JupyterLab look into a directory that was not on its path when it was loaded.

    That is so where the extension itself has opened the overlay: after a start as root, and without a hub.
    """
    known = True
    for app in [app for app in applications(serverapp) if hasattr(app, "extra_labextensions_path")]:
        if directory not in [*app.extra_labextensions_path, *app.labextensions_path]:
            known = False
            app.extra_labextensions_path = [directory, *app.extra_labextensions_path]
    if known:
        return
    # what serves its files was given a list of its own
    routers = [serverapp.web_app.wildcard_router, serverapp.web_app.default_router]
    while routers:
        for rule in routers.pop().rules:
            if hasattr(rule.target, "rules"):
                routers.append(rule.target)
            for key in ("path", "labextensions_path"):
                paths = (rule.target_kwargs or {}).get(key)
                if not isinstance(paths, list) or directory in paths:
                    continue
                if any(str(path).endswith("labextensions") for path in paths):
                    paths.insert(0, directory)


def applications(serverapp: Any) -> list[Any]:
    """Return the applications that a server serves, JupyterLab among them."""
    named = getattr(getattr(serverapp, "extension_manager", None), "extension_apps", None) or {}
    return [app for apps in named.values() for app in apps]


def jupyterlab_major() -> str:
    """Return the major version of the JupyterLab of this Python, ``""`` where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return str(version("jupyterlab")).split(".")[0]
    except (PackageNotFoundError, ValueError, TypeError):
        return ""


def _read(payload: str) -> dict[str, bytes]:
    """Return the built front end: name below its directory to content; empty where it was not built."""
    inside = f"overlayspawner/{LABEXTENSION}/"
    if os.path.isdir(payload):
        return _read_folder(os.path.join(payload, *inside.rstrip("/").split("/")))
    with zipfile.ZipFile(payload) as archive:
        return {
            name[len(inside) :]: archive.read(name)
            for name in archive.namelist()
            if name.startswith(inside) and not name.endswith("/")
        }


def _read_folder(top: str) -> dict[str, bytes]:
    found = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, top).replace(os.sep, "/")] = f.read()
    return found
