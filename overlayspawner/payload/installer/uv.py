"""uv, made to respect the base: it installs into a stage that is filled with stubs."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import contract, files
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.installer import OnLine
from overlayspawner.payload.installer.errors import failure
from overlayspawner.payload.installer.index import limits_of, uv_env
from overlayspawner.payload.installer.preview import Planned
from overlayspawner.payload.installer.progress import OnPackages
from overlayspawner.payload.installer.traces import sweep, temporary
from overlayspawner.payload.installer.uv_progress import UvProgress, with_bars
from overlayspawner.payload.limits import NONE, Limits
from overlayspawner.payload.procs import Cancel, clean_env, run
from overlayspawner.payload.requirements import normalise, numbers
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
        rebuild: Sequence[str] = (),
        build: bool = True,
        dry: bool = False,
        offline: bool = False,
        on_line: Optional[OnLine] = None,
        on_packages: Optional[OnPackages] = None,
        cancel: Optional[Cancel] = None,
    ) -> None:
        """See :meth:`Installer.stage <overlayspawner.payload.installer.Installer.stage>`."""
        stage.add_stubs(visible)
        environ = self.env(ctx)
        argv = self.install(stage, requirements, upgrade, constraints, limits_of(ctx), environ)
        for name in rebuild:
            argv += ["--refresh-package", name]
        argv += [] if build or "--no-build" in argv else ["--no-build"]
        argv += ["--dry-run"] if dry else []
        argv += ["--offline"] if offline else []
        shown = UvProgress(on_line, on_packages)
        # by the storage's own clock
        began = os.stat(os.path.join(stage.path, "requirements.txt")).st_mtime_ns
        with temporary(with_bars(environ)) as env:
            result = run(argv, env=env, cwd=stage.path, on_line=shown.line, drawn=shown.drawn, cancel=cancel)
        shown.packages.finish()
        if result.rc != 0 or result.cancelled:
            sweep(env["UV_CACHE_DIR"], began)
            raise failure(result, stage.path, "uv")

    def preview(self, ctx: Context, requirements: Sequence[str], stage: Stage, **how: Any) -> list[Planned]:
        """See :meth:`Installer.preview <overlayspawner.payload.installer.Installer.preview>`."""
        from overlayspawner.payload.installer.uv_preview import preview

        return preview(self, ctx, requirements, stage, **how)

    def env(self, ctx: Context) -> dict[str, str]:
        """Return the environment that it runs in."""
        return uv_env(ctx, cache_dir(ctx))

    def install(
        self,
        stage: Stage,
        requirements: Sequence[str],
        upgrade: Sequence[str] = (),
        constraints: Sequence[str] = (),
        limits: Limits = NONE,
        environ: Optional[Mapping[str, str]] = None,
    ) -> list[str]:
        """Return the command that fills a stage.

        Parameters
        ----------
        environ:
            The environment that it will run in.
        """
        listed = stage.write("requirements.txt", "".join(line + "\n" for line in requirements))
        argv = [
            self.path,
            "pip",
            "install",
            "--verify-hashes",  # by itself only later ones do
            "--python",
            stage.env.python,
            "--prefix",
            stage.prefix,
            "-r",
            listed,
        ]
        if constraints:
            argv += ["-c", stage.write("constraints.txt", "".join(line + "\n" for line in constraints))]
            # an option takes the place of the variable
            argv += [
                word for path in (environ or {}).get("UV_CONSTRAINT", "").split() for word in ("-c", path)
            ]
        for name in upgrade:
            # never --upgrade: it means every package that is visible
            argv += ["--upgrade-package", name]
        return [*argv, *limits.for_uv()]

    def origins(self, ctx: Context, pins: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return where packages come from, as far as the cache tells; the network is not asked.

        Parameters
        ----------
        pins:
            ``name==version`` each.

        Returns
        -------
        dict
            Name to the tables of PEP 751 (``wheels``, ``sdist``); empty when one of them is not in the cache.
        """
        from overlayspawner.payload.pylock import loads

        _, env = ctx.require()
        # in the container: an env may be on a storage with nothing left
        with tempfile.TemporaryDirectory(prefix="overlayspawner-lock-") as folder:
            listed, out = os.path.join(folder, "pins.in"), os.path.join(folder, "pylock.toml")
            files.write_atomic(listed, "".join(pin + "\n" for pin in pins), sync=False)
            argv = [self.path, "pip", "compile", "--offline", "--no-deps", "--format", "pylock.toml"]
            argv += ["--no-header", "--python", env.python, "-o", out, listed]
            # constraints have been met when these versions were chosen
            environ = {k: v for k, v in uv_env(ctx, cache_dir(ctx)).items() if k != "UV_CONSTRAINT"}
            result = run(argv, env=environ, cwd=folder, timeout=20)
            if result.rc != 0:
                return {}
            with open(out, encoding="utf-8") as f:
                packages = loads(f.read()).get("packages") or []
        return {normalise(str(item["name"])): dict(item) for item in packages}


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
            return path if _lockable(path) and _links(path, env.state) else _local(ctx)
    except OSError:
        pass
    path = _make(overlay.path)
    return path if _lockable(path) and _links(path, env.state) else _local(ctx)


