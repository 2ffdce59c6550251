"""uv, fetched once where neither the hub nor the image has one, and kept in the user's storage.

It comes from the index that everything else comes from, by means of the pip that is there, however old: from
then on changes take tenths of seconds instead of several. One program is kept for all overlays of a storage,
in ``.cache/bin/uv-VERSION-ARCHITECTURE-LIBC/`` beside them; with an ephemeral overlay, in the container.

A program that is run from a user's storage may have been put there by somebody else, or be the half of one:
it is run only where nobody but the user can write, and only in the size that it was written in.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from typing import Any, Optional

from overlayspawner.payload import files
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import image_dists, overlay_dists
from overlayspawner.payload.events import Events
from overlayspawner.payload.installer import uv
from overlayspawner.payload.installer.errors import failure
from overlayspawner.payload.installer.index import limits_of, pip_env
from overlayspawner.payload.policy import Policy, Rule
from overlayspawner.payload.procs import run
from overlayspawner.payload.requirements import normalise, numbers, parse

OLDEST_PIP = (19, 3)
"""The first pip that knows the platform of uv's wheels (manylinux2014)."""

ROOM = 150_000_000
"""Bytes that have to be free."""

LARGEST = 300_000_000
"""Bytes of a program that is taken for uv."""

AGAIN = {"auto": 3600.0, "uv": 60.0}
"""Seconds after which it is tried again, by what ``overlay_installer`` says."""

PATIENCE = {"auto": 60.0, "uv": 300.0}
"""Seconds that fetching may take: with ``auto`` there is pip to go on with."""

ABANDONED = 3600.0
"""Seconds after which what another fetch has begun counts as left behind."""

_FAILED = "failed.json"
_FACTS = "uv.json"
_STAGE = ".stage-"

_failed: dict[str, dict[str, Any]] = {}
_one = threading.Lock()


def folder(ctx: Context) -> str:
    """Return the directory for programs of a context; ``""`` where there is no private place for one."""
    overlay = ctx.overlay
    if overlay is None:
        return ""
    # beside the overlays, so that they share it; where that is not ours, inside
    tops = [overlay.local] if overlay.ephemeral else [os.path.dirname(overlay.path), overlay.path]
    for top in tops:
        # users move large folders to other disks: the top may be a link, as the overlay itself may
        if _mine(top, links=True, others=0o002):
            return os.path.join(top, ".cache", "bin")
    return ""


def _mine(path: str, *, links: bool = False, others: int = 0o022, kind: int = stat.S_IFDIR) -> bool:
    """Whether something is the user's own, and only the user's to change."""
    try:
        info = os.stat(path) if links else os.lstat(path)
    except OSError:
        return False
    return stat.S_IFMT(info.st_mode) == kind and info.st_uid == os.geteuid() and not info.st_mode & others


def kept(ctx: Context) -> list[str]:
    """Return the programs that are kept for this machine and may be run, the newest first."""
    place = folder(ctx)
    if not place or not _private(place):
        return []
    found = glob.glob(os.path.join(glob.escape(place), f"uv-*-{ctx.base.machine}-{ctx.base.libc}"))
    found.sort(key=lambda path: numbers(os.path.basename(path).split("-")[1]), reverse=True)
    return [os.path.join(path, "uv") for path in found if intact(path)]


def _private(place: str) -> bool:
    return _mine(os.path.dirname(place), others=0o002) and _mine(place)


def intact(path: str) -> bool:
    """Whether a directory that a program is kept in is as it was made, as far as sizes and modes tell."""
    program = os.path.join(path, "uv")
    if not _mine(path) or not _mine(program, kind=stat.S_IFREG):
        return False
    try:
        return os.path.getsize(program) == _read(os.path.join(path, _FACTS)).get("size")
    except OSError:
        return False


def find(ctx: Context) -> Optional[uv.Uv]:
    """Return the uv that was fetched earlier, or ``None``."""
    for path in kept(ctx):
        version = uv.version_of(path)
        if version is not None:
            return uv.Uv(path, version)
    return None


