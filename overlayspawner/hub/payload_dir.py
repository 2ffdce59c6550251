"""The payload as a directory of this machine: put there, kept as long as a server runs from it, removed.

``python -m overlayspawner.hub.payload_dir DIRECTORY COMMAND...`` puts it there by hand, and prints a script
that runs COMMAND with it: for spawners that leave it to a root-owned script what is run
(``docs/how-to/other-spawners.md``).

Whoever can write to the directory runs code in every user's server, so nobody but root and the hub's user
may: not to the directory, and not to what leads to it. Several hubs of one user may share it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from overlayspawner.hub import boot, payload_zip
from overlayspawner.payload.contract import OverlayError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_LEASES = ".in-use"
_LOCK = ".lock"
_KEEP = "keep"
_VERSION = re.compile(r"[0-9a-f]{12}\Z")
_MAX_LINKS = 40  # as the kernel


class Reader:
    """The user whom servers run as.

    Parameters
    ----------
    uid, groups:
        Their ids; all of a user's groups.
    """

    def __init__(self, uid: int, groups: Collection[int]) -> None:
        self.uid = uid
        self.groups = frozenset(groups)

    def may_enter(self, path: str, info: os.stat_result) -> bool:
        """Whether they may enter a directory; ``True`` where a list of access rights makes that unclear."""
        if self.uid == 0:
            return True
        bits = info.st_mode >> (6 if info.st_uid == self.uid else 3 if info.st_gid in self.groups else 0)
        if bits & 0o001:
            return True
        with suppress(OSError, AttributeError):  # no such lists here, or not on this system
            return bool(os.getxattr(path, "system.posix_acl_access"))
        return False


def deliver(parent: str, reader: Reader | None = None, *, keep: bool = True) -> tuple[str, int]:
    """Put the payload into a directory of its own below ``parent``, unless it is there.

    Parameters
    ----------
    parent:
        Made when it is missing, for all to read, whatever the hub's umask.
    reader:
        Whose server is going to read it, where that is not the hub's own user.
    keep:
        Never remove it. Otherwise it stays for as long as somebody has the descriptor open.

    Returns
    -------
    tuple
        The directory, and a descriptor to hand to the server (-1 with ``keep``); the caller closes it.

    Raises
    ------
    OverlayError
        ``bad-spec``: the directory can't be used, or somebody else could write to it and so run code in
        every user's server.
    """
    payload = payload_zip.build()
    try:
        place = safe_directory(parent, reader)
        with _locked(place):
            lease = _lease(place, payload.short_id, keep=keep)
            try:
                _complete(Path(place), payload)
            except BaseException:
                _close(lease)
                raise
    except OSError as e:
        raise _refused(f"The directory {parent} can't be used for the overlay's files: {_why(e)}.") from None
    return os.path.join(place, payload.short_id), lease


def _complete(parent: Path, payload: payload_zip.Payload) -> None:
    final = parent / payload.short_id
    mark, content = payload.mark()
    if final.is_dir():
        _check(str(final), final.lstat(), last=True)
        with suppress(OSError):
            if (final / mark).read_bytes() == content:
                return
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    for name, data in {**payload.contents(), mark: content}.items():
        (temporary / name).write_bytes(data)
        (temporary / name).chmod(0o644)
    temporary.chmod(0o755)
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        # incomplete: put file by file into it, the mark last
        for name in [*payload.contents(), mark]:
            (temporary / name).rename(final / name)
        temporary.rmdir()


# -- who may write there ------------------------------------------------------------------------------------


def safe_directory(path: str, reader: Reader | None = None) -> str:
    """Return the real path of a directory that only root and the hub's user can change; made if absent.

    A link is followed where nobody else could have made it.

    Raises
    ------
    OverlayError
        ``bad-spec``: others could put something else there, or the reader can't get there.
    OSError
        It can't be made.
    """
    rest = [part for part in os.path.abspath(path).split("/") if part][::-1]
    at, links = "/", 0
    while True:
        info = os.lstat(at)
        _check(at, info, last=not rest)
        if reader is not None and not reader.may_enter(at, info):
            raise _refused(
                f"The servers' users can't read the overlay's files in {path}: {at} is closed to them."
            )
        if not rest:
            return at
        name = rest.pop()
        if name in (".", ".."):  # out of a link
            at = os.path.dirname(at) if name == ".." else at
            continue
        below = os.path.join(at, name)
        try:
            info = os.lstat(below)
        except FileNotFoundError:
            _make(below)
            info = os.lstat(below)
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(f"{below}: too many links")
            if info.st_uid not in _trusted():
                raise _refused(f"{below}, on the way to {path}, is a symbolic link that another user made.")
            target = os.readlink(below)
            at = "/" if target.startswith("/") else at
            rest += [part for part in target.split("/") if part][::-1]
        elif not stat.S_ISDIR(info.st_mode):
            raise NotADirectoryError(20, "Not a directory", below)
        else:
            at = below


def _make(path: str) -> None:
    """Make a directory for servers to read, whatever the umask, unless another does.

    It has its rights from its first moment: servers that start at the same time look at them.
    """
    try:
        fresh = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(path))
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from None  # not the passing name
    try:
        os.chmod(fresh, 0o755)  # noqa: S103
        os.rename(fresh, path)
    except OSError:
        os.rmdir(fresh)
        if not os.path.lexists(path):
            raise


def _trusted() -> set[int]:
    # whoever has "/" could replace everything; in a user namespace that may be an unknown number
    return {0, os.geteuid(), os.lstat("/").st_uid}


def _check(path: str, info: os.stat_result, *, last: bool) -> None:
    if info.st_uid not in _trusted():
        raise _others(path, "belongs to another user, who could put other files there")
    mode = info.st_mode
    if not last and mode & stat.S_ISVTX:
        return  # as /tmp: others can't take away what is ours in it, and that what is next is ours is checked
    if mode & 0o002 or (mode & 0o020 and not _own_group(info.st_gid)):
        raise _others(path, "can be written to by others")


def _own_group(gid: int) -> bool:
    """Whether a group is the private one of the hub's user, as Debian's and others' users have one."""
    import grp
    import pwd

    if os.geteuid() == 0:
        return False
    with suppress(KeyError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        return user.pw_name == group.gr_name and not set(group.gr_mem) - {user.pw_name}
    return False


def _others(path: str, what: str) -> OverlayError:
    why = "Others than the hub's user may write to the overlay's files, and so run code in users' servers"
    return _refused(f"{why}: {path} {what}.")


def _refused(message: str) -> OverlayError:
    hint = "Set overlay_payload_dir to a directory that all may read and only the hub's user may write to."
    return OverlayError("bad-spec", message, hint, status=500)


def _why(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text} ({error.filename})" if error.filename else text


# -- who uses it --------------------------------------------------------------------------------------------
# A lease is a locked file. The server inherits the descriptor that has the lock, so that the lock goes when
# the server does, however that ends and whether or not a hub still runs. Users can't open these files, and
# can give up no lock but their own.


@contextmanager
def _locked(place: str) -> Iterator[None]:
    """Let no other hub deliver or remove meanwhile."""
    leases = os.path.join(place, _LEASES)
    with suppress(FileExistsError):
        os.mkdir(leases, 0o700)
    fd = os.open(os.path.join(leases, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with suppress(OSError):  # no locks here: then nothing is removed either
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lease(place: str, version: str, *, keep: bool) -> int:
    leases = os.path.join(place, _LEASES)
    name = _KEEP if keep else os.urandom(8).hex()
    path = os.path.join(leases, f"{version}.{name}")
    # read-only: a user's server gets it, and must not be able to fill root's disk through it
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if keep:
        os.close(fd)
        return -1
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def remove_old(parent: str) -> list[str]:
    """Remove other versions of the payload that no server runs from; return their names. Never raises."""
    try:
        place = safe_directory(parent)
        with _locked(place):
            return _remove_old(place)
    except (OSError, OverlayError):
        return []


def _remove_old(place: str) -> list[str]:
    leases = os.path.join(place, _LEASES)
    used = {payload_zip.build().short_id}
    for name in os.listdir(leases):
        version, _, kind = name.partition(".")
        if not _VERSION.match(version):
            continue
        if kind == _KEEP or _held(os.path.join(leases, name)):
            used.add(version)
        else:
            os.unlink(os.path.join(leases, name))
    removed = []
    for name in os.listdir(place):
        # what a hub that was killed has left of a delivery: nobody else delivers at this moment
        if name.startswith(".new-") or (_VERSION.match(name) and name not in used):
            shutil.rmtree(os.path.join(place, name), ignore_errors=True)
            removed.append(name)
    return removed


def _held(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # also where there are no locks
        return True
    finally:
        os.close(fd)
    return False


# -- by hand ------------------------------------------------------------------------------------------------


def script(directory: str, command: Sequence[str]) -> str:
    """Return a shell script that prepares the overlay and then runs ``command`` with the script's arguments.

    Parameters
    ----------
    directory:
        Where the payload is.
    command:
        The server's command; absolute, as scripts like this one are there to make sure what is run.
    """
    words = " ".join(shlex.quote(word) for word in command)
    head = "#!/bin/sh\n# Made by overlayspawner.hub.payload_dir."
    return f'{head}\nset -- {words} "$@"\n{boot.boot(directory)}\n'


def main(arguments: Sequence[str] | None = None) -> int:
    """Put the payload into a directory and print the script; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m overlayspawner.hub.payload_dir",
        description="Puts our code for servers into a directory, and prints a script that uses it.",
    )
    parser.add_argument("directory", help="that everybody may read and only you may write to")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what the script runs")
    given = parser.parse_args(arguments)
    try:
        directory, _ = deliver(given.directory, Reader(-1, ()))
    except OverlayError as e:
        print(f"{e.message} {e.hint}", file=sys.stderr)
        return 1
    print(script(directory, given.command) if given.command else directory, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
