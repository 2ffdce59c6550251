"""Make an ordinary, relocated Python prefix out of Debian's python3.11.

A conda prefix can't be had from Debian's packages or from PyPI, but what matters of one can: an
interpreter whose `sys.prefix` is its own directory, `site-packages` (not `dist-packages`) below
it, and pip installing there. Debian's interpreter finds its library beside itself when it is
copied; what is left are Debian's own edits to `site` and `sysconfig`, undone here.

`site` is frozen: its code lies in the interpreter's file, and `site.py` is only read when freezing is
switched off. The name of the directory is a constant there, and the two names are equally long.

Each edit must match exactly once, so a Debian that changes these files stops the build instead
of giving a prefix that is subtly different.
"""

from __future__ import annotations

import os
import re
import shutil
import sys

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
DEBIAN_NAME, USUAL_NAME = b"dist-packages", b"site-packages"

DEFAULT_OLD = re.compile(
    r"^ {4}if sys\.base_prefix != sys\.prefix or hasattr\(sys, \"real_prefix\"\):\n"
    r"(?=.*DEB_PYTHON_INSTALL_LAYOUT).*?(?=^ {4}return \{)",
    re.DOTALL | re.MULTILINE,
)
DEFAULT_NEW = "    prefix_scheme = 'posix_prefix'\n\n"

SCHEME_OLD = r"^ {4}'%s': \{\n.*?^ {8}\},\n"


def edit(path: str, *changes: tuple[re.Pattern[str], str]) -> None:
    """Apply each change, which must match exactly once, to the file."""
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    for pattern, new in changes:
        text, count = pattern.subn(lambda _match, new=new: new, text)
        if count != 1:
            raise SystemExit(f"{path}: {pattern.pattern!r} matched {count} times, not once")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def rename_site_directory(path: str) -> None:
    """Write site-packages wherever the file says dist-packages."""
    with open(path, "rb") as stream:
        data = stream.read()
    if DEBIAN_NAME not in data:
        raise SystemExit(f"{path}: does not name {DEBIAN_NAME.decode()}")
    with open(path, "wb") as stream:
        stream.write(data.replace(DEBIAN_NAME, USUAL_NAME))


def main(prefix: str) -> None:
    library = os.path.join(prefix, "lib", VERSION)
    os.makedirs(os.path.join(prefix, "bin"))
    shutil.copy2(f"/usr/bin/{VERSION}", os.path.join(prefix, "bin", VERSION))
    for name in ("python", "python3"):
        os.symlink(VERSION, os.path.join(prefix, "bin", name))
    shutil.copytree(
        f"/usr/lib/{VERSION}",
        library,
        symlinks=True,
        # Byte code is stamped with the old files' times, and the marker would forbid pip.
        ignore=shutil.ignore_patterns("__pycache__", "EXTERNALLY-MANAGED", "sitecustomize.py"),
    )
    os.makedirs(os.path.join(library, "site-packages"))

    rename_site_directory(os.path.join(prefix, "bin", VERSION))
    rename_site_directory(os.path.join(library, "site.py"))
    schemes = [
        (re.compile(SCHEME_OLD % name, re.DOTALL | re.MULTILINE), "")
        for name in ("posix_local", "deb_system")
    ]
    edit(
        os.path.join(library, "sysconfig.py"),
        (DEFAULT_OLD, DEFAULT_NEW),
        (re.compile(re.escape("'posix_home', 'posix_local', 'deb_system')")), "'posix_home')"),
        *schemes,
    )
    # The build's own variables name /usr in many values; sysconfig corrects only a few of them.
    for entry in os.scandir(library):
        if entry.name.startswith("_sysconfigdata_") and not entry.is_symlink():
            with open(entry.path, encoding="utf-8") as stream:
                text = stream.read()
            with open(entry.path, "w", encoding="utf-8") as stream:
                stream.write(re.sub(r"(['\"])/usr(?=[/'\"])", rf"\1{prefix}", text))


if __name__ == "__main__":
    main(sys.argv[1])
