"""Each of our files, damaged in each way: servers start, and so does a kernel, at worst the image's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.payload.damage.conftest import DAMAGE, STATE, Damaged, ours

FILES = [
    *("overlay.json", "requirements.txt", "README.md", "revisions", "a revision", "pyvenv.cfg", "python"),
    *("pip", "bin", "pip.conf", ".pth", "site-packages", "lib", "lock", "state", "env", "envs", "overlay"),
    ".overlay",
    *(f"state/{name}" for name in STATE),
]
# what Python needs at its start in an env
NEEDED = ("pyvenv.cfg", "python", ".pth", "bin", "site-packages", "lib", "env", "envs", "overlay", ".overlay")
# where the start makes again what is not there
MADE = ("env", "envs", "overlay", ".overlay")

CODE = """
import sys, os
try:
    import mine
    found = mine.x
except ImportError:
    found = None
print(found, sys.prefix)
"""


def look(path: Path) -> object:
    try:
        info = os.lstat(path)
    except OSError as e:
        return e.errno
    return info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_server_starts(damaged: Damaged, name: str, how: str) -> None:
    path = ours(damaged)[name]
    others = {n: p for n, p in ours(damaged).items() if path not in p.parents and p not in path.parents}
    DAMAGE[how](path)
    before = {n: look(p) for n, p in others.items() if n != name}
    damage = look(path)
    started = damaged.start()
    if how != "gone" or name not in MADE:
        if not (how in ("a directory", "a link to a stranger's") and name in ("envs", "overlay", ".overlay")):
            assert look(path) == damage, "a start mends nothing: another server may be at work"
        assert {n: look(p) for n, p in others.items() if n != name} == before
    codes = started.codes()
    if started.context.env is None:
        told = " ".join(codes.values())
        assert set(codes) & {"env-broken", "damaged-file", "home-unwritable"}, codes
        assert str(damaged.overlay.parent) in told, told
    elif name not in NEEDED:
        assert codes == {}


KERNELS = [
    *(("pyvenv.cfg", how) for how in DAMAGE),
    *(("python", how) for how in DAMAGE),
    *((".pth", how) for how in DAMAGE),
    *(("site-packages", how) for how in ("gone", "garbage", "mode 000", "a loop of links", "a pipe")),
    *(("state", how) for how in ("gone", "garbage", "mode 000", "a link to a stranger's")),
    *(
        ("env", how)
        for how in ("gone", "empty", "a directory", "mode 000", "a loop of links", "a link to a stranger's")
    ),
    *(("envs", how) for how in ("empty", "mode 000", "a loop of links", "a pipe")),
    *(("overlay", how) for how in ("empty", "mode 000", "a dangling link", "a link to a stranger's")),
    *((".overlay", how) for how in ("gone", "garbage", "mode 000", "a loop of links", "a pipe")),
    *(
        (name, "garbage")
        for name in ("overlay.json", "requirements.txt", "pip", "pip.conf", "revisions", "lock")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), KERNELS)
def test_a_kernel_starts(damaged: Damaged, name: str, how: str) -> None:
    path = ours(damaged)[name]
    DAMAGE[how](path)
    started = damaged.start()
    found, prefix = damaged.kernel(started, CODE).split()
    env = started.context.env
    assert prefix == (env.path if env else sys.prefix)
    codes = started.codes()
    if name not in NEEDED:
        assert (found, codes) == ("42", {})
    elif env is None:
        assert set(codes) & {"env-broken", "damaged-file", "home-unwritable"}, codes


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["pyvenv.cfg", "python", ".pth"])
def test_a_kernel_starts_when_it_breaks_later(damaged: Damaged, name: str, how: str) -> None:
    """Between the start of the server and that of the kernel; a program that starts it once gets it too."""
    started = damaged.start()
    DAMAGE[how](ours(damaged)[name])
    _, prefix = damaged.kernel(started, CODE).split()
    assert prefix in (sys.prefix, started.context.env.path)
