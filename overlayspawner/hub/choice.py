"""What a user chose for one start: safe mode, or a reset. Pure.

A choice travels through JupyterHub with the user's options, which the hub stores for the next start too. So
it is taken out of them the moment the spawner gets them. It has a *nonce*, by which it is followed once,
however often hub or container are started again.
"""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import partial
from gettext import dgettext
from typing import Any

from markupsafe import Markup
from tornado import web

OPTION = "overlay"
"""Name of the option, of the form's field and of the link's argument."""

_LINK_NAMES = (OPTION, f"opt-{OPTION}")  # JupyterHub 6 takes the prefix away, 5 does not
_CHOICES = ("normal", "safe", "reset")
_NONCE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")  # it may come from a user's request, and goes into the spec

_ = partial(dgettext, "overlayspawner")


@dataclass(frozen=True)
class Choice:
    """What is different in one start.

    Parameters
    ----------
    what:
        ``safe`` or ``reset``.
    nonce:
        Tells this choice from all others.
    """

    what: str
    nonce: str

    def to_option(self) -> dict[str, str]:
        """Return what stands in the user's options, in which there is no place for a class."""
        return {"what": self.what, "nonce": self.nonce}


def new(what: str) -> Choice:
    """Return a choice that was made now."""
    return Choice(what, secrets.token_hex(8))


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], Choice | None]:
    """Return the options without the choice, and the choice.

    Parameters
    ----------
    options:
        The user's. In them a choice is what :meth:`Choice.to_option` made or, in a request to the hub's REST
        interface, plain ``"safe"`` or ``"reset"``. Everything else of that name is the administrator's own.
    """
    rest = dict(options)
    value = rest.get(OPTION)
    if isinstance(value, str) and value in _CHOICES:
        del rest[OPTION]
        return rest, None if value == "normal" else new(value)
    if isinstance(value, Mapping) and set(value) == {"what", "nonce"} and value["what"] in _CHOICES[1:]:
        nonce = value["nonce"]
        if isinstance(nonce, str) and _NONCE.match(nonce):
            del rest[OPTION]
            return rest, Choice(str(value["what"]), nonce)
    return rest, None


def from_form(form: Mapping[str, Any]) -> tuple[dict[str, Any], Choice | None]:
    """Return a form's fields without ours, and the choice made in it.

    Parameters
    ----------
    form:
        Field to the list of its values.
    """
    rest = dict(form)
    values = rest.get(OPTION)
    if not isinstance(values, (list, tuple)) or len(values) != 1 or values[0] not in _CHOICES:
        return rest, None
    del rest[OPTION]
    return rest, None if values[0] == "normal" else new(values[0])


def from_query(query: Mapping[str, Any]) -> tuple[dict[str, Any], Choice | None]:
    """Return a link's arguments without ours, and the choice made by it.

    Raises
    ------
    tornado.web.HTTPError
        400, for a reset: a link in somebody else's page must not take anything away.
    """
    rest = dict(query)
    chosen = None
    for name in _LINK_NAMES:
        values = rest.get(name)
        if not isinstance(values, (list, tuple)):
            continue
        if "reset" in values:
            raise _no_reset()
        if set(values) <= {"safe", "normal"}:
            del rest[name]
            if "safe" in values:
                chosen = new("safe")
    return rest, chosen


def _no_reset() -> web.HTTPError:
    return web.HTTPError(400, "An overlay can't be reset by a link. Use the form, or `overlay reset`.")


def of_link(options: Any) -> Any:
    """Return what an administrator's function made of a link's arguments, or an awaitable of it.

    It may have made a choice out of what was none: spaces stripped, JSON read.

    Raises
    ------
    tornado.web.HTTPError
        400, for a reset.
    """
    if inspect.isawaitable(options):
        return _of_link_when_there(options)
    if isinstance(options, Mapping):
        chosen = split(options)[1]
        if chosen is not None and chosen.what == "reset":
            raise _no_reset()
    return options


async def _of_link_when_there(options: Awaitable[Any]) -> Any:
    return of_link(await options)


def with_choice(options: Any, choice: Choice | None) -> Any:
    """Return options (or, where they are awaited, an awaitable of them) with a choice in them."""
    if choice is None:
        return options
    if inspect.isawaitable(options):
        return _when_there(options, choice)
    return {**options, OPTION: choice.to_option()} if isinstance(options, Mapping) else options


async def _when_there(options: Awaitable[Any], choice: Choice) -> Any:
    return with_choice(await options, choice)


def fragment() -> str:
    """Return the HTML in which a user chooses, to be put into a form."""
    option = Markup('<option value="{}"{}>{}</option>')
    texts = {
        "normal": _("With the packages you installed"),
        "safe": _("Without the packages you installed, this time (safe mode)"),
        "reset": _("Start over: move the packages you installed aside"),
    }
    options = Markup("").join(
        option.format(value, Markup(" selected") if value == "normal" else "", text)
        for value, text in texts.items()
    )
    return str(
        Markup(
            '<div class="form-group mt-3"><label for="overlay-choice">{}</label>'
            '<select class="form-control form-select" id="overlay-choice" name="{}">{}</select></div>'
        ).format(_("Your packages"), OPTION, options)
    )


def in_form(form: str, mode: str) -> str:
    """Return a form with our field in it.

    Parameters
    ----------
    form:
        The administrator's; ``""`` where there is none.
    mode:
        ``auto``, ``always`` or ``never`` (``overlay_form``).
    """
    taken = f'name="{OPTION}"' in form or f"name='{OPTION}'" in form
    if mode == "never" or taken or (mode == "auto" and not form.strip()):
        return form
    return f"{form}\n{fragment()}".strip()


def offer(url: str, text: str) -> str:
    """Return the HTML of a failed start: what happened, and a link to safe mode.

    Parameters
    ----------
    url:
        Of the link.
    text:
        What happened; anything may be in it.
    """
    return str(
        Markup('<span style="white-space: pre-wrap">{}</span><br><a href="{}">{}</a>').format(
            text, url, _("Start without the packages you installed (safe mode)")
        )
    )