def _lockable(path: str) -> bool:
    """Whether uv can lock a cache there. It gives up where it can't (some network file systems)."""
    import fcntl

    try:
        fd = files.open_lock(os.path.join(path, ".lock"))
    except OSError:
        return True  # a full disk, for example: uv says it better
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


_linked: dict[tuple[str, str], bool] = {}


def _links(path: str, state: str) -> bool:
    """Whether uv can link from a cache into an env. Where it has to copy, all would lie there twice."""
    key = (path, state)
    if key not in _linked:
        _linked[key] = files.links(path, state)
    return _linked[key]


def _local(ctx: Context) -> str:
    """Return a cache that lives as long as the container does: copies instead of links, but it works."""
    import tempfile

    if ctx.runtime:
        return os.path.join(ctx.runtime, "uv-cache")
    path = os.path.join(tempfile.gettempdir(), f"overlayspawner-uv-{os.getuid()}")
    try:
        files.mkdir(path, 0o700)
    except OSError:
        pass
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        # somebody else's: what is in it is not to be used
        path = tempfile.mkdtemp(prefix="overlayspawner-uv-")
    return path


def _make(folder: str) -> str:
    parent = os.path.join(folder, ".cache")
    path = os.path.join(parent, "uv")
    files.mkdir(parent)
    files.mkdir(path)
    return path


def find(ctx: Context) -> Optional[Uv]:
    """Return the first uv that runs and is new enough, or ``None``."""
    # in a terminal the first one is our own command, which would record what it is told to do
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders = [folder for folder in folders if folder != f"{ctx.runtime}/bin"]
    own = shutil.which("uv", path=os.pathsep.join(folders))
    candidates = [os.path.join(contract.UV_DIR, "uv"), own or ""]
    if ctx.env is not None:
        candidates.append(os.path.join(ctx.env.bin, "uv"))
    candidates.append(os.path.join(os.path.dirname(ctx.base.executable), "uv"))
    for path in dict.fromkeys(candidates):
        version = version_of(path) if path else None
        if version is not None:
            return Uv(path, version)
    return None


def version_of(path: str) -> Optional[str]:
    """Return a uv's version; ``None`` when it is missing, does not run here or is too old. Asked once."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    key = (path, info.st_ino, info.st_mtime_ns)
    if key not in _versions:
        _versions[key] = ask_version(path)  # not before it is known: other threads look here too
    return _versions[key]


def ask_version(path: str) -> Optional[str]:
    """Ask a uv for its version; ``None`` when it does not run here or is too old."""
    try:
        # another libc or architecture shows itself only when it is run
        result = run([path, "--version"], env=clean_env(), timeout=20)
    except OSError:
        return None
    words = result.tail.split()
    fits = result.rc == 0 and len(words) >= 2 and words[0] == "uv" and numbers(words[1]) >= OLDEST
    return words[1] if fits else None
