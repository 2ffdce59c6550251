"""What tests do with the Docker engine: look at their containers, make volumes and fill them."""

from __future__ import annotations

import io
import re
import sys
import tarfile
import time
import uuid
from pathlib import PurePosixPath
from typing import Any


class Engine:
    """Containers and volumes whose names begin with a prefix.

    Parameters
    ----------
    prefix:
        Everything of this prefix is removed by :meth:`clean`.
    """

    def __init__(self, prefix: str) -> None:
        import docker

        self.client: Any = docker.from_env()
        self.prefix = prefix
        self._volumes: set[str] = set()

    def containers(self, name: str = "") -> list[Any]:
        """Return the containers, running or not; ``name`` narrows to those that contain it."""
        found = self.client.containers.list(all=True, filters={"name": self.prefix}, ignore_removed=True)
        return [c for c in found if c.name.startswith(self.prefix) and name in c.name]

    def container(self, user: str) -> Any:
        """Return the one container of a user."""
        found = [
            c for c in self.containers() if re.fullmatch(rf"{self.prefix}-{re.escape(user)}(--.*)?", c.name)
        ]
        assert len(found) == 1, f"{user} has {len(found)} containers: {[c.name for c in found]}"
        return found[0]

    def volumes(self) -> list[str]:
        """Return the names of the volumes that begin with the prefix."""
        found = self.client.volumes.list(filters={"name": self.prefix})
        return sorted(v.name for v in found if v.name.startswith(self.prefix))

    def make_volume(self, name: str, **options: Any) -> str:
        """Make a volume that is removed at the end; its full name begins with the prefix."""
        full = f"{self.prefix}-{name}"
        self.client.volumes.create(full, **options)
        return full

    def forget_volume(self, name: str) -> None:
        """Remove a volume of any name at the end."""
        self._volumes.add(name)

    def run_in(self, volume: str, path: str, image: str, script: str) -> str:
        """Run a shell script as root with a volume mounted at ``path``; return what it printed."""
        raw: bytes = self.client.containers.run(
            image,
            entrypoint=["/bin/sh", "-ec"],
            command=[script],
            user="0",
            working_dir="/",
            remove=True,
            network_mode="none",
            stderr=True,
            name=f"{self.prefix}-prepare-{uuid.uuid4().hex[:6]}",
            volumes={volume: {"bind": path, "mode": "rw"}},
        )
        return raw.decode(errors="replace")

    def put(self, volume: str, image: str, path: str, files: dict[str, str | bytes]) -> None:
        """Write files into a volume as uid 1000, without running anything.

        Parameters
        ----------
        path:
            Where the volume is mounted, and what the files' names are relative to.
        files:
            Name → content; directories on the way are made.
        """
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            made: set[str] = set()
            for name, content in files.items():
                for parent in reversed(PurePosixPath(name).parents[:-1]):
                    if str(parent) not in made:
                        made.add(str(parent))
                        folder = tarfile.TarInfo(str(parent))
                        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o755, 1000, 100
                        archive.addfile(folder)
                data = content.encode() if isinstance(content, str) else content
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.uid, entry.gid = len(data), 0o644, 1000, 100
                archive.addfile(entry, io.BytesIO(data))
        container = self.client.containers.create(
            image,
            name=f"{self.prefix}-put-{uuid.uuid4().hex[:6]}",
            volumes={volume: {"bind": path, "mode": "rw"}},
        )
        try:
            assert container.put_archive(path, raw.getvalue())
        finally:
            container.remove(force=True)

    def clean(self) -> None:
        """Remove the containers and the volumes."""
        for container in self.containers():
            try:
                container.remove(force=True, v=True)
            except Exception:
                pass
        for name in {*self.volumes(), *self._volumes}:
            self._remove_volume(name)
        self.client.close()

    def _remove_volume(self, name: str) -> None:
        from docker.errors import APIError, NotFound

        # A container that the engine is just removing by itself still holds its volumes.
        end = time.monotonic() + 15
        while True:
            try:
                self.client.volumes.get(name).remove(force=True)
                return
            except NotFound:
                return
            except APIError as error:
                if time.monotonic() > end:
                    print(f"the volume {name} stays: {error}", file=sys.stderr)
                    return
            time.sleep(0.2)
