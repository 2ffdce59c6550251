"""The kernels that packages of an overlay bring: copies of their specifications, made to run in the env."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from typing import Any

from overlayspawner.payload import files, kernelspec
from overlayspawner.payload.labfolder import read_text
from overlayspawner.payload.overlay import Env

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}\Z", re.ASCII)
_OURS = (kernelspec.NATIVE, kernelspec.BASE, kernelspec.ADDED, kernelspec.USER)
_MAX = 200


def scan(env: Env) -> list[tuple[str, int]]:
    """Return the folders of kernels in an env, with what changes with their specification."""
    out = []
    for name in _names(_folder(env)):
        try:
            out.append((name, os.lstat(os.path.join(_folder(env), name, "kernel.json")).st_mtime_ns))
        except OSError:
            continue
    return out


def wanted(env: Env, taken: Collection[str]) -> dict[str, tuple[dict[str, Any], str]]:
    """Return name → specification and folder of the kernels that there should be.

    Parameters
    ----------
    taken:
        Names of the image's and the user's own kernels, which stay what they are.
    """
    out: dict[str, tuple[dict[str, Any], str]] = {}
    for name in _names(_folder(env)):
        folder = os.path.join(_folder(env), name)
        spec = _spec(env, folder)
        if spec is None or name.lower() in _OURS:
            continue  # ipykernel brings a python3: ours is it already
        if name.lower() in taken:
            name, spec["display_name"] = f"{name}-overlay", f"{spec['display_name']} (overlay)"
        out[name] = spec, folder
    return out


def write(kernels: str, name: str, spec: dict[str, Any], folder: str) -> None:
    """Write a generated specification and its logos.

    Raises
    ------
    OSError
    """
    target = os.path.join(kernels, name)
    files.remove_tree(target)
    files.mkdir(target, 0o700)
    for entry in sorted(os.listdir(folder)):
        if entry != "kernel.json" and _NAME.match(entry):
            path = os.path.join(target, entry)
            try:
                if files.copy(os.path.join(folder, entry), path, kernelspec.MAX_RESOURCE) is None:
                    files.discard(path)
            except OSError:
                files.discard(path)  # a kernel without its logo is better than none
    files.write_atomic(os.path.join(target, "kernel.json"), json.dumps(spec), sync=False)


def _folder(env: Env) -> str:
    return os.path.join(env.path, "share", "jupyter", "kernels")


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _NAME.match(name) and name[0] != ".")[:_MAX]
    except OSError:
        return []


def _spec(env: Env, folder: str) -> dict[str, Any] | None:
    """Return a specification whose command runs in the env; ``None`` where there is none that is valid."""
    try:
        spec = json.loads(read_text(os.path.join(folder, "kernel.json")))
        json.dumps(spec, allow_nan=False)  # no browser reads a list of kernels with NaN in it
    except (OSError, ValueError, RecursionError):
        return None
    argv = spec.get("argv") if isinstance(spec, dict) else None
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        return None
    first = argv[0]
    if not os.path.isabs(first) and "{" not in first:
        # a plain `python` would be the server's; other programs of a package lie beside the env's
        own = os.path.join(env.bin, os.path.basename(first))
        first = env.python if kernelspec.is_python(first) else own if os.path.exists(own) else first
    argv = [word.replace("{resource_dir}", folder) for word in [first, *argv[1:]]]
    out: dict[str, Any] = {
        "argv": argv,
        "display_name": str(spec.get("display_name") or os.path.basename(folder))[:200],
        "language": str(spec.get("language") or "")[:100],
    }
    if isinstance(spec.get("env"), dict):
        out["env"] = {str(key): str(value) for key, value in spec["env"].items()}
    if spec.get("interrupt_mode") in ("signal", "message"):
        out["interrupt_mode"] = spec["interrupt_mode"]
    if isinstance(spec.get("metadata"), dict):
        out["metadata"] = spec["metadata"]
    return out
