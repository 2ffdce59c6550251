"""uv, made to respect the base: it installs into a stage that is filled with stubs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Optional

from overlayspawner.payload import contract, files
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.installer import OnLine
from overlayspawner.payload.installer.errors import failure
from overlayspawner.payload.installer.index import uv_env
from overlayspawner.payload.procs import Cancel, clean_env, run
from overlayspawner.payload.stage import Stage

OLDEST = (0, 4, 30)

_versions: dict[tuple[str, int, int], Optional[str]] = {}


class Uv:
    """uv behind the :class:`~overlayspawner.payload.installer.Installer` protocol.

    Parameters
    ----------
    path:
        The program.
    version:
        What it calls itself.
    """

    name = "uv"

    def __init__(self, path: str, version: str) -> None:
        self.path = path
        self.version = version

    def stage(
        self,
        ctx: Context,
        requirements: Sequence[str],
        stage: Stage,
        *,
        visible: Sequence[Dist],
        upgrade: Sequence[str] = (),
        constraints: Sequence[str] = (),
        on_line: Optional[OnLine] = None,
        cancel: Optional[Cancel] = None,
    ) -> None:
        """See :meth:`Installer.stage <overlayspawner.payload.installer.Installer.stage>`."""
        stage.add_stubs(visible)
        listed = stage.write("requirements.txt", "".join(line + "\n" for line in requirements))
        argv = [
            self.path,
            "pip",
            "install",
            "--python",
            stage.env.python,
            "--prefix",
            stage.prefix,
            "-r",
            listed,
        ]
        if constraints:
            argv += ["-c", stage.write("constraints.txt", "".join(line + "\n" for line in constraints))]
        for name in upgrade:
            # never --upgrade: it means every package that is visible
            argv += ["--upgrade-package", name]
        env = uv_env(ctx, cache_dir(ctx))
        result = run(argv, env=env, cwd=stage.path, on_line=on_line, cancel=cancel)
        if result.rc != 0 or result.cancelled:
            raise failure(result, stage.path, "uv")


def cache_dir(ctx: Context) -> str:
    """Return uv's cache directory: on the env's file system, where it can link instead of copying.

    An image's ``UV_CACHE_DIR`` is used when it lies there too, and for an ephemeral overlay wherever it lies.
    """
    overlay, env = ctx.require()
    own = os.environ.get("UV_CACHE_DIR", "")
    if overlay.ephemeral:
        # A cache holds packages unpacked, as an env does: in the user's storage it would be what an ephemeral
        # overlay is chosen to avoid. Who would rather save downloads names a place.
        return own if own and os.access(own, os.W_OK) else _make(overlay.local)
    try:
        if own and os.stat(own).st_dev == os.stat(env.path).st_dev and os.access(own, os.W_OK):
            return own
    except OSError:
        pass
    # beside the overlays, so that they share it; where that is another storage, or not ours, inside
    try:
        path = _make(os.path.dirname(overlay.path))
        if os.stat(path).st_dev == os.stat(env.path).st_dev and os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    return _make(overlay.path)


def _make(folder: str) -> str:
    parent = os.path.join(folder, ".cache")
    path = os.path.join(parent, "uv")
    files.mkdir(parent)
    files.mkdir(path)
    return path


def find(ctx: Context) -> Optional[Uv]:
    """Return the first uv that runs and is new enough, or ``None``."""
    candidates = [os.path.join(contract.UV_DIR, "uv"), shutil.which("uv") or ""]
    if ctx.env is not None:
        candidates.append(os.path.join(ctx.env.bin, "uv"))
    candidates.append(os.path.join(os.path.dirname(ctx.base.executable), "uv"))
    for path in dict.fromkeys(candidates):
        version = _version(path) if path else None
        if version is not None:
            return Uv(path, version)
    return None


def _version(path: str) -> Optional[str]:
    """Ask a uv for its version; ``None`` when it is missing, does not run here or is too old."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    key = (path, info.st_ino, info.st_mtime_ns)
    if key not in _versions:
        _versions[key] = None
        try:
            # another libc or architecture shows itself only when it is run
            result = run([path, "--version"], env=clean_env(), timeout=20)
        except OSError:
            return None
        words = result.tail.split()
        if result.rc == 0 and len(words) >= 2 and words[0] == "uv" and _numbers(words[1]) >= OLDEST:
            _versions[key] = words[1]
    return _versions[key]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("+")[0].split("."))
