"""What the index has, asked about one project at a time and remembered for a while. Only reads.

The installer's own indexes and credentials. The list of all projects is never asked for.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import urljoin, urlsplit

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.gate import policy_of
from overlayspawner.payload.installer import choose, offers
from overlayspawner.payload.installer.asking import Answer, Index
from overlayspawner.payload.installer.index import limits_of, pip_env
from overlayspawner.payload.installer.offers import Offer
from overlayspawner.payload.requirements import normalise

FRESH = 600.0
"""Seconds for which an answer is good."""

FRESH_FAILURE = 15.0
"""Seconds for which an index that could not be asked is not asked again by what a user types."""

SOON = 3.0
"""Seconds that somebody who types waits for the index."""

AT_ONCE = 8
"""Names that are looked at for those who type at the same time."""

MAX_KEPT = 128
"""Projects that are remembered."""

MAX_METADATA = 65_536
"""Bytes of METADATA that are read: the summary is near its beginning."""

MAX_SUMMARY = 500
"""Characters."""

MAX_URL = 1_000

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?\Z", re.ASCII)
_WRITTEN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?\Z", re.ASCII)
_PAGES = ("homepage", "home", "documentation", "docs", "source", "repository")


@dataclass
class Project:
    """What the indexes say about a project.

    Parameters
    ----------
    state:
        ``found``, ``missing``, ``denied``, ``unreachable``; ``skipped`` where there is no index to ask.
    offers:
        Its versions, the newest first.
    host, why:
        Which index could not be asked, and why.
    """

    state: str
    offers: list[Offer] = field(default_factory=list)
    host: str = ""
    why: str = ""
    page: str = ""
    about: Optional[tuple[str, str]] = None

    @property
    def newest(self) -> Optional[Offer]:
        """The version that would be taken."""
        return offers.newest(self.offers)


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.until = 0.0
        self.project = Project("unreachable")


class Catalogue:
    """The index as one server, or one command, sees it; for all threads.

    Parameters
    ----------
    context:
        Returns the server's view of its overlay.
    """

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._down = (0.0, Project("unreachable"))
        self._glances = 0

    def glance(self, name: str) -> Project:
        """Return what the indexes say about a project, for somebody who types: soon, or ``unreachable``.

        An index that did not answer a moment ago is not asked; what it says too late is there next time.

        Parameters
        ----------
        name:
            As for :meth:`project`.

        Raises
        ------
        OverlayError
            As :meth:`project`.
        """
        with self._lock:
            entry = self._entries.get(name)
            until, down = self._down
            known = entry is not None and time.monotonic() < entry.until
            if not known and (time.monotonic() < until or self._glances >= AT_ONCE):
                return down
            self._glances += 1
        out: list[Project] = []
        errors: list[OverlayError] = []

        def look() -> None:
            try:
                out.append(self.project(name, about=True))
            except OverlayError as e:
                errors.append(e)
            finally:
                with self._lock:
                    self._glances -= 1

        thread = threading.Thread(target=look, daemon=True, name="overlay-glance")
        try:
            thread.start()
        except RuntimeError:  # no more of them: what never began does not count for ever
            with self._lock:
                self._glances -= 1
            return Project("unreachable")
        thread.join(SOON)
        if errors:
            raise errors[0]
        return out[0] if out else Project("unreachable")

    def project(self, name: str, *, about: bool = False) -> Project:
        """Return what the indexes say about a project. Bounded in time and bytes.

        Parameters
        ----------
        name:
            Normalised; what can't be a name is ``missing``.
        about:
            Ask for its summary and home page too, with a second request.

        Raises
        ------
        OverlayError
            ``policy``: a rule of the hub can't be understood.
        """
        if not _NAME.match(name):
            return Project("missing")
        with self._lock:
            entry = self._entries.setdefault(name, _Entry())
            self._entries.move_to_end(name)
            while len(self._entries) > MAX_KEPT:
                self._entries.popitem(last=False)
        with entry.lock:
            index = None
            if time.monotonic() >= entry.until:
                index = Index(environment(self._context()))
                entry.project = _ask(self._context(), index, name)
                failed = entry.project.state in ("unreachable", "denied")
                entry.until = time.monotonic() + (FRESH_FAILURE if failed else FRESH)
                if entry.project.state == "unreachable":  # one that denies a name may have all others
                    self._down = (entry.until, entry.project)
            project = entry.project
            if about and project.state == "found" and project.about is None:
                try:
                    project.about = _about(index or Index(environment(self._context())), name, project)
                except ValueError:  # an address that is none
                    project.about = "", ""
            return project


def environment(ctx: Context) -> Mapping[str, str]:
    """Return the environment that the installer asks its index with."""
    try:
        return choose(ctx).env(ctx)
    except OverlayError:
        return pip_env(ctx)  # to look takes no installer


def _ask(ctx: Context, index: Index, name: str) -> Project:
    policy, limits = policy_of(ctx), limits_of(ctx)
    if not index.urls or index.offline:
        return Project("skipped")
    answers = index.ask(name)
    found = [answer for answer in answers if answer.state == "found"]
    if not found:
        # one index that could not be asked may have it
        bad = next((a for a in answers if a.state in ("unreachable", "denied")), None)
        return Project("missing") if bad is None else Project(bad.state, host=bad.host, why=bad.why)
    files = {file.name: file for answer in reversed(found) for file in answer.files}
    there = offers.offers(name, files.values(), ctx.base.full_version, policy, limits.before)
    return Project("found", there, page=_page_of(found, there))


def _page_of(answers: list[Answer], there: list[Offer]) -> str:
    """Return the address of the page that has the newest version's file."""
    best = offers.newest(there)
    for answer in answers:
        if best is not None and best.file in answer.files:
            return answer.page
    return answers[0].page


