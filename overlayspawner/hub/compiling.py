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
from types import CodeType
from typing import Any

_PARTS = (
    "co_consts",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_filename",
    "co_name",
    "co_qualname",
    "co_linetable",
    "co_exceptiontable",
)
"""Where a code object has others; not all of them are there in every version."""


def compiled(modules: list[tuple[str, str, bool, str]]) -> bytes:
    """Return the modules with code in place of their text, in the format of this Python's ``marshal``.

    The same modules give the same bytes in any process of this version. ``marshal`` notes which objects can
    be referred to later: those that something else holds at the moment. What holds them differs from process
    to process, so here all are held. (Its formats before 3 note nothing, but load half as fast, and have no
    slices, which are constants since Python 3.14.)

    Parameters
    ----------
    modules:
        Name, path, whether it is a package, and text of each.
    """
    # Noted too is which strings are interned. Those that a process has only once may be, or not: so they are,
    # the texts of one character, and those that come from elsewhere.
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
    # What compiling leaves is not yet what loading gives: equal strings become one.
    loaded = marshal.loads(marshal.dumps(codes))  # noqa: S302
    held: list[Any] = []
    _hold(loaded, held)
    data = marshal.dumps(loaded)
    held.clear()
    return data


def _hold(value: Any, held: list[Any]) -> None:
    held.append(value)
    if isinstance(value, (list, tuple, frozenset)):
        for entry in value:
            _hold(entry, held)
    elif isinstance(value, CodeType):
        for part in _PARTS:
            if hasattr(value, part):
                _hold(getattr(value, part), held)


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
