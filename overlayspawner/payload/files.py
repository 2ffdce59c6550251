"""The only door to writes into the user's storage.

Each primitive names its step to :func:`step` before it acts, so that tests can make it fail or kill the
process at that very point (``OVERLAYSPAWNER_FAULT``, read only where a test set it before the import).
Imported on the start path: nothing but ``os`` here.
"""

from __future__ import annotations

import os

if False:  # for type checkers only: nothing but os is imported on the start path
    from collections.abc import Iterable

WRITTEN_BACK = 120
"""Seconds after which the kernel has written a file back: it begins after 30."""

SINGLY = 200
"""How many files and directories are flushed one by one, at most."""

FEW = 8
"""How many are flushed one by one where flushing all of the file system is quick."""

LITTLE = 64_000_000
"""Bytes that wait on this machine to be written, up to which that is quick."""

MEMINFO = "/proc/meminfo"

_fault = os.environ.get("OVERLAYSPAWNER_FAULT", "")
_mark, _, _fault = _fault.rpartition("@")
_counting = not _mark
_steps = 0


def mark(name: str) -> None:
    """Name a phase, so that a test can count writes from there (``OVERLAYSPAWNER_FAULT=NAME@N:kill``)."""
    global _counting
    if _fault and name == _mark:
        _counting = True


def step(name: str) -> None:
    """Announce a write. Under test, fail, die or halt here: ``OVERLAYSPAWNER_FAULT=[PHASE@]N:HOW``.

    HOW is ``kill``, ``stop`` (until somebody sends SIGCONT), ``ENOSPC`` or ``EIO``.
    """
    if not _fault or not _counting:
        return
    global _steps
    _steps += 1
    at, _, how = _fault.partition(":")
    if _steps == int(at):
        if how in ("kill", "stop"):
            os.kill(os.getpid(), 9 if how == "kill" else 19)
            return
        import errno

        code = getattr(errno, how)
        raise OSError(code, os.strerror(code), name)


def inject(fault: str) -> None:
    """Set what ``OVERLAYSPAWNER_FAULT`` would set, and count from the start: for tests that fork."""
    global _mark, _fault, _counting, _steps
    _mark, _, _fault = fault.rpartition("@")
    _counting = not _mark
    _steps = 0


def steps() -> int:
    """Return how many writes were counted: as many as a test can let fail."""
    return _steps


