"""What the base is: the image's Python environment in which the Jupyter server runs.

Everything here is answered by the interpreter that runs it, in well under a millisecond: no subprocess, no
``importlib.metadata``, no walk. On the start path.
"""

from __future__ import annotations

import os
import sys

_LOCK_SUFFIXES = (".dist-info", ".egg-info", ".egg-link", ".pth")


class Base:
    """The image's Python environment.

    Parameters
    ----------
    executable:
        The interpreter of the base as the image names it, for example ``/opt/conda/bin/python3.11``.
    interpreter:
        The interpreter an env links to. It differs from ``executable`` where the base is itself a venv:
        a venv on a venv has to name the Python *below* it (PEP 405 knows no chains).
    prefix, base_prefix:
        ``sys.prefix`` and ``sys.base_prefix`` of the base.
    version:
        ``X.Y``.
    full_version:
        ``X.Y.Z`` as ``pyvenv.cfg`` has it.
    implementation, ext_suffix, machine, libc:
        What compiled extension modules must fit.
    site_dirs:
        The base's own directories of distributions, in the order of ``sys.path``.
    system_site:
        Where the base is a venv: whether it sees the Python below it.
    """

    def __init__(
        self,
        *,
        executable: str,
        interpreter: str,
        prefix: str,
        base_prefix: str,
        version: str,
        full_version: str,
        implementation: str,
        ext_suffix: str,
        machine: str,
        libc: str,
        site_dirs: list[str],
        system_site: bool = True,
    ) -> None:
        self.executable = executable
        self.interpreter = interpreter
        self.prefix = prefix
        self.base_prefix = base_prefix
        self.version = version
        self.full_version = full_version
        self.implementation = implementation
        self.ext_suffix = ext_suffix
        self.machine = machine
        self.libc = libc
        self.site_dirs = site_dirs
        self.system_site = system_site

    @property
    def is_venv(self) -> bool:
        """Whether the base is itself a virtual environment."""
        return self.prefix != self.base_prefix

    @property
    def key(self) -> str:
        """What an env must share with its base to run, as a directory name.

        Readable at the front, exact at the end: ``cpython-3.11-x86_64-glibc-1f0c6a2e``.
        """
        parts = [
            self.implementation,
            self.version,
            self.ext_suffix,
            self.machine,
            self.libc,
            self.prefix,
            os.path.realpath(self.interpreter),
        ]
        return f"{self.implementation}-{self.version}-{self.machine}-{self.libc}-{_digest(parts)[:8]}"

    def lock(self) -> str:
        """Return the base's fingerprint, which changes when its packages do.

        The *names* of metadata folders and ``.pth`` files say it all (a version is part of a name), at a
        hundredth of the cost of reading the metadata.
        """
        parts = [sys.version, self.ext_suffix, self.base_prefix, self.executable]
        for directory in self.site_dirs:
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            parts.append(directory)
            parts.extend(sorted(n for n in names if n.endswith(_LOCK_SUFFIXES)))
        return _digest(parts)[:32]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON shape (``server.json`` in the runtime dir)."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> Base:
        """Read what :meth:`to_dict` wrote."""
        return cls(**data)  # type: ignore[arg-type]


def _digest(parts: list[str]) -> str:
    # _sha1/_sha256 without hashlib: hashlib loads OpenSSL (4 ms)
    try:
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]  # 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:  # another implementation
            from hashlib import sha256  # type: ignore[no-redef,unused-ignore]
    return str(sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest())


def probe() -> Base:
    """Describe the environment of the running interpreter.

    Right when run as ``python -I`` (the bootstrap), and in a server process, where user site and the
    current directory are left out.
    """
    from _imp import extension_suffixes

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Base(
        executable=sys.executable,
        interpreter=getattr(sys, "_base_executable", "") or sys.executable,
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        version=version,
        full_version=".".join(map(str, sys.version_info[:3])),
        implementation=sys.implementation.name,
        ext_suffix=(extension_suffixes() or [""])[0],
        machine=os.uname().machine,
        libc=_libc(),
        site_dirs=_site_dirs(),
        system_site=_system_site(),
    )


def _site_dirs() -> list[str]:
    """The directories on ``sys.path`` that hold distributions, without user site, stdlib and our zip."""
    user_site = getattr(sys.modules.get("site"), "USER_SITE", None)
    stdlib = os.path.dirname(os.__file__)
    skip = {"", stdlib, os.path.join(stdlib, "lib-dynload"), user_site}
    if not sys.flags.isolated:
        # Python puts one more directory first: the script's own (`/opt/conda/bin` for a console script), or
        # the current one (`-m`). With it the base would have another fingerprint than at its start.
        script = sys.argv[0] if sys.argv else ""
        as_module = getattr(sys.modules.get("__main__"), "__spec__", None) is not None
        first = os.getcwd() if as_module else os.path.dirname(os.path.realpath(script))
        # `-c` has an empty string there
        if script not in ("", "-c") and sys.path.count(first) == 1:
            skip.add(first)
    out = []
    for entry in sys.path:
        if entry in skip or entry in out or entry.endswith((".zip", ".pyz")) or not os.path.isdir(entry):
            continue
        out.append(entry)
    return out


def _system_site() -> bool:
    if sys.prefix == sys.base_prefix:
        return True
    try:
        with open(os.path.join(sys.prefix, "pyvenv.cfg"), encoding="utf-8") as f:
            for line in f:
                key, _, value = line.partition("=")
                if key.strip().lower() == "include-system-site-packages":
                    return value.strip().lower() == "true"
    except (OSError, UnicodeDecodeError):
        pass
    return False


def _libc() -> str:
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        name = None
    if name:
        return "glibc"
    return "musl" if sys.platform == "linux" else sys.platform
