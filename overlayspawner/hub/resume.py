"""Whether an existing container may be replaced by a new one. Pure.

With ``remove = False`` containers are started again and again, with the environment and the mounts that they
were created with. When the settings have changed, a new container is better, but only if nothing is lost with
the old one: users may have installed things into its own file system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlayspawner.hub.compose import mounts_of
from overlayspawner.payload.contract import PAYLOAD_DIR, UV_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlayspawner.hub.compose import Plan

# Changed by any start, or meant to be lost: no reason to keep a container.
_TRANSIENT = (
    "/tmp",  # noqa: S108
    "/run",
    "/var/run",
    "/var/tmp",  # noqa: S108
    "/var/log",
    "/var/cache",
    "/etc",
    "/dev",
    "/proc",
    "/sys",
    "/certs",
    PAYLOAD_DIR,
    UV_DIR,
)


def reason_to_keep(obj: Mapping[str, Any], plan: Plan, diff: Iterable[Mapping[str, Any]] | None) -> str:
    """Say what would be lost with a container, in a few words, or return ``""`` when nothing would.

    Parameters
    ----------
    obj:
        What ``inspect_container`` says about the existing one.
    plan:
        How a new one would be created.
    diff:
        What ``diff`` says about the existing one's own file system; ``None`` when it has not changed.
    """
    if not plan.home_persistent:
        return "its home is not on a volume"
    host_config = obj.get("HostConfig") or {}
    old = {(m.source, m.path.rstrip("/")) for m in mounts_of(host_config) if m.persistent}
    old = {(source, path) for source, path in old if path not in (PAYLOAD_DIR, UV_DIR)}
    new = {(m.source, m.path.rstrip("/")) for m in plan.mounts if m.persistent}
    if old - new:
        return "other things are mounted in it"
    named = {source for source, _ in old}
    for mount in obj.get("Mounts") or []:
        ours = str(mount.get("Destination", "")).rstrip("/") in (PAYLOAD_DIR, UV_DIR)
        if mount.get("Type") == "volume" and mount.get("Name") not in named and not ours:
            return f"there is an anonymous volume at {mount.get('Destination')}"
    # What a new container mounts for the first time would hide what the old one has there.
    covered = {m.path.rstrip("/") for m in mounts_of(host_config)}
    covered |= {str(mount.get("Destination", "")).rstrip("/") for mount in obj.get("Mounts") or []}
    ignored = (*_TRANSIENT, *(m.path.rstrip("/") for m in plan.mounts if m.path.rstrip("/") in covered))
    for path in _leaves(str(entry.get("Path", "")) for entry in diff or ()):
        if "/__pycache__" in path or any(path == i or path.startswith(i + "/") for i in ignored):
            continue
        return f"{path} was changed in it"
    return ""


def _leaves(paths: Iterable[str]) -> list[str]:
    """Return the paths that are no directory of another one: a changed file changes those as well."""
    ordered = sorted(paths, key=lambda p: p.split("/"))
    return [p for p, following in zip(ordered, [*ordered[1:], ""]) if not following.startswith(p + "/")]
