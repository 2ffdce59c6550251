"""The only door to writes into the user's storage.

Each primitive names its step to :func:`step` before it acts, so that tests can make it fail or kill the
process at that very point (``OVERLAYSPAWNER_FAULT``, read only where a test set it before the import).
Imported on the start path: nothing but ``os`` here.
"""

from __future__ import annotations

import os

_fault = os.environ.get("OVERLAYSPAWNER_FAULT", "")
_steps = 0


def step(name: str) -> None:
    """Announce a write. Under test, fail or die here: ``OVERLAYSPAWNER_FAULT=N:kill|ENOSPC|EIO``."""
    if not _fault:
        return
    global _steps
    _steps += 1
    at, _, how = _fault.partition(":")
    if _steps == int(at):
        if how == "kill":
            os.kill(os.getpid(), 9)
        import errno

        code = getattr(errno, how)
        raise OSError(code, os.strerror(code), name)


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
    raw = data.encode() if isinstance(data, str) else data
    step("write " + path)
    tmp = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        step("rename " + path)
        os.rename(tmp, path)
    except BaseException:
        try:
            os.unlink(tmp)
        except OSError:
            pass
        raise


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


def rename(src: str, dst: str) -> None:
    """Rename within one file system."""
    step("rename " + dst)
    os.rename(src, dst)


def remove_tree(path: str) -> None:
    """Delete a file or a directory of our own making with all it holds; errors are ignored.

    Links are removed, never followed.
    """
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            with os.scandir(path) as entries:
                for entry in list(entries):
                    remove_tree(entry.path)
            os.rmdir(path)
        else:
            os.unlink(path)
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