def fetch(ctx: Context, events: Events) -> tuple[Optional[uv.Uv], str]:
    """Fetch uv; never raises.

    Parameters
    ----------
    events:
        Told that it is done, and asked whether to stop.

    Returns
    -------
    tuple
        What was fetched, or ``None`` and why not. A reason is remembered for a while, so that not every
        change waits for an index that does not answer.
    """
    wanted = ctx.spec.installer
    if not ctx.spec.fetch_uv:
        return None, "this hub does not want it to be fetched"
    place = folder(ctx)
    if not place:
        return None, "there is no private place for it in your storage"
    with _one:  # what another thread fetches meanwhile is there afterwards
        found = find(ctx)
        if found is not None:
            return found, ""
        env = pip_env(ctx)
        asked = _digest(env)
        why = _remembered(place, asked, AGAIN.get(wanted, 0.0))
        if why:
            return None, why
        try:
            return _fetch(ctx, place, env, events), ""
        except OverlayError as e:
            if e.code == "cancelled":
                return None, "it was cancelled"
            why = e.message
        except (OSError, zipfile.BadZipFile, ValueError) as e:
            why = (e.strerror if isinstance(e, OSError) else "") or str(e) or type(e).__name__
        why = why.replace(" Nothing was changed.", "").rstrip(".")
        _remember(place, asked, why)
        return None, why


def _fetch(ctx: Context, place: str, env: dict[str, str], events: Events) -> uv.Uv:
    refused = _refused(ctx, env)
    if refused:
        raise OverlayError("policy", refused)
    python, pip = _pip(ctx)
    if not python:
        raise OverlayError("installer-missing", "there is no pip to fetch it with")
    top = os.path.dirname(os.path.dirname(place))
    info = os.statvfs(top)
    if info.f_flag & os.ST_NOEXEC:
        raise OverlayError("read-only", "programs can't be run from your storage")
    if info.f_bavail * info.f_frsize < ROOM:
        raise OverlayError("disk-full", "there is too little space for it")
    files.mkdir(os.path.dirname(place))
    files.mkdir(place, 0o700)
    if not _private(place):
        raise OverlayError("read-only", f"others could change what is in {place}")
    _clear(place)
    events.say("resolving", "Fetching uv, which is faster than pip. This is done once.")
    with tempfile.TemporaryDirectory(prefix="overlayspawner-uv-") as scratch:
        wheel = _download(ctx, python, pip, env, scratch, events)
        version = os.path.basename(wheel).split("-")[1]
        refused = _refused(ctx, env, version)
        if refused:
            raise OverlayError("policy", refused)
        return _keep(place, f"uv-{version}-{ctx.base.machine}-{ctx.base.libc}", wheel)


# -- may it, and with what --------------------------------------------------------------------------------


def _refused(ctx: Context, env: Mapping[str, str], version: str = "") -> str:
    """Return why the rules refuse it; ``""`` where they don't.

    It is a tool, no package of the overlay: a list of what may be installed forbids it only where it names
    it.
    """
    without = {normalise(name) for name in env.get("PIP_NO_BINARY", "").replace(",", " ").split()}
    if without & {"uv", normalise(":all:")}:
        return "the settings of pip want it to be built from source"
    about = [rule for rule in ctx.spec.allow if Rule(rule).names("uv")]
    item = Policy(about, ctx.spec.deny).refusal("uv", version)
    if item is None:
        return ""
    return f"this hub refuses it (by the rule {item['rule']})" if item["rule"] else "this hub refuses it"


def _pip(ctx: Context) -> tuple[str, str]:
    """Return the Python that has a pip which can fetch it, and that pip's version; ``""`` for none."""
    there = [(ctx.base.executable, image_dists(ctx.base))]
    if ctx.env is not None:
        there.append((ctx.env.python, overlay_dists(ctx.env)))
    for python, dists in there:
        pip = dists.get("pip")
        if pip is not None and numbers(pip.version) >= OLDEST_PIP:
            return python, pip.version
    return "", ""


