"""OverlaySystemUserSpawner on the Docker that answers: users of this machine, with their own homes."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conformance.engines.docker import Docker
from tests.support.system_users import SystemUsers

CONFIG = "c.SystemUserSpawner.host_homedir_format_string = ''  # the one in the user database\n"


class SystemUser(Docker):
    """Docker, as users of the host."""

    name = "system-user"

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Make users; they go at the end."""
        with SystemUsers() as self.users:
            yield

    def hub_options(self) -> dict[str, Any]:
        """Our spawner, on the usual image."""
        return {**super().hub_options(), "config": CONFIG, "spawner": "overlay-system-user"}

    def user(self, role: str) -> str:
        """Make a user of this machine."""
        return self.users.add().pw_name

    def use_home(self, user: str) -> Path:
        """The user's own."""
        return Path(pwd.getpwnam(user).pw_dir)

    def owner(self, user: str) -> tuple[int, int]:
        """Return the user's ids."""
        found = pwd.getpwnam(user)
        return found.pw_uid, found.pw_gid

    def is_home(self, volume: str) -> bool:
        """No volume is anybody's home."""
        return False
