"""The user's storage as a start finds it: where the overlay lives, whether it can be written to, opening it.

Runs in a child under a deadline (see :mod:`bootstrap`) or in the server extension, always as the final user.
On the start path.
"""

from __future__ import annotations

import os

from overlayspawner.payload import files, kernelspec, oneshot
from overlayspawner.payload.contract import Spec, notice
from overlayspawner.payload.overlay import Overlay, is_under, make_local
from overlayspawner.payload.probe import Base


def overlay_path(spec: Spec, home: str) -> str:
    """Return where the overlay lives: on the user's persistent storage.

    That is the home when something is mounted at or above it, else the single writable mount under it, else
    the home (and a notice says that it is not persistent).
    """
    path = spec.path.replace("{name}", spec.name)
    if path.startswith("~/"):
        return home + path[1:]
    if os.path.isabs(path):
        return path
    return os.path.join(storage_root(spec, home), path)


def storage_root(spec: Spec, home: str) -> str:
    """Return the directory that a relative overlay path is relative to."""
    if spec.mounts is None or _home_mounted(spec, home):
        return home
    prefix = home.rstrip("/") + "/"
    under = [str(m["path"]).rstrip("/") for m in spec.mounts if str(m["path"]).startswith(prefix)]
    writable = [
        str(m["path"]).rstrip("/")
        for m in spec.mounts
        if not m.get("ro") and str(m["path"]).rstrip("/") in under
    ]
    return writable[0] if len(writable) == 1 else home


def _home_mounted(spec: Spec, home: str) -> bool:
    for mount in spec.mounts or []:
        path = str(mount["path"]).rstrip("/") or "/"
        if path != "/" and (home + "/").startswith(path + "/"):
            return True
    return False


class Found:
    """What :func:`open_storage` found; plain data, because it crosses a pipe.

    ``overlay``, ``env`` and ``local`` (see :class:`Overlay`) are paths (``""`` for none), ``user_kernel`` the
    user's own ``python3`` specification, ``bad_home`` whether the home is unwritable or full.
    """

    def __init__(self, *notices: dict[str, str], bad_home: bool = False) -> None:
        self.overlay = ""
        self.env = ""
        self.local = ""
        self.mode = "degraded"
        self.notices = list(notices)
        self.user_kernel: dict[str, object] | None = None
        self.bad_home = bad_home


def open_storage(spec: Spec, base: Base, home: str) -> Found:
    """Look at the user's storage and make the overlay where it is missing.

    Never raises for what is wrong with the storage: that is a notice, and the server starts without the
    overlay.
    """
    found = Found()
    if not home:
        found.notices.append(notice("home-unknown"))
        return found
    if os.geteuid() == 0 and spec.owner > 0:
        # what root made here its owner could not change; the image should have become that user
        found.bad_home = True
        found.notices.append(
            notice(
                "root-start",
                f"The server runs as root, but the home belongs to user {spec.owner}: no overlay is opened.",
                "Ask your administrator for an image that becomes NB_UID, or to switch run_as_root off.",
            )
        )
        return found
    problem = _write_test(home)
    found.bad_home = problem is not None
    if problem:
        found.notices.append(problem)
    found.user_kernel = kernelspec.user_kernel(home)
    path = overlay_path(spec, home)
    out = _leads_out(spec, base, path, home) if os.geteuid() == 0 else ""
    if out:
        found.notices.append(
            notice(
                "damaged-file",
                f"{out} is a link that leads out of your home directory: root does not follow it.",
                "Replace it by a directory, then restart your server.",
            )
        )
        return found
    if oneshot.wanted(spec, path) and _take_safe(spec, base, path, found):
        found.mode = "safe"
        found.notices.append(notice("safe-mode"))
        return found
    if _is_lost(spec, home):
        found.notices.append(
            notice("not-persistent", hint="Ask your administrator to mount a volume at your home directory.")
        )
    try:
        if spec.lifetime == "ephemeral":
            found.local = make_local(os.environ, home)
        overlay = Overlay(path, name=spec.name, kind=spec.kind, lifetime=spec.lifetime, local=found.local)
        env = overlay.create(base)
    except OSError as e:
        if problem is None:
            problem = _storage_problem(e, path)
            found.notices.append(problem)
            # what was free went into the beginning of an overlay
            found.bad_home = problem["code"] == "home-full"
        return found
    found.overlay = path
    damage = env.damage(venv_base=base.is_venv and spec.kind == "overlay")
    if damage:
        # A start never changes an env: another server may be at work in it.
        found.notices.append(
            notice(
                "env-broken",
                f"The overlay's environment is damaged ({damage}); kernels use the image's packages only.",
                "Your server tries to mend it; see `overlay doctor` in a terminal.",
            )
        )
        return found
    found.env = env.path
    found.mode = "normal"
    return found


def _take_safe(spec: Spec, base: Base, path: str, found: Found) -> bool:
    """Whether this start runs without the overlay; a reset that was asked for is done first.

    With a nonce each request is followed once, also when a container starts again with the same spec.
    """
    try:
        return oneshot.take(spec, path, base, found.notices) == "safe"
    except Exception as e:
        asked = "the reset" if spec.reset else "safe mode"
        found.notices.append(
            notice(
                "bootstrap-failed", f"What was asked for this start ({asked}) failed: {e or type(e).__name__}"
            )
        )
        return spec.safe


def _leads_out(spec: Spec, base: Base, path: str, home: str) -> str:
    """Return what leads by a link from the overlay's place out of the storage that it belongs to, or ``""``.

    A user may have made it; with the rights of root it would reach what is not that user's. In a home of
    root's own they are root's.
    """
    try:
        if os.stat(home).st_uid == 0:
            return ""
    except OSError:
        return ""
    root = home if spec.path.startswith("~/") else storage_root(spec, home)
    if os.path.isabs(spec.path) or root == "/":
        return ""
    overlay = Overlay(path, kind=spec.kind)
    env = overlay.env(base)
    lib = os.path.join(env.path, "lib")
    inside = [path, overlay.envs, overlay.revisions, os.path.join(path, "locks"), env.path, env.state]
    inside += [env.bin, lib, os.path.dirname(env.site_packages), env.site_packages]
    return next((place for place in inside if not is_under(place, root)), "")


def _is_lost(spec: Spec, home: str) -> bool:
    """Whether a persistent overlay would vanish with the container: nothing of the home is mounted."""
    if spec.lifetime != "persistent" or spec.mounts is None or os.path.isabs(spec.path):
        return False
    return storage_root(spec, home) == home and not _home_mounted(spec, home)


def _write_test(home: str) -> dict[str, str] | None:
    """Try to write one block to the home; return a notice when that fails."""
    path = os.path.join(home, f".overlayspawner-{os.urandom(4).hex()}.tmp")
    try:
        files.write_test(path)
    except OSError as e:
        return _storage_problem(e, home)
    return None


def _storage_problem(e: OSError, path: str) -> dict[str, str]:
    import errno

    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return notice(
            "home-full",
            f"There is no space left at {path}: nothing can be saved or installed.",
            "Delete files you no longer need, then restart your server.",
        )
    path = str(e.filename or path)
    if e.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP):
        return notice(
            "damaged-file",
            f"{path} is in the way of the overlay ({e.strerror}): nothing can be installed.",
            "Rename it, or run `overlay doctor --fix` in a terminal; then restart your server.",
        )
    return notice(
        "home-unwritable",
        f"{path} can't be written to ({e.strerror}): nothing can be installed.",
        "Ask your administrator to check the permissions of your home directory.",
    )