def _about(index: Index, name: str, project: Project) -> tuple[str, str]:
    """Return summary and home page, as far as they can be had."""
    best = project.newest
    headers: list[tuple[str, str]] = []
    if best is not None and best.file.metadata:
        url = urljoin(project.page, best.file.url)
        parts = urlsplit(url)._replace(query="", fragment="")
        raw = index.read(parts.geturl() + ".metadata", MAX_METADATA, part=True)
        headers = _headers(raw.decode(errors="replace"))
    elif project.page.rstrip("/").endswith(f"/simple/{name}"):
        # PyPI, and what imitates it
        page = project.page.rstrip("/")[: -len(f"simple/{name}")] + f"pypi/{name}/json"
        headers = _legacy(index.read(page))
    summary = next((value for key, value in headers if key == "summary"), "")
    urls = {key.strip().lower(): value.strip() for key, _, value in _project_urls(headers)}
    found = [urls.get(key, "") for key in _PAGES]
    found += [value for key, value in headers if key == "home-page"]
    return _line(summary), next(filter(None, map(_web, found)), "")


def _project_urls(headers: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [value.partition(",") for key, value in headers if key == "project-url"]


def _headers(text: str) -> list[tuple[str, str]]:
    out = []
    for line in text.splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            out.append((key.strip().lower(), value.strip()))
    return out


def _legacy(raw: bytes) -> list[tuple[str, str]]:
    """Read PyPI's own JSON as if it were METADATA."""
    try:
        info = json.loads(raw)["info"]
        out = [("summary", info.get("summary")), ("home-page", info.get("home_page"))]
        out += [("project-url", f"{key},{value}") for key, value in (info.get("project_urls") or {}).items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [(key, value) for key, value in out if isinstance(value, str)]


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_SUMMARY]


def _web(url: str) -> str:
    """Return the address of a web page, or ``""``: whoever made a package may write anything there."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    fine = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    return url if fine and url.isprintable() and " " not in url and len(url) <= MAX_URL else ""


def refusal(project: Project, name: str, near: list[str]) -> OverlayError:
    """Return the error for a project that is not found.

    Parameters
    ----------
    near:
        Names that are close to it.
    """
    from overlayspawner.payload.installer.errors import says

    code = {"missing": "no-such-package", "denied": "index-auth"}.get(project.state, "index-unreachable")
    sentence, hint, status = says(code)
    if project.state == "missing":
        sentence = f"There is no package {name} in the package index."
        hint = f"Did you mean {' or '.join(near)}?" if near else hint
    elif project.state == "skipped":
        sentence, hint = "This server has no package index to ask.", "Ask your administrator."
    elif project.host:
        sentence = f"The package index at {project.host} could not be asked: {project.why or 'no answer'}."
    return OverlayError(code, sentence, hint, status=status)


def details(ctx: Context, catalogue: Catalogue, name: str) -> dict[str, Any]:
    """Return a project in the shape of the REST interface.

    Parameters
    ----------
    name:
        As the user wrote it.

    Raises
    ------
    OverlayError
        ``bad-requirement`` for what is no name, ``no-such-package``, ``index-auth``, ``index-unreachable``,
        ``policy``.
    """
    from overlayspawner.payload.installer import similar
    from overlayspawner.payload.search import installed

    if not _WRITTEN.match(name):
        raise OverlayError("bad-requirement", "That is not the name of a package.")
    wanted = normalise(name)
    there = installed(ctx)
    project = catalogue.project(wanted, about=True)
    if project.state != "found":
        raise refusal(project, wanted, similar.close(wanted, there) if project.state == "missing" else [])
    best = project.newest
    summary, url = project.about or ("", "")
    if not url and urlsplit(project.page).hostname == "pypi.org":
        url = f"https://pypi.org/project/{wanted}/"
    places = {dist.where: dist.version for dist in there.get(wanted, ())}
    policy = policy_of(ctx)
    item = policy.refusal(wanted)
    return {
        "name": wanted,
        "summary": summary or next((dist.summary for dist in there.get(wanted, ())), ""),
        "url": url,
        "newest": best.version if best else None,
        "requires_python": best.file.requires_python if best else "",
        "installed": {
            "overlay": places.get("overlay"),
            "base": places.get("base"),
            "user_site": places.get("user-site"),
        },
        "blocked": policy.sentence(item) if item else None,
        "versions": [offer.to_dict() for offer in project.offers],
    }
