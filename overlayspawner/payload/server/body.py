"""What the body of a request may say: checked before anything is begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overlayspawner.payload import requirements
from overlayspawner.payload.actions import FIELDS
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact

ACTIONS = tuple(FIELDS)
LISTS = ("install", "uninstall", "upgrade")

MAX_REQUIREMENTS = 200
"""Entries of one list in a request."""

MAX_TEXT = 4096
"""Characters of a text."""

MODES = ("safe", "normal")


def job(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the action that a request asks for, and its fields.

    Raises
    ------
    OverlayError
        ``bad-request``, ``unknown-action``, ``bad-requirement``, ``option-not-allowed``.
    """
    action = body.get("action")
    if not isinstance(action, str):
        raise OverlayError("bad-request", "The field 'action' is missing or not a text.")
    if action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise OverlayError(
            "unknown-action", f"There is no action {shown(action)}.", f"The actions are {known}."
        )
    known_fields = {field for fields in FIELDS.values() for field in fields}
    for field in sorted(set(body) - {"action"}):
        if field not in known_fields:
            raise OverlayError("bad-request", f"There is no field {shown(field)} in a request for a job.")
        # an empty list says nothing, so that a form may send all three
        if field not in FIELDS[action] and not (field in LISTS and body[field] == []):
            raise OverlayError(
                "bad-request", f"The field {field!r} does not belong to the action {action!r}."
            )
    request = {field: _CHECKS.get(field, _texts)(body, field) for field in FIELDS[action]}
    if action in ("install", "uninstall", "import") and not request[FIELDS[action][0]]:
        field = FIELDS[action][0]
        raise OverlayError("bad-request", f"The field {field!r} is missing or empty: there is nothing to do.")
    _check_texts(request)
    return action, request


def plan(body: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a request wants to have planned: ``install``, ``uninstall`` and ``upgrade``.

    Raises
    ------
    OverlayError
        ``bad-request``, ``bad-requirement``, ``option-not-allowed``.
    """
    for field in sorted(set(body) - set(LISTS)):
        raise OverlayError("bad-request", f"There is no field {shown(field)} in a request for a plan.")
    request = {field: _texts(body, field) for field in LISTS}
    if not any(request.values()):
        raise OverlayError("bad-request", "There is nothing to plan: name at least one package.")
    _check_texts(request)
    return request


def given(body: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Return a file that a request sends: its name, its text, and the groups that are wanted.

    Raises
    ------
    OverlayError
        ``bad-request``.
    """
    for field in sorted(set(body) - {"name", "text", "groups"}):
        raise OverlayError("bad-request", f"There is no field {shown(field)} in a request to read a file.")
    name, text = _text(body, "name").replace("\\", "/").rpartition("/")[2], body.get("text")
    if not name or not isinstance(text, str):
        raise OverlayError("bad-request", "Send the file's name as 'name', and as 'text' what is in it.")
    return name, text, _texts(body, "groups")


def mode(body: Mapping[str, Any]) -> str:
    """Return the mode that a request asks for the next start.

    Raises
    ------
    OverlayError
        ``bad-request``.
    """
    if set(body) != {"mode"} or body["mode"] not in MODES:
        raise OverlayError("bad-request", f"Send one field 'mode': {' or '.join(MODES)}.")
    return str(body["mode"])


def shown(text: str) -> str:
    """Return a text of the request as an answer may repeat it: short, without credentials."""
    return repr(redact(text)[:40])


def _check_texts(request: Mapping[str, Any]) -> None:
    for text in request.get("install", ()):
        requirements.parse(text)
    for field in ("uninstall", "upgrade"):
        for text in request.get(field, ()):
            requirements.parse_name(text)


def _texts(body: Mapping[str, Any], field: str) -> list[str]:
    value = body.get(field, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise OverlayError("bad-request", f"The field {field!r} is not a list of texts.")
    if len(value) > MAX_REQUIREMENTS:
        raise OverlayError("bad-request", f"The field {field!r} has more than {MAX_REQUIREMENTS} entries.")
    return value


def _number(body: Mapping[str, Any], field: str) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise OverlayError("bad-request", f"The field {field!r} is not the number of a revision.")
    return value


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise OverlayError("bad-request", f"The field {field!r} is not a short text of one line.")
    return value.strip()


def _kinds(body: Mapping[str, Any], field: str) -> list[str]:
    from overlayspawner.payload.cleanup import chosen

    what = _texts(body, field)
    chosen(what)
    return what


def _flag(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise OverlayError("bad-request", f"The field {field!r} is neither true nor false.")
    return value


def _expect(body: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    """Return what a plan's ``expect`` says; see :func:`overlayspawner.payload.plan.expected`."""
    value = body.get(field)
    if value is None:
        return None
    wrong = OverlayError(
        "bad-request", f"The field {field!r} is not that of a plan.", "Send a plan's `expect` as it is."
    )
    if not isinstance(value, dict) or set(value) != {"new", "removes", "breaks", "bytes", "open"}:
        raise wrong
    pairs, size = value["breaks"], value["bytes"]
    ok = all(
        isinstance(value[key], dict) and all(isinstance(text, str) for text in value[key].values())
        for key in ("new", "removes")
    )
    ok = ok and isinstance(pairs, list) and isinstance(value["open"], bool)
    ok = ok and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
        for pair in pairs
    )
    if not ok or not (size is None or (type(size) is int and 0 <= size < 1 << 63)):
        raise wrong
    return value


_CHECKS: dict[str, Any] = {
    "revision": _number,
    "source": _text,
    "force": _flag,
    "expect": _expect,
    "what": _kinds,
    "dry_run": _flag,
}
