"""What lies around an overlay and decides whether it works: storage, owners, clocks, settings, paths."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Optional

from overlayspawner.payload import dists, files, lease
from overlayspawner.payload.context import Context
from overlayspawner.payload.doctor.common import FIX, Check, Walk, check, some
from overlayspawner.payload.overlay import Env, Overlay, shell_quote

LITTLE_SPACE = 50_000_000
"""Bytes below which the storage counts as nearly full."""

SKEW = 300.0
"""Seconds that the clocks of machine and storage may differ."""

_FEW_INODES = 1_000


def storage(overlay: Overlay) -> Check:
    """Whether the storage can be written to, and has room."""
    probe = os.path.join(overlay.path, f".doctor-{os.urandom(4).hex()}")
    try:
        files.write_atomic(probe, b"\0" * 4096)
        written = os.stat(probe).st_mtime
        files.unlink(probe)
    except OSError as e:
        error = lease.storage_error(e)
        files.remove_tree(probe)
        return check("storage", False, f"{overlay.path} can't be written to: {e.strerror}.", error.hint)
    stat = os.statvfs(overlay.path)
    free = stat.f_bavail * stat.f_frsize
    if free < LITTLE_SPACE:
        return check(
            "storage",
            False,
            f"Only {free // 1000:,} kB are free.",
            "Delete files you no longer need: Python itself fails in strange ways on a full disk.",
        )
    if stat.f_files and stat.f_favail < _FEW_INODES:
        return check(
            "storage",
            False,
            f"Only {stat.f_favail} more files can be made.",
            "Delete folders with many small files that you no longer need.",
        )
    skew = written - time.time()
    if abs(skew) > SKEW:
        way = "ahead of" if skew > 0 else "behind"
        return check(
            "storage",
            False,
            f"The storage's clock is {abs(skew):,.0f} seconds {way} this machine's.",
            "Tell your administrator: certificates of package indexes may be refused.",
        )
    if noexec(overlay.path):
        return check(
            "storage",
            False,
            "Programs can't be run from this storage (it is mounted with noexec).",
            "Packages with compiled parts won't load. Ask your administrator to mount it without noexec.",
        )
    return check("storage", True, f"It can be written to; {free // 1_000_000:,} MB are free.")


def noexec(path: str) -> bool:
    """Whether a file system refuses to run programs."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return False


def owner(overlay: Overlay, env: Env, walk: Walk) -> Check:
    """Whether all of it is the user's."""
    if not walk.foreign:
        return check("owner", True, "All files are yours.")
    tops: list[str] = []
    for path in sorted(walk.foreign):
        if not tops or not path.startswith(tops[-1] + os.sep):
            tops.append(path)
    places = " ".join(shell_quote(path) for path in tops[:20])
    return check(
        "owner",
        False,
        f"{len(walk.foreign)} files belong to another user: {some(tops)}.",
        f"Only an administrator can change that: chown -R -h {os.geteuid()}:{os.getegid()} {places}",
    )


def shared(overlay: Overlay, env: Env) -> Check:
    """Whether others may write where the user's programs come from."""
    bad = open_folders(overlay, env)
    if bad:
        return check(
            "permissions", False, f"Every user may write into {some(bad)}, and so run code as you.", FIX
        )
    return check("permissions", True, "Nobody else may write into the environment.")


def open_folders(overlay: Overlay, env: Env) -> list[str]:
    """Return the folders that all users may write to. Storages without permissions show all as open."""
    out = []
    for path in (
        overlay.path,
        overlay.revisions,
        overlay.envs,
        env.path,
        env.bin,
        env.site_packages,
        env.state,
    ):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if mode & 0o002 and not mode & 0o1000:
            out.append(path)
    return out if out and _has_modes(overlay) else []


def _has_modes(overlay: Overlay) -> bool:
    probe = os.path.join(overlay.path, f".doctor-{os.urandom(4).hex()}")
    try:
        files.write_atomic(probe, b"", 0o600, sync=False)
        mode = os.stat(probe).st_mode
        files.unlink(probe)
    except OSError:
        return True
    return not mode & 0o002


def mend_shared(overlay: Overlay, env: Env) -> list[str]:
    """Take the right to write from other users; raises ``OSError`` where that is refused."""
    bad = open_folders(overlay, env)
    for path in bad:
        files.close_to_others(path)
    return [f"Other users may no longer write into {some(bad)}."] if bad else []


def fetched_uv(context: Context, overlay: Overlay, env: Env) -> Check:
    """Whether a uv that was fetched is still what it was."""
    from overlayspawner.payload.installer import fetch

    bad = fetch.damaged(context)
    if bad:
        return check("uv", False, f"The uv that was fetched is damaged, and is not used: {some(bad)}.", FIX)
    return check("uv", True, "No uv was fetched, or it is as it was.")


