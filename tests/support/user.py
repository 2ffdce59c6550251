"""Running programs as an ordinary user, also where the tests run as root: a start as root opens nothing."""

from __future__ import annotations

import functools
import os
import subprocess

import pytest


@functools.lru_cache(maxsize=1)
def as_user() -> tuple[str, ...]:
    """Return the words to put before a command.

    In a user namespace root's files are the user's own, and permissions count as they do for any user.
    Skips the test where neither is to be had.
    """
    if os.geteuid() != 0:
        return ()
    words = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    try:
        done = subprocess.run([*words, "id", "-u"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs util-linux to run as an ordinary user")
    if done.stdout.strip() != "1000":
        pytest.skip("runs as root, and may not make user namespaces")
    return words
