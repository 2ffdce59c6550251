"""How a running Jupyter Server is brought to use the overlay: its kernels and its terminals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from shutil import which
from typing import Any

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import MARK, notice


def kernels(serverapp: Any, context: Context) -> None:
    """Offer the overlay's kernels first, or, where the server picks kernels in its own way, not at all.

    Parameters
    ----------
    serverapp:
        The server; its list of kernel directories is evaluated here, before ``JUPYTER_PATH`` is put back.
    context:
        Gets the notice ``kernel-not-replaced`` where it applies.
    """
    manager = serverapp.kernel_spec_manager
    directories = list(manager.kernel_dirs)
    ours = os.path.join(context.runtime, "share", "jupyter", "kernels")
    others = [d for d in directories if d != ours]
    reason = _own_way(serverapp, manager)
    if reason:
        if others != directories:
            manager.kernel_dirs = others
        context.notices.append(
            notice(
                "kernel-not-replaced",
                f"{reason} Its Python kernel does not see your overlay.",
                "Ask your administrator whether that is meant to be so.",
            )
        )
        serverapp.log.warning("%s[kernel-not-replaced] %s", MARK, reason)
    elif others == directories and os.path.isdir(ours):
        # opened by the extension itself: JUPYTER_PATH could not name it before the server started
        manager.kernel_dirs = [ours, *others]
    else:
        manager.kernel_dirs = directories


def _own_way(serverapp: Any, manager: Any) -> str:
    """Say how this server picks kernels in a way that ours would be in, or ``""``."""
    from jupyter_client.kernelspec import KernelSpecManager

    gateway = getattr(serverapp, "gateway_config", None)
    if gateway is not None and getattr(gateway, "gateway_enabled", False):
        return "This server's kernels run on a gateway."
    if type(manager) is not KernelSpecManager:
        return f"This server finds its kernels with {type(manager).__name__}."
    # called `whitelist` before jupyter_client 7
    if getattr(manager, "allowed_kernelspecs", None) or getattr(manager, "whitelist", None):
        return "This server has a list of allowed kernels."
    return ""


def terminals(serverapp: Any, context: Context, environ: Mapping[str, str]) -> None:
    """Start terminals with our rc file, which reads the user's first and sets ``PATH`` last.

    A shell command that the administrator set is left alone.
    """
    rc = os.path.join(context.runtime, "terminal", "bashrc")
    if not context.runtime or not os.path.isfile(rc):
        return
    settings = getattr(serverapp, "terminado_settings", None)
    if settings is None or settings.get("shell_command"):
        return
    command = shell_command(environ.get("SHELL", ""), rc)
    if command is None:
        return
    settings["shell_command"] = command
    # Extensions are loaded in the order of their names: the terminals' manager is there before us.
    manager = serverapp.web_app.settings.get("terminal_manager")
    if manager is not None:
        manager.shell_command = command


def shell_command(shell: str, rc: str) -> list[str] | None:
    """Return the command of a terminal with an rc file of ours; ``None`` for a shell we can't give one.

    Parameters
    ----------
    shell:
        The user's shell (``SHELL``), or ``""``.
    rc:
        The file, in the language of POSIX shells.
    """
    path = shell or which("bash") or which("sh") or ""
    name = os.path.basename(path)
    if name == "bash":
        return [path, "--rcfile", rc, "-i"]
    if name in ("sh", "dash", "ash", "ksh", "mksh"):
        # POSIX: an interactive shell reads the file that ENV names
        return [which("env") or "/usr/bin/env", f"ENV={rc}", path, "-i"]
    return None
