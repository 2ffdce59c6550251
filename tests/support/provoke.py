"""Everything that can go wrong with an installation, provoked for real: what is asked for, of which index.

Used by the tests, and by what writes the page of messages (``python -m tests.support.provoke``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.planning import plan
from tests.support.index import LocalIndex

QUICK = {"PIP_RETRIES": "0", "PIP_TIMEOUT": "2", "UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "2"}
"""So that neither tool tries again and again, or waits for long."""


@dataclass
class Case:
    """One provocation.

    Parameters
    ----------
    code:
        Of the error.
    install:
        Requirement lines.
    says:
        Parts of the message or the hint, for either tool.
    index:
        Prefix of the local index, or a URL in which ``{port}`` is the index's port and ``{closed}`` one at
        which nothing listens; ``untrusted`` for TLS with a certificate that nobody trusts.
    before:
        Lines that are installed first.
    settings:
        Fields of the spec.
    path:
        ``PATH``, where it matters what is on it.
    """

    code: str
    install: Sequence[str]
    says: Sequence[str] = ()
    index: str = ""
    before: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    path: str = ""


CASES: dict[str, Case] = {
    # no such package
    "misspelt": Case("no-such-package", ["nunpy"], ["nunpy", "numpy"]),
    "import-name": Case("no-such-package", ["sklearn"], ["sklearn", "scikit-learn"]),
    "no-such-dependency": Case("no-such-package", ["tinylost"], ["tinynowhere", "tinylost"]),
    # no version
    "no-version": Case("no-matching-version", ["tinyleaf==9"], ["tinyleaf==9", "1.0", "2.0"]),
    "future": Case("no-matching-version", ["tinyfuture"], ["tinyfuture", ">=4"]),
    "past": Case("no-matching-version", ["tinypast==2.0"], ["tinypast 2.0", ">=4", "1.0"]),
    "future-dependency": Case("no-matching-version", ["tinyneeds"], ["tinyfuture", ">=4", "tinyneeds"]),
    "foreign": Case("no-matching-version", ["tinyforeign"], ["tinyforeign", "Windows"]),
    "other": Case("no-matching-version", ["tinyother==2.0"], ["tinyother 2.0", "3.8", "1.0"]),
    "yanked-only": Case("no-matching-version", ["tinyallyanked"], ["tinyallyanked", "1.0"]),
    # conflicts
    "conflict": Case(
        "conflict",
        ["tinyleft", "tinyright"],
        ["tinyleft 1.0 needs tinyleaf<2", "tinyright 1.0 needs tinyleaf>=2"],
    ),
    "conflict-lines": Case(
        "conflict", ["tinyleft", "tinyleaf==2.0"], ["tinyleft 1.0 needs tinyleaf<2", "tinyleaf==2.0"]
    ),
    "conflict-installed": Case(
        "conflict", ["tinyright"], ["tinyleft 1.0", "tinyright 1.0"], before=["tinyleft"]
    ),
    "conflict-admin": Case(
        "conflict",
        ["tinyright"],
        ["tinyright 1.0 needs tinyleaf>=2", "administrator"],
        settings={"requirements": ["tinyleaf==1.0"]},
    ),
    "conflict-constraint": Case(
        "conflict",
        ["tinyright"],
        ["tinyright 1.0 needs tinyleaf>=2", "administrator"],
        settings={"constraints": ["tinyleaf<2"]},
    ),
    # builds
    "build": Case("build-failed", ["tinyrefuse"], ["tinyrefuse", "this package refuses to be built"]),
    "no-compiler": Case("build-failed", ["tinynocompiler"], ["tinynocompiler", "gcc"], path="/nowhere"),
    "no-header": Case("build-failed", ["tinynoheader"], ["tinynoheader", "tiny/nowhere.h"]),
    "no-library": Case("build-failed", ["tinynolibrary"], ["tinynolibrary", "tinynowhere"]),
    "no-module": Case("build-failed", ["tinynomodule"], ["tinynomodule", "tinynowhere"]),
    "no-config": Case("build-failed", ["tinynoconfig"], ["tinynoconfig", "tinydb_config"]),
    "verbose": Case("build-failed", ["tinyverbose"], ["tinyverbose", "the end"]),
    # the index
    "refused": Case(
        "index-unreachable", ["tinyleaf"], ["127.0.0.1:{closed}"], index="http://127.0.0.1:{closed}/simple/"
    ),
    "dns": Case("index-unreachable", ["tinyleaf"], ["index.invalid"], index="https://index.invalid/simple/"),
    "no-https": Case(
        "index-unreachable", ["tinyleaf"], ["index.invalid"], index="http://index.invalid/simple/"
    ),
    "hang": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}"], index="hang"),
    "reset": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}"], index="reset"),
    "cut": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}"], index="cut"),
    "loop": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}"], index="loop"),
    "garbage": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}"], index="garbage"),
    "500": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}", "500"], index="500"),
    "503": Case("index-unreachable", ["tinyleaf"], ["127.0.0.1:{port}", "503"], index="503"),
    "no-tls": Case(
        "index-unreachable",
        ["tinyleaf"],
        ["127.0.0.1:{port}", "TLS"],
        index="https://127.0.0.1:{port}/simple/",
    ),
    "untrusted": Case("index-unreachable", ["tinyleaf"], ["certificate"], index="untrusted"),
    "hang-files": Case("index-unreachable", ["tinyscript"], ["127.0.0.1:{port}"], index="hang-files"),
    "reset-files": Case("index-unreachable", ["tinyscript"], ["127.0.0.1:{port}"], index="reset-files"),
    "500-files": Case("index-unreachable", ["tinyscript"], ["127.0.0.1:{port}"], index="500-files"),
    "401": Case("index-auth", ["tinyleaf"], ["127.0.0.1:{port}"], index="auth"),
    "wrong-password": Case(
        "index-auth",
        ["tinyleaf"],
        ["127.0.0.1:{port}"],
        index="http://reader:hidden-word@127.0.0.1:{port}/auth/simple/",
    ),
    "403": Case("index-auth", ["tinyleaf"], ["127.0.0.1:{port}"], index="403"),
    "403-files": Case("index-auth", ["tinyscript"], ["127.0.0.1:{port}"], index="403-files"),
    # packages
    "wrong-hash": Case("bad-package", ["tinywronghash"], ["tinywronghash"]),
    "truncated": Case("bad-package", ["tinytruncated"], ["tinytruncated"]),
    "garbage-files": Case("bad-package", ["tinyscript"], ["tinyscript"], index="garbage-files"),
    "html-name": Case("bad-package", ["tinyhtmlname"], ["tinyhtmlname"]),
    "liar": Case("bad-package", ["tinyliar"], ["tinyliar"]),
    "liar-version": Case("bad-package", ["tinyliarversion"], ["tinyliarversion"]),
}


def closed_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def url(case: Case, index: LocalIndex) -> str:
    """Return the index of a case."""
    if case.index == "untrusted":
        return index.untrusted_url
    if "://" in case.index:
        return case.index.replace("{port}", str(index.port)).replace("{closed}", str(closed_port()))
    return index.prefixed(case.index) if case.index else index.url


def provoke(ctx: Context, case: Case, index: LocalIndex, *, planned: bool = False) -> OverlayError:
    """Do what fails, and return how it failed.

    Parameters
    ----------
    ctx:
        An overlay, in which nothing stays behind.
    planned:
        Ask for the plan only.

    Raises
    ------
    AssertionError
        It did not fail.
    """
    for name, value in case.settings.items():
        setattr(ctx.spec, name, value)
    ctx.spec.index_url = index.url
    if case.before:
        apply(ctx, "install", install=case.before)
    ctx.spec.index_url = url(case, index)
    try:
        with variables(QUICK, case.path):
            if planned:
                out = plan(ctx, install=case.install)
            else:
                out = apply(ctx, "install", install=case.install)
    except OverlayError as e:
        return e
    raise AssertionError(f"nothing went wrong: {out}")


@contextmanager
def variables(more: Mapping[str, str], path: str = "") -> Iterator[None]:
    """Have environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(more)
    if path:
        os.environ["PATH"] = path
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
