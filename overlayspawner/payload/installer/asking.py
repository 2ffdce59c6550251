"""Asks an index what it has of a project: bounded in time and bytes, and never fails.

The same indexes, credentials, proxies and certificates as the installer's, told by its environment. JSON (PEP
691) where the index has it, else its HTML pages (PEP 503).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import unquote, urljoin, urlsplit

from overlayspawner.payload.installer.words import reason
from overlayspawner.payload.requirements import normalise

PATIENCE = 4.0
"""Seconds that one answer may take, all told."""

MAX_BYTES = 8_000_000
"""Of one answer. The largest projects of PyPI have pages of a few megabytes."""

MAX_FILES = 20_000

MAX_LINK = 4_000
"""Characters of one link's attributes."""

_TRUE = ("1", "true", "yes", "on")
_DEFAULT = "https://pypi.org/simple/"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LINK = re.compile(r"<a\b", re.IGNORECASE)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(?:Z|\+00:00)\Z", re.ASCII)
_ATTRIBUTE = re.compile(r"""([\w-]+)\s*(?:=\s*(?:"([^"]*)"|'([^']*)'))?""")


@dataclass(frozen=True)
class File:
    """One file of a project.

    Parameters
    ----------
    name:
        Its file name.
    requires_python:
        As the index tells; ``""`` for all.
    yanked:
        Whether it was taken back.
    size:
        Bytes; ``None`` where the index does not tell.
    uploaded:
        When, as the index tells (UTC); ``""`` where it does not.
    url:
        Where it is, as the page says: it may be relative to the page's address.
    metadata:
        Whether its METADATA is there too, beside it (PEP 658).
    """

    name: str
    requires_python: str = ""
    yanked: bool = False
    size: Optional[int] = None
    uploaded: str = ""
    url: str = ""
    metadata: bool = False


@dataclass
class Answer:
    """What an index said.

    Parameters
    ----------
    files:
        Of the project.
    state:
        ``found``, ``missing`` (there is no such project), ``denied`` or ``unreachable``.
    host:
        Of the index.
    why:
        Why it could not be asked.
    page:
        Where the answer came from.
    """

    state: str
    host: str
    files: list[File] = field(default_factory=list)
    why: str = ""
    page: str = ""


class Index:
    """The indexes of an installer.

    Parameters
    ----------
    environ:
        What the installer runs with.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.urls = indexes(environ)
        self._answers: dict[str, list[Answer]] = {}

    @property
    def hosts(self) -> list[str]:
        """Host and port of each, without credentials."""
        return list(dict.fromkeys(filter(None, map(host_of, self.urls))))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords in their addresses, as they may be written."""
        out: list[str] = []
        for url in self.urls:
            password = _userinfo(url)[1]
            out += [password, unquote(password)]
        return tuple(sorted({word for word in out if len(word) >= 4}, key=len, reverse=True))

    @property
    def offline(self) -> bool:
        """Whether the installer was told to use no network."""
        return self._environ.get("UV_OFFLINE", "").lower() in _TRUE

    def ask(self, name: str) -> list[Answer]:
        """Return what each index says about a project; asked once only."""
        if name not in self._answers:
            asked = [_begin(url, name, self._environ) for url in self.urls[:4]]
            until = time.monotonic() + PATIENCE
            self._answers[name] = [wait(max(0.0, until - time.monotonic())) for wait in asked]
        return self._answers[name]

    def read(self, url: str, limit: int = MAX_BYTES, *, part: bool = False) -> bytes:
        """Return what is at an address that an index has told, or ``b""``. Never raises.

        Parameters
        ----------
        limit:
            Bytes; more are nothing, or with ``part`` left out.
        """
        own = next((mine for mine in self.urls if host_of(mine) == host_of(url)), url)
        out: list[bytes] = []

        def work() -> None:
            with contextlib.suppress(Exception):
                out.append(_open(url, own, self._environ, limit, part)[1])

        thread = threading.Thread(target=work, daemon=True, name="ask-index")
        thread.start()
        thread.join(PATIENCE)
        return out[0] if out else b""


def indexes(environ: Mapping[str, str]) -> list[str]:
    """Return the addresses of the indexes that an installer with this environment asks."""
    if any(environ.get(key, "").lower() in _TRUE for key in ("UV_NO_INDEX", "PIP_NO_INDEX")):
        return []
    pip = any(key.startswith("PIP_") for key in environ)
    if pip:
        first = environ.get("PIP_INDEX_URL", "")
        more = environ.get("PIP_EXTRA_INDEX_URL", "")
    else:
        first = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL", "")
        more = " ".join([environ.get("UV_INDEX", ""), environ.get("UV_EXTRA_INDEX_URL", "")])
    urls = [re.sub(r"^[\w.-]+=(?=\w+://)", "", word) for word in [first or _DEFAULT, *more.split()]]
    return [url for url in dict.fromkeys(urls) if urlsplit(url).scheme in ("http", "https")]