def mend_fetched_uv(context: Context) -> list[str]:
    """Remove a damaged one: the next change fetches it again."""
    from overlayspawner.payload.installer import fetch

    bad = fetch.damaged(context)
    for path in bad:
        files.remove_tree(path)
    return [f"Removed a damaged uv: {some(bad)}. The next change fetches it again."] if bad else []


def clock(env: Env, walk: Walk) -> Check:
    """Whether files come from the future."""
    ahead = walk.newest - time.time()
    if ahead > 24 * 3600:
        return check(
            "clock",
            True,
            f"There are files dated {ahead / 86_400:,.0f} days ahead: they were written under another clock. "
            "That does no harm.",
        )
    return check("clock", True, "No file comes from the future.")


def user_site(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """What ``~/.local`` does to the overlay: kernels look there after the overlay and before the image."""
    local = dists.by_name(dists.listing(dists.user_site(ctx)))
    if not local:
        return check("user-site", True, "There are no packages in ~/.local for this Python.")
    mine = dists.overlay_dists(env)
    base = dists.base_dists(ctx)
    unfit = _unfit(mine, local)
    if unfit:
        return check(
            "user-site",
            False,
            f"Packages in ~/.local don't fit those of the overlay: {some(unfit)}.",
            "Uninstall them there with the image's own pip, or install the right version into the overlay.",
        )
    hidden = [f"{n} {d.version} hides {base[n].version}" for n, d in sorted(local.items()) if n in base]
    hidden = [text for text in hidden if text.split(" ")[0] not in mine]
    if hidden:
        return check(
            "user-site", True, f"Packages in ~/.local come before the image's in kernels: {some(hidden)}."
        )
    return check("user-site", True, f"{len(local)} packages in ~/.local: kernels see them after the overlay.")


def _unfit(mine: dict[str, dists.Dist], local: dict[str, dists.Dist]) -> list[str]:
    out = []
    for name, dist in sorted(mine.items()):
        wanted: dict[str, object] = {}

        def note(target: str, specifier: object, wanted: dict[str, object] = wanted) -> None:
            wanted[target] = specifier

        dists.needs([(name, ())], _only(name, dist), on_edge=note)
        for target, specifier in sorted(wanted.items()):
            there = local.get(target)
            if there is not None and target not in mine and not _fits(specifier, there.version):
                out.append(f"{name} needs {target}{specifier}, ~/.local has {there.version}")
    return out


def _fits(specifier: object, version: str) -> bool:
    """Whether a version is one that a package asks for; a version that is none is not judged."""
    contains = getattr(specifier, "contains", None)
    if contains is None:
        return True
    try:
        return bool(contains(version, prereleases=True))
    except Exception:
        return True


def _only(name: str, dist: dists.Dist) -> Callable[[str], Optional[dists.Dist]]:
    return lambda other: dist if other == name else None


def pip_settings(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether pip's settings send installations elsewhere than into the overlay."""
    bad = []
    for path in _pip_files(ctx.home):
        for key, value in _pip_options(path):
            if key in ("target", "prefix", "root"):
                bad.append(f"{key} = {value} in {path}")
    if bad:
        return check(
            "pip-settings",
            False,
            f"pip is told to install elsewhere: {some(bad)}.",
            "Take the line out, or use `overlay install`, which does not follow it.",
        )
    return check("pip-settings", True, "pip's settings leave the overlay alone.")


def _pip_files(home: str) -> list[str]:
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    own = os.environ.get("PIP_CONFIG_FILE", "")
    found = [own, "/etc/pip.conf", "/etc/xdg/pip/pip.conf"]
    found += [os.path.join(home, ".pip", "pip.conf"), os.path.join(config, "pip", "pip.conf")]
    return [path for path in found if path and os.path.isfile(path)]


def _pip_options(path: str) -> list[tuple[str, str]]:
    import configparser

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
        return [
            pair for name in ("global", "install") if parser.has_section(name) for pair in parser.items(name)
        ]
    except (configparser.Error, OSError, UnicodeDecodeError):
        return []


def python_path(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether ``PYTHONPATH`` puts something before the overlay."""
    entries = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if not entries:
        return check("python-path", True, "PYTHONPATH is not set.")
    mine = dists.overlay_dists(env)
    hides = []
    for path in entries:
        for dist in dists.listing(path):
            if dist.name in mine and os.path.realpath(path) != os.path.realpath(env.site_packages):
                hides.append(f"{dist.name} {dist.version} in {path}")
    if hides:
        return check(
            "python-path",
            False,
            f"PYTHONPATH puts other copies before the overlay's: {some(hides)}.",
            "Take the path out of PYTHONPATH: in ~/.bashrc and the like, or in the image.",
        )
    return check(
        "python-path", True, f"PYTHONPATH is set ({some(entries)}); it hides nothing of the overlay."
    )
