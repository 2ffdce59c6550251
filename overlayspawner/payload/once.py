"""What is made of files, kept for as long as these stay as they are. In memory, and only reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar, Union

T = TypeVar("T")


class Once(Generic[T]):
    """Values by path. Whoever gets one does not change it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, T]] = {}

    def get(self, path: str, mark: object, make: Callable[[], T]) -> T:
        """Return the value of a path, made anew when there is none of this mark.

        Parameters
        ----------
        mark:
            What changes with the file: its :func:`identity`, or less where that is enough.
        make:
            Returns the value; what it raises is passed on, and nothing is kept.
        """
        found = self._known.get(path)
        if found is None or found[0] != mark:
            found = self._known[path] = (mark, make())
        return found[1]

    def put(self, path: str, value: T) -> None:
        """Keep the value of a file that was just written; without the file, nothing."""
        try:
            self._known[path] = (identity(path), value)
        except OSError:
            self._known.pop(path, None)


def identity(target: Union[str, int]) -> tuple[int, ...]:
    """Return what tells a file (its path, or a descriptor) from what replaces it, or is written into it.

    Raises
    ------
    OSError
        There is none.
    """
    info = os.stat(target)
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size
