"""Compiles the modules of the start for the Python that runs this.

The hub imports it. When a release is made, ``scripts/bytecode.py`` has each supported Python run its text:
only the Python that will load a code object can write it. So this is written for Python 3.9, and imports
nothing of ours.
"""

from __future__ import annotations

import importlib.util
import marshal
import platform
import sys


def compiled(modules: list[tuple[str, str, bool, str]]) -> bytes:
    """Return the modules with code in place of their text, in the format of this Python's ``marshal``.

    The same modules give the same bytes in any process of this version, though ``marshal`` notes two things
    that depend on the process: which strings are interned, and which objects something else holds at the
    moment, because these may be referred to later. (Its formats before 3 note neither. But they load half as
    fast, and have no slices, which are constants since Python 3.14.)

    Parameters
    ----------
    modules:
        Name, path, whether it is a package, and text of each.
    """
    # Strings that come from elsewhere may be interned or not, and those of one character, which a process has
    # only once. So here all of them are.
    for number in range(256):
        sys.intern(chr(number))
    codes = [
        (
            sys.intern(name),
            sys.intern(path),
            package,
            compile(text, sys.intern(path), "exec", dont_inherit=True, optimize=0),
        )
        for name, path, package, text in modules
    ]
    # An interned string may be held by anything in the process. Those of what is loaded here are all held: by
    # `codes`, which must be kept until the end. The rest of it is new, and held by nothing outside.
    loaded = marshal.loads(marshal.dumps(codes))  # noqa: S302
    return marshal.dumps(loaded)


if __name__ == "__main__":
    # In words: what an odd interpreter prints besides is then seen not to belong to it.
    result = [
        platform.python_implementation(),
        "{}.{}.{}".format(*sys.version_info[:3]),
        sys.version_info.releaselevel,
        importlib.util.MAGIC_NUMBER.hex(),
        compiled(marshal.loads(sys.stdin.buffer.read())).hex(),  # noqa: S302
    ]
    print("compiled", *result, flush=True)
