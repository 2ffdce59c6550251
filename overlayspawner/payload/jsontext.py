"""JSON without the package ``json``: that one brings ``re`` and ``enum``, as much as all of our own start.

The interpreter's own accelerator does the work in both; where it is missing or has changed, ``json`` is used.
On the start path.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\n\r"


class _Settings:
    """What the scanner asks the decoder that it is made for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # NaN and Infinity, as in json
    memo: dict[str, str] = {}


def loads(text: str) -> Any:
    """Read a JSON text.

    Raises
    ------
    ValueError
        It is none, or has too many levels.
    """
    stripped = text.strip(_SPACE)
    try:
        from _json import make_scanner

        value, end = make_scanner(_Settings)(stripped, 0)  # type: ignore[arg-type]
        if end == len(stripped):
            return value
    except Exception:  # noqa: S110
        pass
    # Whatever is unusual is for json to say: without it, the scanner has no class of error to raise.
    import json

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many levels") from None


def dumps(value: Any) -> str:
    """Return the JSON text of a value, on one line.

    Raises
    ------
    TypeError
        The value holds something that JSON has no word for.
    """
    try:
        from _json import encode_basestring_ascii, make_encoder

        encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)
        return "".join(encode(value, 0))
    except Exception:
        import json

        return json.dumps(value)


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} has no JSON form")