def fsync_dir(path: str) -> None:
    """Make renames within a directory durable; file systems that can't are left alone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def write_atomic(path: str, data: str | bytes, mode: int = 0o644, *, sync: bool = True) -> None:
    """Write a file by writing a temporary one beside it and renaming.

    Readers see the old or the new content, never a part. ``sync=False`` skips the fsync, for files that can
    be made again.

    Raises
    ------
    OSError
        As the underlying calls; the temporary file is removed.
    """
    tmp = write_temp(path, data, mode, sync=sync)
    try:
        step("rename " + path)
        os.rename(tmp, path)
    except BaseException:
        discard(tmp)
        raise


def write_named(path: str, data: str | bytes, mode: int = 0o644) -> None:
    """Write what a user named on the command line, which may be anything.

    A pipe or a device is written to, never replaced; a link leads to the file; a file that is there keeps its
    permissions (but gets those to run it that ``mode`` has).

    Raises
    ------
    OSError
        With the path that was named.
    """
    import errno
    import stat

    try:
        there = os.stat(path).st_mode if os.path.exists(path) else None
        if there is not None and stat.S_ISDIR(there):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if there is not None and not stat.S_ISREG(there):
            with open(path, "wb") as f:
                f.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
            return
        real = os.path.realpath(path)
        if there is not None:
            mode = stat.S_IMODE(there) | (mode & 0o111)
        tmp = write_temp(real, data, mode, exact=there is not None)
        try:
            rename(tmp, real)
        except BaseException:
            discard(tmp)
            raise
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from e


def write_temp(
    path: str, data: str | bytes, mode: int = 0o644, *, sync: bool = True, exact: bool = False
) -> str:
    """Write what :func:`rename` will put at ``path``; return the temporary file's path.

    For a caller that must know that the content is safe before it decides. ``exact`` gives the file its mode
    whatever the umask is, where the file system has modes.

    Raises
    ------
    OSError
        As the underlying calls; the temporary file is removed.
    """
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    step("write " + path)
    tmp = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(fd, view) :]
            if exact:
                try:
                    os.fchmod(fd, mode)
                except OSError:
                    pass  # it has fewer rights than were asked for, not more
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        discard(tmp)
        raise
    return tmp


def overwrite(path: str, raw: bytes, *, size: int = 0) -> None:
    """Write over the beginning of a file that exists, and flush it: needs no space where it has the room.

    A crash can leave a part of it, which the content must show by itself.

    Parameters
    ----------
    size:
        What the file is cut to when it is longer; 0 leaves it.

    Raises
    ------
    OSError
        As the underlying calls.
    """
    step("overwrite " + path)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        at = 0
        while at < len(raw):
            at += os.pwrite(fd, raw[at:], at)
        if size and os.fstat(fd).st_size > size:
            os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: str, paths: Iterable[str]) -> None:
    """Make files that others wrote durable, with the directories between them and ``path``.

    Files that were written minutes ago (an installer's cache linked them here) are left alone: the kernel has
    written them back. To flush a file that is clean costs as much as one that is not, because the disk is
    told each time: so the whole file system is flushed, once, where they are many, or where little else waits
    to be written (on ext4, 180 small files and directories one by one 135-800 ms, together 12-80 ms).

    Parameters
    ----------
    paths:
        Relative to ``path``.

    Raises
    ------
    OSError
        The storage says that a file could not be written.
    """
    step("sync " + path)
    try:
        old = os.stat(path).st_mtime - WRITTEN_BACK
    except FileNotFoundError:
        return
    folders = {""}
    todo = []
    for name in paths:
        full = os.path.join(path, name)
        try:
            if os.lstat(full).st_mtime > old:
                todo.append(full)
        except OSError:
            continue
        folder = os.path.dirname(name)
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    count = len(todo) + len(folders)
    if (count > SINGLY or (count > FEW and _dirty() <= LITTLE)) and _sync_all(path):
        return
    # writing back is started for all of them first, so that the disk is waited for once rather than each time
    for how in (_start_writing, os.fsync):
        for full in todo:
            try:
                fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue  # a link, or a file that nobody may read
            try:
                how(fd)
            finally:
                os.close(fd)
    for folder in sorted(folders, reverse=True):
        fsync_dir(os.path.join(path, folder))


def _dirty() -> int:
    """Return the bytes on this machine that wait to be written; many where that can't be told."""
    total = 0
    try:
        with open(MEMINFO, "rb") as f:
            for line in f:
                if line.startswith((b"Dirty:", b"Writeback:")):
                    total += int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return LITTLE + 1
    return total


def _sync_all(path: str) -> bool:
    """Flush the file system that holds a path; return whether that was possible."""
    try:
        import ctypes

        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (ImportError, AttributeError, OSError):
        return False
    try:
        return bool(syncfs(fd) == 0)
    finally:
        os.close(fd)


def _start_writing(fd: int) -> None:
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except (OSError, AttributeError):
        pass  # only advice


def write_plain(path: str, data: str, mode: int = 0o644) -> None:
    """Write a file that must not exist yet, where nobody looks before it is whole: in a stage.

    Raises
    ------
    OSError
        As the underlying calls.
    """
    step("write " + path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)


def copy(source: str, target: str, limit: int) -> int | None:
    """Copy a regular file to where none is yet; return its bytes, ``None`` when they are more than ``limit``.

    Raises
    ------
    OSError
        The source is a link or can't be read, or there is no space.
    """
    step("write " + target)
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    inside = os.open(source, os.O_RDONLY | os.O_NONBLOCK | flags)
    try:
        total = 0
        outside = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
        try:
            while chunk := os.read(inside, 1 << 20):
                total += len(chunk)
                if total > limit:
                    return None
                view = memoryview(chunk)
                while view:
                    view = view[os.write(outside, view) :]
        finally:
            os.close(outside)
    finally:
        os.close(inside)
    return total


def discard(tmp: str) -> None:
    """Remove a temporary file of our own; errors are ignored."""
    try:
        os.unlink(tmp)
    except OSError:
        pass


def mkdir(path: str, mode: int = 0o777) -> bool:
    """Make a directory; return whether it is new.

    A link to a directory in its place is accepted: users move large folders to other disks this way. We
    only ever write as the user, never as root, so a link gives nobody more rights than they have.
    """
    step("mkdir " + path)
    try:
        os.mkdir(path, mode)
        return True
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(20, "not a directory", path) from None
        return False


def symlink(target: str, path: str) -> None:
    """Make a symbolic link that must not exist yet."""
    step("symlink " + path)
    os.symlink(target, path)


def link(target: str, path: str) -> None:
    """Make a hard link, or a symbolic one to what lies elsewhere or may not be linked to."""
    step("link " + path)
    try:
        os.link(target, path)
    except OSError:
        os.symlink(target, path)


def links(folder: str, other: str) -> bool:
    """Whether a file in one directory can be linked into another; where nothing can be written, it may be."""
    step("write " + folder)
    name = f".link-{os.urandom(4).hex()}.tmp"
    here, there = os.path.join(folder, name), os.path.join(other, name)
    try:
        os.close(os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return True
    try:
        os.link(here, there)
        return True
    except OSError as e:
        return e.errno in (28, 30, 122)  # full, read-only, over quota: says nothing about links
    finally:
        discard(there)
        discard(here)


def rename(src: str, dst: str) -> None:
    """Rename within one file system."""
    step("rename " + dst)
    os.rename(src, dst)


def write_new(path: str, data: str, mode: int = 0o644) -> bool:
    """Write a file that must not exist yet, whole or not at all; return whether it was free.

    Raises
    ------
    OSError
        As the underlying calls; the temporary file is removed.
    """
    tmp = f"{path}.{os.urandom(4).hex()}.tmp"
    write_atomic(tmp, data, mode)
    step("link " + path)
    try:
        os.link(tmp, path)
    except FileExistsError:
        # a network file system may do what it is asked for twice, and tell of the second time
        return _is_link_of(tmp, path)
    except OSError:
        # No hard links here (some network and FUSE file systems). Writers hold a lock, so that looking
        # first is good enough.
        if os.path.lexists(path):
            return False
        os.rename(tmp, path)
        return True
    finally:
        discard(tmp)
    return True


def _is_link_of(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def unlink(path: str) -> None:
    """Remove a file or link; one that is gone already is fine."""
    step("unlink " + path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def rmdir(path: str) -> bool:
    """Remove a directory if it is empty; return whether it went."""
    step("rmdir " + path)
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def open_lock(path: str) -> int:
    """Open a file to be locked, made when missing; return its descriptor."""
    step("open " + path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def close_to_others(path: str) -> None:
    """Take the right to write from users other than owner and group."""
    step("chmod " + path)
    os.chmod(path, os.stat(path).st_mode & 0o7775)


def touch(target: str | int) -> None:
    """Set a file's times to now, by the clock of the file system that holds it."""
    os.utime(target)


def remove_tree(path: str) -> None:
    """Delete a file or a directory of our own making with all it holds; errors are ignored.

    Links are removed, never followed.
    """
    try:
        os.unlink(path)
        return
    except OSError:
        pass  # a directory, most likely; of the few calls per file that are needed, this is the first
    try:
        if not os.path.isdir(path) or os.path.islink(path):
            return
        try:
            with os.scandir(path) as entries:
                found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except PermissionError:
            found = []
        if found and not os.access(path, os.W_OK):
            os.chmod(path, 0o700)  # packages do bring directories that can't be written
        for inside, is_dir in found:
            if is_dir:
                remove_tree(inside)
            else:
                discard(inside)
        os.rmdir(path)
    except OSError:
        pass


def write_test(path: str) -> None:
    """Write one block to a new file and remove it again.

    Raises
    ------
    OSError
        The directory can't be written to (permissions, read-only) or has no space left (full, quota).
    """
    step("test " + path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"\0" * 4096)
    finally:
        os.close(fd)
        os.unlink(path)
