"""Small wheels and sdists, written with the standard library alone.

The same arguments give the same bytes, so hashes may be compared between runs and machines.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

EPOCH = (2020, 2, 2, 0, 0, 0)
"""The time stamp of every file in every archive."""


def normalise(name: str) -> str:
    """Return a project's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _escape(name: str) -> str:
    return normalise(name).replace("-", "_")


def metadata_text(
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    requires_python: str = "",
    summary: str = "",
    description: str = "",
) -> str:
    """Return a METADATA file.

    Parameters
    ----------
    requires:
        PEP 508 requirements.
    extras:
        Name of an extra → its requirements.
    """
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines.append(f"Summary: {summary or f'A test package called {name}.'}")
    if requires_python:
        lines.append(f"Requires-Python: {requires_python}")
    lines.extend(f"Requires-Dist: {requirement}" for requirement in requires)
    for extra, requirements in (extras or {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines.extend(f'Requires-Dist: {requirement}; extra == "{extra}"' for requirement in requirements)
    return "\n".join(lines) + "\n" + (f"\n{description}\n" if description else "")


def make_wheel(
    directory: Path | str,
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    scripts: Mapping[str, str] | None = None,
    data: Mapping[str, str | bytes] | None = None,
    requires_python: str = "",
    summary: str = "",
    description: str = "",
    metadata: str = "",
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel and return its path.

    Parameters
    ----------
    directory:
        Where to write it; made when missing.
    files:
        Path in site-packages → content. Without it: one module named after the project, with ``__version__``.
    scripts:
        Name of a console script → ``module:function``.
    data:
        Path below the environment's prefix, for example ``share/thing/file.txt`` → content.
    metadata:
        A whole METADATA file instead of the one made from the other arguments.
    """
    module = _escape(name)
    if files is None:
        files = {f"{module}.py": f'__version__ = "{version}"\n'}
    stem = f"{module}-{version}"
    info = f"{stem}.dist-info"
    members: dict[str, bytes] = {path: _bytes(content) for path, content in files.items()}
    for path, content in (data or {}).items():
        members[f"{stem}.data/data/{path}"] = _bytes(content)
    text = metadata or metadata_text(
        name,
        version,
        requires=requires,
        extras=extras,
        requires_python=requires_python,
        summary=summary,
        description=description,
    )
    members[f"{info}/METADATA"] = text.encode()
    members[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    )
    if scripts:
        points = "".join(f"{script} = {target}\n" for script, target in scripts.items())
        members[f"{info}/entry_points.txt"] = f"[console_scripts]\n{points}".encode()
    record = "".join(f"{path},sha256={_digest(raw)},{len(raw)}\n" for path, raw in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    target = Path(directory) / f"{stem}-{tag}.whl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, raw in members.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, raw)
    return target


# The build backend of the sdists, part of each of them: nothing else has to be installed to build one.
_BACKEND = """\
import base64, hashlib, os, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def _read(name):
    with open(os.path.join(HERE, name), "rb") as file:
        return file.read()


def _fields():
    lines = _read("PKG-INFO").decode().splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def get_requires_for_build_wheel(config_settings=None):
    return []


def build_wheel(directory, config_settings=None, metadata_directory=None):
    if os.path.exists(os.path.join(HERE, "REFUSE")):
        raise SystemExit("this package refuses to be built")
    if os.path.exists(os.path.join(HERE, "BUILD")):
        exec(compile(_read("BUILD"), "setup.py", "exec"), {"HERE": HERE})
    fields = _fields()
    module = fields["Name"].replace("-", "_")
    stem = module + "-" + fields["Version"]
    info = stem + ".dist-info/"
    members = {
        module + ".py": _read(module + ".py"),
        info + "METADATA": _read("PKG-INFO"),
        info + "WHEEL": b"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = ""
    for path, raw in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
        record += "%s,sha256=%s,%d\\n" % (path, digest, len(raw))
    members[info + "RECORD"] = (record + info + "RECORD,,\\n").encode()
    name = stem + "-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, raw in members.items():
            archive.writestr(path, raw)
    return name
"""


def make_sdist(
    directory: Path | str,
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    requires_python: str = "",
    refuses: bool = False,
    runs: str = "",
    builds: str = "",
    extra: Mapping[str, str] | None = None,
) -> Path:
    """Write an sdist (PEP 517, its own backend) with one module named after the project; return its path.

    Parameters
    ----------
    refuses:
        Its build fails.
    runs:
        Code that its build backend runs as soon as it is imported.
    builds:
        Code that its build runs; ``HERE`` is where it is unpacked.
    extra:
        Further files: path to content.
    """
    module = _escape(name)
    stem = f"{module}-{version}"
    members = {
        "PKG-INFO": metadata_text(name, version, requires=requires, requires_python=requires_python),
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "_backend"\nbackend-path = ["."]\n',
        "_backend.py": f"{runs}\n{_BACKEND}" if runs else _BACKEND,
        f"{module}.py": f'__version__ = "{version}"\n',
        **(extra or {}),
    }
    if builds:
        members["BUILD"] = builds
    if refuses:
        members["REFUSE"] = ""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in members.items():
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size = len(content.encode())
            entry.mtime = 1_580_601_600
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content.encode()))
    target = Path(directory) / f"{stem}.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
        packed.write(raw.getvalue())
    return target


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _digest(raw: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