def _download(
    ctx: Context, python: str, pip: str, env: Mapping[str, str], scratch: str, events: Events
) -> str:
    limits = [line for line in ctx.spec.constraints if parse(line, trusted=True).name == "uv"]
    oldest = ".".join(map(str, uv.OLDEST))
    argv = [python, "-I", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", scratch]
    argv += [f"uv>={oldest}", *limits_of(ctx).for_pip(pip)]
    if limits:
        listed = os.path.join(scratch, "constraints.txt")
        files.write_atomic(listed, "".join(line + "\n" for line in limits), sync=False)
        argv += ["-c", listed]
    # the index tells the digest of the file, and pip compares it
    environ = {**env, "PIP_RETRIES": "1"}
    environ.pop("PIP_PRE", None)
    result = run(
        argv, env=environ, cwd=scratch, timeout=PATIENCE.get(ctx.spec.installer, 60.0), cancel=events.cancel
    )
    wheels = glob.glob(os.path.join(glob.escape(scratch), "uv-*.whl"))
    if result.rc != 0 or result.cancelled or result.timed_out:
        raise failure(result, scratch, "pip")
    if len(wheels) != 1:
        raise OverlayError("bad-package", "the index gave no wheel of it")
    return wheels[0]


# -- keeping it -------------------------------------------------------------------------------------------


def _keep(place: str, name: str, wheel: str) -> uv.Uv:
    """Take the program out of its wheel, try it, and put it in its place."""
    stage = os.path.join(place, _STAGE + os.urandom(6).hex())
    target = os.path.join(place, name)
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((n for n in archive.namelist() if n.endswith(".data/scripts/uv")), "")
            size = archive.getinfo(member).file_size if member else 0
            if not 0 < size <= LARGEST:
                raise OverlayError("bad-package", "the index's wheel has no such program in it")
            raw = archive.read(member)
        files.mkdir(stage, 0o700)
        program = os.path.join(stage, "uv")
        files.write_atomic(program, raw, 0o700)
        files.write_atomic(os.path.join(stage, _FACTS), json.dumps({"size": size, "sha256": _sha256(raw)}))
        version = _try(program)
        files.fsync_dir(stage)
        return _place(stage, target, version)
    finally:
        files.remove_tree(stage)


def _try(program: str) -> str:
    """Return what the program calls itself.

    Raises
    ------
    OverlayError
        ``bad-package``: it does not run here, or is something else.
    """
    for _ in range(3):
        # while another thread starts a program, that one has our file open for a moment: it "is busy"
        version = uv.ask_version(program)
        if version is not None:
            return version
        time.sleep(0.2)
    raise OverlayError("bad-package", "the index's uv does not run here")


def _place(stage: str, target: str, version: str) -> uv.Uv:
    program = os.path.join(target, "uv")
    for _ in range(3):
        try:
            files.rename(stage, target)
            files.fsync_dir(os.path.dirname(target))
            break
        except OSError:
            # another server was faster, or what is there is damaged
            if intact(target) and uv.version_of(program) is not None:
                break
            aside = os.path.join(os.path.dirname(target), _STAGE + os.urandom(6).hex())
            if os.path.lexists(target):
                files.rename(target, aside)
                files.remove_tree(aside)
    if not intact(target):
        raise OverlayError("read-only", "your storage does not keep what is written to it")
    return uv.Uv(program, uv.version_of(program) or version)


def _clear(place: str) -> None:
    """Remove what fetches that were killed have left."""
    for path in glob.glob(os.path.join(glob.escape(place), _STAGE + "*")):
        try:
            if time.time() - os.lstat(path).st_mtime > ABANDONED:
                files.remove_tree(path)
        except OSError:
            continue


def _sha256(raw: bytes) -> str:
    import hashlib

    return hashlib.sha256(raw).hexdigest()


def damaged(ctx: Context) -> list[str]:
    """Return the directories of kept programs, of any machine, that are not as they were made.

    Each is read as a whole: for the doctor.
    """
    place = folder(ctx)
    out = []
    for path in sorted(glob.glob(os.path.join(glob.escape(place), "uv-*"))) if place else []:
        good = _private(place) and intact(path)
        if good:
            try:
                with open(os.path.join(path, "uv"), "rb") as f:
                    good = _sha256(f.read(LARGEST)) == _read(os.path.join(path, _FACTS)).get("sha256")
            except OSError:
                good = False
        if not good:
            out.append(path)
    return out


# -- remembering that it can't be had ---------------------------------------------------------------------


def _digest(env: Mapping[str, str]) -> str:
    """Return what tells one place to look from another; the addresses may hold credentials."""
    return _sha256(json.dumps(sorted(item for item in env.items() if item[0].startswith("PIP_"))).encode())[
        :16
    ]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as f:
            data = json.loads(f.read(10_000))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _remembered(place: str, asked: str, seconds: float) -> str:
    """Return why it could not be had a while ago; ``""`` when it is time to try again."""
    for data in (_failed.get(place, {}), _read(os.path.join(place, _FAILED))):
        when, why = data.get("when"), data.get("why")
        if data.get("asked") != asked or not isinstance(when, (int, float)) or not isinstance(why, str):
            continue
        if 0 <= time.time() - when < seconds and why:
            return why[:500]
    return ""


def _remember(place: str, asked: str, why: str) -> None:
    data = {"when": time.time(), "why": why, "asked": asked}
    _failed[place] = data  # a storage that can't be written to is a reason too
    try:
        if _private(place):
            files.write_atomic(os.path.join(place, _FAILED), json.dumps(data), sync=False)
    except OSError:
        pass