def host_of(url: str) -> str:
    """Return host and port of a URL, without credentials."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _userinfo(url: str) -> tuple[str, str]:
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return user, password


def _begin(url: str, name: str, environ: Mapping[str, str]) -> Callable[[float], Answer]:
    """Ask in a thread; return what waits for the answer.

    Nothing else bounds the time that looking up a name takes, or a trickled header.
    """
    out: list[Answer] = []

    def work() -> None:
        try:
            out.append(_ask(url, name, environ))
        except Exception as e:
            # whatever it is, an answer is never worth an error
            out.append(Answer("unreachable", host_of(url), why=reason(f"{type(e).__name__} {e}")))

    def wait(seconds: float) -> Answer:
        thread.join(seconds)
        return out[0] if out else Answer("unreachable", host_of(url), why=reason("timed out"))

    thread = threading.Thread(target=work, daemon=True, name="ask-index")
    thread.start()
    return wait


def _ask(url: str, name: str, environ: Mapping[str, str]) -> Answer:
    from urllib.error import HTTPError

    host = host_of(url)
    page = urljoin(urlsplit(url)._replace(netloc=host).geturl().rstrip("/") + "/", f"{name}/")
    try:
        kind, raw, place = _open(page, url, environ)
    except HTTPError as e:
        e.close()
        if e.code in (404, 410):
            return Answer("missing", host)
        if e.code in (401, 403, 407):
            return Answer("denied", host, why=f"it answered {e.code}")
        loop = "infinite loop" in str(e)
        return Answer("unreachable", host, why=reason(str(e)) if loop else f"it answered {e.code}")
    files = _json_files(raw) if "json" in kind else _html_files(raw)
    if files is None:
        return Answer("unreachable", host, why="its answer made no sense")
    return Answer("found", host, files, page=place)


def _open(
    page: str, index: str, environ: Mapping[str, str], limit: int = MAX_BYTES, part: bool = False
) -> tuple[str, bytes, str]:
    """Return type, content and final address of a page.

    Parameters
    ----------
    index:
        The address of the index, perhaps with credentials.
    limit, part:
        See :meth:`Index.read`.
    """
    from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

    if urlsplit(page).scheme not in ("http", "https"):
        raise ValueError("no address of a web page")  # urllib would open files of this machine
    host = host_of(page)
    request = Request(page, headers={"Accept": _ACCEPT, "User-Agent": "overlayspawner"})  # noqa: S310  # http(s)
    credentials = _credentials(index, environ)
    if credentials is not None:
        raw = base64.b64encode(":".join(credentials).encode()).decode()
        # not sent along to where the index redirects
        request.add_unredirected_header("Authorization", f"Basic {raw}")
    opener = build_opener(ProxyHandler(_proxies(environ, host)), HTTPSHandler(context=_tls(environ, host)))
    until = time.monotonic() + PATIENCE
    with opener.open(request, timeout=PATIENCE / 2) as answer:
        kind = str(answer.headers.get("Content-Type", ""))
        return kind, _read(answer, until, limit, part), str(answer.geturl())


def _read(answer: Any, until: float, limit: int, part: bool) -> bytes:
    out = bytearray()
    while len(out) < limit and time.monotonic() < until:
        piece = answer.read1(65_536)
        if not piece:
            expected = answer.length
            if expected:
                raise ConnectionError("connection broken")
            return bytes(out)
        out += piece
    if part and len(out) >= limit:
        return bytes(out)
    raise TimeoutError("timed out")


_METADATA = ("core-metadata", "data-dist-info-metadata", "dist-info-metadata")


def _json_files(raw: bytes) -> Optional[list[File]]:
    try:
        entries = json.loads(raw)["files"]
        return [
            File(
                str(e["filename"]),
                str(e.get("requires-python") or ""),
                bool(e.get("yanked")),
                e["size"] if type(e.get("size")) is int and e["size"] >= 0 else None,
                _moment(e.get("upload-time")),
                str(e.get("url") or ""),
                any(e.get(key) for key in _METADATA),
            )
            for e in entries[:MAX_FILES]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _moment(value: object) -> str:
    """Return a time as PEP 700 wants it, to the second; ``""`` for anything else."""
    found = _MOMENT.match(value) if isinstance(value, str) else None
    return f"{found[1]}Z" if found else ""


def _html_files(raw: bytes) -> Optional[list[File]]:
    import html

    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    if "<" not in text:
        return None
    out = []
    for match in _LINK.finditer(text):
        # not a matter of the pattern: with one link begun after the other it would look for minutes
        end = text.find(">", match.end(), match.end() + MAX_LINK + 1)
        if end < 0:
            continue
        attributes = text[match.end() : end]
        found = {m[1].lower(): m[2] or m[3] or "" for m in _ATTRIBUTE.finditer(attributes)}
        href = html.unescape(found.get("href", "")).partition("#")[0]
        path = urlsplit(href).path
        name = unquote(path.rpartition("/")[2])
        if name.endswith((".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz")):
            wanted = html.unescape(found.get("data-requires-python", ""))
            metadata = "data-core-metadata" in found or "data-dist-info-metadata" in found
            yanked = "data-yanked" in found
            out.append(File(name, wanted, yanked, url=href, metadata=metadata))
        if len(out) >= MAX_FILES:
            break
    return out


def _credentials(url: str, environ: Mapping[str, str]) -> Optional[tuple[str, str]]:
    user, password = _userinfo(url)
    if user or password:
        return unquote(user), unquote(password)
    import netrc

    try:
        known = netrc.netrc(environ.get("NETRC") or os.path.join(environ.get("HOME", ""), ".netrc"))
        entry = known.authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return (entry[0], entry[2]) if entry and entry[2] else None


def _proxies(environ: Mapping[str, str], host: str) -> dict[str, str]:
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    lower = {key.lower(): value for key, value in environ.items() if key.lower().endswith("_proxy")}
    none = lower.get("no_proxy", "")
    if none and proxy_bypass_environment(host, {"no": none}):
        return {}
    out = {}
    for scheme in ("http", "https"):
        proxy = environ.get("PIP_PROXY") or lower.get(f"{scheme}_proxy") or lower.get("all_proxy")
        if proxy:
            out[scheme] = proxy
    return out


def _tls(environ: Mapping[str, str], host: str) -> Any:
    import ssl

    name = host.partition(":")[0]
    trusted = f"{environ.get('PIP_TRUSTED_HOST', '')} {environ.get('UV_INSECURE_HOST', '')}".split()
    if host in trusted or name in trusted:
        return ssl._create_unverified_context()  # noqa: S323  # as the installer does
    bundle = next(filter(None, map(environ.get, ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))), None)
    context = ssl.create_default_context(cafile=bundle if bundle and os.path.isfile(bundle) else None)
    own = environ.get("PIP_CLIENT_CERT") or environ.get("SSL_CLIENT_CERT")
    if own:
        context.load_cert_chain(own)
    return context


# -- what the files tell ----------------------------------------------------------------------------------

_WHEEL = re.compile(r"^(?P<name>[^-]+)-(?P<version>[^-]+)(?:-\d[^-]*)?-(?P<tags>[^-]+-[^-]+-[^-]+)\.whl$")


@dataclass
class Release:
    """What an index has of one version.

    Parameters
    ----------
    version:
        As its files are named.
    requires_python:
        What its files say; of several files the last.
    tags:
        Of its wheels, as in their names.
    source:
        Whether it has source code.
    yanked:
        Whether all its files were taken back.
    """

    version: str
    requires_python: str = ""
    tags: list[str] = field(default_factory=list)
    source: bool = False
    yanked: bool = True


def by_version(name: str, files: Iterable[File]) -> dict[str, list[tuple[File, str]]]:
    """Return the files of each version, each with its tags: ``""`` for source code."""
    from overlayspawner.payload.installer.preview import source_file

    out: dict[str, list[tuple[File, str]]] = {}
    for file in files:
        match = _WHEEL.match(file.name)
        version = match["version"] if match else source_file(file.name, name)
        if not version or len(version) > 60 or (match and normalise(match["name"]) != name):
            continue
        out.setdefault(version, []).append((file, match["tags"] if match else ""))
    return out


def releases(name: str, files: list[File]) -> list[Release]:
    """Return the versions that files are of."""
    out = []
    for version, found in by_version(name, files).items():
        release = Release(version)
        for file, tags in found:
            release.requires_python = file.requires_python or release.requires_python
            release.yanked = release.yanked and file.yanked
            if tags:
                release.tags.append(tags)
            else:
                release.source = True
        out.append(release)
    return out
