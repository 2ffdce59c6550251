"""Real users of this machine, made for a test and removed after it, and a Python that they can run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from overlayspawner.hub import processes


class SystemUsers:
    """Makes users with names that nobody else has; a context manager that removes them, and all they left.

    Their homes are in ``directory``, which everybody may enter and only root may write to. Skips the test
    where it does not run as root.
    """

    def __init__(self) -> None:
        if os.geteuid() != 0 or not shutil.which("useradd"):
            pytest.skip("needs root and useradd to make users")
        self.directory = Path(tempfile.mkdtemp(prefix="overlay-users-", dir="/var/tmp"))
        self.directory.chmod(0o755)
        self._names: list[str] = []

    def __enter__(self) -> SystemUsers:
        return self

    def __exit__(self, *exc: object) -> None:
        for name in self._names:
            self._remove(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def add(self, *, home: bool | str = True, shell: str = "/bin/bash") -> pwd.struct_passwd:
        """Make a user.

        Parameters
        ----------
        home:
            ``True`` for one that is made; else what the user database says of it.
        shell:
            The login shell.
        """
        name = f"ovl{uuid.uuid4().hex[:10]}"
        place = str(self.directory / name) if home is True else str(home)
        made = ["--create-home"] if home is True else ["--no-create-home"]
        subprocess.run(
            ["useradd", "--no-log-init", *made, "--home-dir", place, "--shell", shell, name],
            check=True,
            capture_output=True,
        )
        self._names.append(name)
        return pwd.getpwnam(name)

    def _remove(self, name: str) -> None:
        uid = pwd.getpwnam(name).pw_uid
        for process in processes_of(uid):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        end = time.monotonic() + 5
        while processes_of(uid) and time.monotonic() < end:
            time.sleep(0.05)
        for path in runtime_dirs_of(uid):
            if path.is_symlink():
                path.unlink()
            shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def processes_of(uid: int) -> list[processes.Process]:
    """Return the living processes of a user."""
    return [p for p in processes.every().values() if not p.zombie and processes.owner(p.pid) == uid]


def runtime_dirs_of(uid: int) -> list[Path]:
    """Return what the overlay's servers of a user have in the places for temporary files."""
    found = []
    for parent in ("/tmp", "/dev/shm", "/var/tmp"):
        for path in Path(parent).glob("overlayspawner-*"):
            with suppress(OSError):
                if path.lstat().st_uid == uid:
                    found.append(path)
    return found


def reachable(path: Path) -> bool:
    """Whether any user of the machine can get to a path."""
    return all(p.stat().st_mode & stat.S_IXOTH for p in [*path.parents, path] if p.is_dir())


def public_python(directory: Path, *, whole: bool = False) -> Path:
    """Make the environment that the tests run in available to all users; return its folder of programs.

    The interpreter may lie in root's home. With its standard library it is copied then. A venv of it sees
    this environment's packages, and has its settings and the single-user server.

    Parameters
    ----------
    whole:
        Have the packages in the venv itself: further names of the same files, where that can be. So it is
        also where other users can't get to this environment.
    """
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = Path(os.path.realpath(sys.executable))
    if not reachable(interpreter):
        copy = directory / "python"
        (copy / "bin").mkdir(parents=True)
        # a shared libpython is found by its absolute path, which others can't read: make it a relative one
        old = f"{base}/lib".encode() + b"\0"
        program = interpreter.read_bytes().replace(old, b"$ORIGIN/../lib".ljust(len(old), b"\0"))
        (copy / "bin" / version).write_bytes(program)
        (copy / "bin" / version).chmod(0o755)
        unwanted = shutil.ignore_patterns(
            "test", "tests", "site-packages", "__pycache__", "config-*", "idlelib"
        )
        shutil.copytree(base / "lib" / version, copy / "lib" / version, ignore=unwanted, symlinks=True)
        for library in (base / "lib").glob("libpython*"):
            shutil.copy2(library, copy / "lib")
        interpreter = copy / "bin" / version
    environment = directory / "env"
    subprocess.run([str(interpreter), "-m", "venv", "--without-pip", str(environment)], check=True)
    site = environment / "lib" / version / "site-packages"
    source = Path(sysconfig.get_path("purelib"))
    if whole or not reachable(source):
        linked = subprocess.run(["cp", "-al", f"{source}/.", str(site)], capture_output=True, check=False)
        if linked.returncode:  # another file system
            subprocess.run(["cp", "-a", f"{source}/.", str(site)], check=True)
    else:
        (site / "tests.pth").write_text(f"import site; site.addsitedir({str(source)!r})\n")
    for name in ("share", "etc"):
        if (Path(sys.prefix) / name).is_dir():
            subprocess.run(["cp", "-a", str(Path(sys.prefix) / name), str(environment)], check=True)
    for name in ("jupyterhub-singleuser", "jupyter", "uv", "sudospawner"):
        source = Path(sys.executable).parent / name
        if not source.exists():
            continue
        text = source.read_bytes()
        target = environment / "bin" / name
        if text.startswith(b"#!"):
            text = f"#!{environment}/bin/python\n".encode() + text.partition(b"\n")[2]
        target.write_bytes(text)
        target.chmod(0o755)
    return environment / "bin"
