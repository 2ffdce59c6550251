"""Brings our files into containers: a named volume, filled once per version, mounted read-only.

A volume is filled by putting an archive into a container of the user's own image that is created and never
started: no image of ours is needed, nothing is downloaded, and it works with a read-only root, any user and
no capabilities. The mark that the volume is complete is written last, so a half-filled one counts as empty.

Several hubs may share an engine. The filling container has a name made of the volume's, and names are unique:
it is the lock.
"""

from __future__ import annotations

import io
import logging
import tarfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound

from overlayspawner.hub.image_facts import helper_container, read_file, stat_path
from overlayspawner.payload.contract import PAYLOAD_COMPLETE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

PAYLOAD_LABEL = "overlayspawner.payload"
UV_LABEL = "overlayspawner.uv"

NO_COPY = "nocopy"
"""Option of a mount: the engine must not put into an empty volume what the image has at that place. Images
are untrusted, and what one of them put there would run in the containers of all others."""

_STALE_AFTER = 60.0  # seconds after which a filling container that is still there belongs to a dead hub
_POLL = 0.2
_COMPARE_UP_TO = 1_000_000  # bytes


@dataclass(frozen=True)
class Bundle:
    """Files that fill a volume.

    Parameters
    ----------
    volume:
        Name of the volume; it changes when the files do.
    label, version:
        Label of the volume and its value; other volumes with this label are older versions.
    directory:
        Where containers have it.
    files:
        Returns file name to bytes; called only when the volume has to be filled.
    mark:
        The content of the mark of completeness.
    executable:
        Whether the files are programs.
    """

    volume: str
    label: str
    version: str
    directory: str
    files: Callable[[], Mapping[str, bytes]]
    mark: bytes
    executable: bool = False


@dataclass
class Delivery:
    """Which volumes of one engine are known to be complete. Its methods block: call them in a thread."""

    known: dict[str, str] = field(default_factory=dict)

    def ensure(self, client: Any, bundle: Bundle, image: str) -> bool:
        """Make sure that a volume exists and is complete; return whether it had to be filled.

        Costs one request when this process has seen the volume before. It does not trust that the volume is
        still the same: ``docker volume prune`` takes one that no container uses, and the engine silently
        makes an empty one of that name for the next container.

        Raises
        ------
        docker.errors.APIError
            The engine refuses to create or fill it.
        """
        created = self._created(client, bundle.volume)
        if created and self.known.get(bundle.volume) == created:
            return False
        if not created:
            client.create_volume(bundle.volume, labels={bundle.label: bundle.version})
        filled = fill(client, bundle, image)
        self.known[bundle.volume] = self._created(client, bundle.volume)
        if filled:
            remove_old(client, bundle)
        return filled

    def forget(self, bundle: Bundle) -> None:
        """Have the next :meth:`ensure` look into the volume again."""
        self.known.pop(bundle.volume, None)

    @staticmethod
    def _created(client: Any, volume: str) -> str:
        try:
            return str(client.inspect_volume(volume).get("CreatedAt") or "unknown")
        except NotFound:
            return ""


def fill(client: Any, bundle: Bundle, image: str) -> bool:
    """Fill a volume unless it is complete; return whether it was filled by this call.

    Raises
    ------
    docker.errors.APIError
        The engine refuses.
    """
    name = f"{bundle.volume}-fill"
    seen, since = "", time.monotonic()
    give_up = since + 3 * _STALE_AFTER
    while True:
        try:
            with helper_container(
                client,
                image,
                name=name,
                labels={bundle.label: bundle.version},
                binds={bundle.volume: {"bind": bundle.directory, "mode": f"rw,{NO_COPY}"}},
            ) as container:
                return _fill(client, bundle, container)
        except APIError as e:
            # 409: the name is taken. 404: our container was taken for a dead hub's and removed under us, or
            # the image is gone.
            if e.status_code not in (404, 409) or time.monotonic() > give_up:
                raise
            if e.status_code == 404:
                client.inspect_image(image)
        # Another hub fills it, or died while it did. The engine's clock may differ from ours, so a stale one
        # is told by having watched it for long enough.
        holder = _holder(client, name)
        if holder != seen:
            seen, since = holder, time.monotonic()
        elif holder and time.monotonic() - since > _STALE_AFTER:
            log.warning("Removing %s, which a stopped hub left behind.", name)
            try:
                client.remove_container(holder, v=True, force=True)
            except APIError as e:
                log.debug("%s is gone already: %s", name, e)
        time.sleep(_POLL)


def _fill(client: Any, bundle: Bundle, container: str) -> bool:
    files = bundle.files()
    if _complete(client, bundle, container, files):
        return False
    client.put_archive(container, bundle.directory, make_tar(files, executable=bundle.executable))
    client.put_archive(container, bundle.directory, make_tar({PAYLOAD_COMPLETE: bundle.mark}))
    log.info("Filled the volume %s: %s", bundle.volume, ", ".join(files))
    return True


def _complete(client: Any, bundle: Bundle, container: str, files: Mapping[str, bytes]) -> bool:
    """Whether a volume has its mark, and all files as they should be (large ones: their size)."""
    for name, data in {PAYLOAD_COMPLETE: bundle.mark, **files}.items():
        path = f"{bundle.directory}/{name}"
        stat = stat_path(client, container, path)
        if stat is None or stat.get("size") != len(data):
            return False
        if len(data) <= _COMPARE_UP_TO and read_file(client, container, path) != data:
            return False
    return True


def make_tar(files: Mapping[str, bytes], *, executable: bool = False) -> bytes:
    """Return a tar of plain files that belong to root and anyone may read.

    No entry for a directory: it would reset the mode of the one that exists.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755 if executable else 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def remove_old(client: Any, bundle: Bundle) -> list[str]:
    """Remove volumes of other versions that no container uses; return their names.

    The engine itself refuses to remove a volume that a container refers to: a running one, a stopped one,
    one that is just being filled. A hub of another version that shares the engine finds out at its next
    spawn (:meth:`Delivery.ensure`) and fills its volume again.
    """
    removed = []
    listed = client.volumes(filters={"label": bundle.label}).get("Volumes") or []
    for volume in listed:
        if volume["Name"] == bundle.volume:
            continue
        try:
            client.remove_volume(volume["Name"])
        except APIError as e:
            log.debug("%s stays: %s", volume["Name"], e)
        else:
            removed.append(volume["Name"])
    if removed:
        log.info("Removed volumes of other versions: %s", ", ".join(removed))
    return removed


def _holder(client: Any, name: str) -> str:
    try:
        return str(client.inspect_container(name)["Id"])
    except NotFound:
        return ""
