"""Everything that can go wrong with an installation, provoked for real: what is asked for, of which index.

``python -m tests.support.provoke`` provokes all with both tools, and writes ``docs/reference/errors.md``.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
    what:
        What is done, for people.
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
    what: str
    install: Sequence[str]
    says: Sequence[str] = ()
    index: str = ""
    before: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    path: str = ""


CASES: dict[str, Case] = {
    # no such package
    "misspelt": Case("no-such-package", "a misspelt name", ["nunpy"], ["nunpy", "numpy"]),
    "import-name": Case(
        "no-such-package",
        "the name of a module instead of the package's",
        ["sklearn"],
        ["sklearn", "scikit-learn"],
    ),
    "no-such-dependency": Case(
        "no-such-package",
        "a package needs one that does not exist",
        ["tinylost"],
        ["tinynowhere", "tinylost"],
    ),
    # no version
    "no-version": Case(
        "no-matching-version",
        "a version that does not exist",
        ["tinyleaf==9"],
        ["tinyleaf has no version 9", "1.0", "2.0"],
    ),
    "future": Case(
        "no-matching-version", "a package for another Python", ["tinyfuture"], ["tinyfuture", ">=4"]
    ),
    "past": Case(
        "no-matching-version",
        "a version for another Python",
        ["tinypast==2.0"],
        ["tinypast 2.0", ">=4", "1.0"],
    ),
    "future-dependency": Case(
        "no-matching-version",
        "a package needs one that is for another Python",
        ["tinyneeds"],
        ["tinyfuture", ">=4", "tinyneeds"],
    ),
    "foreign": Case(
        "no-matching-version",
        "a package with wheels for other systems only",
        ["tinyforeign"],
        ["tinyforeign", "Windows"],
    ),
    "other": Case(
        "no-matching-version",
        "a version with wheels for another Python only",
        ["tinyother==2.0"],
        ["tinyother 2.0", "3.8", "1.0"],
    ),
    "yanked-only": Case(
        "no-matching-version", "a package that was taken back", ["tinyallyanked"], ["tinyallyanked", "1.0"]
    ),
    # conflicts
    "conflict": Case(
        "conflict",
        "two packages that contradict each other",
        ["tinyleft", "tinyright"],
        ["tinyleft 1.0 needs tinyleaf<2", "tinyright 1.0 needs tinyleaf>=2"],
    ),
    "conflict-lines": Case(
        "conflict",
        "a package and a version that contradict each other",
        ["tinyleft", "tinyleaf==2.0"],
        ["tinyleft 1.0 needs tinyleaf<2", "tinyleaf==2.0"],
    ),
    "conflict-installed": Case(
        "conflict",
        "a package that contradicts one of the overlay",
        ["tinyright"],
        ["tinyleft 1.0", "tinyright 1.0"],
        before=["tinyleft"],
    ),
    "conflict-admin": Case(
        "conflict",
        "a package that contradicts what the administrator requires",
        ["tinyright"],
        ["tinyright 1.0 needs tinyleaf>=2", "administrator"],
        settings={"requirements": ["tinyleaf==1.0"]},
    ),
    "conflict-constraint": Case(
        "conflict",
        "a package that contradicts the administrator's constraints",
        ["tinyright"],
        ["tinyright 1.0 needs tinyleaf>=2", "administrator"],
        settings={"constraints": ["tinyleaf<2"]},
    ),
    # builds
    "build": Case(
        "build-failed",
        "source code that can't be built",
        ["tinyrefuse"],
        ["tinyrefuse", "this package refuses to be built"],
    ),
    "no-compiler": Case(
        "build-failed",
        "source code, and no compiler",
        ["tinynocompiler"],
        ["tinynocompiler", "gcc"],
        path="/nowhere",
    ),
    "no-header": Case(
        "build-failed",
        "source code that needs a header file",
        ["tinynoheader"],
        ["tinynoheader", "tiny/nowhere.h"],
    ),
    "no-library": Case(
        "build-failed",
        "source code that needs a library",
        ["tinynolibrary"],
        ["tinynolibrary", "tinynowhere"],
    ),
    "no-module": Case(
        "build-failed",
        "source code whose build imports a module",
        ["tinynomodule"],
        ["tinynomodule", "tinynowhere"],
    ),
    "no-config": Case(
        "build-failed",
        "source code whose build asks a program",
        ["tinynoconfig"],
        ["tinynoconfig", "tinydb_config"],
    ),
    "verbose": Case(
        "build-failed",
        "a build that prints very much, and secrets",
        ["tinyverbose"],
        ["tinyverbose", "the end"],
    ),
    # the index
    "refused": Case(
        "index-unreachable",
        "nothing listens at the index's address",
        ["tinyleaf"],
        ["127.0.0.1:{closed}"],
        index="http://127.0.0.1:{closed}/simple/",
    ),
    "dns": Case(
        "index-unreachable",
        "the index's name is unknown",
        ["tinyleaf"],
        ["index.invalid"],
        index="https://index.invalid/simple/",
    ),
    "no-https": Case(
        "index-unreachable",
        "the index's name is unknown, without TLS",
        ["tinyleaf"],
        ["index.invalid"],
        index="http://index.invalid/simple/",
    ),
    "hang": Case(
        "index-unreachable", "the index never answers", ["tinyleaf"], ["127.0.0.1:{port}"], index="hang"
    ),
    "reset": Case(
        "index-unreachable", "the index resets connections", ["tinyleaf"], ["127.0.0.1:{port}"], index="reset"
    ),
    "cut": Case(
        "index-unreachable",
        "the index ends answers too early",
        ["tinyleaf"],
        ["127.0.0.1:{port}"],
        index="cut",
    ),
    "loop": Case(
        "index-unreachable", "the index redirects to itself", ["tinyleaf"], ["127.0.0.1:{port}"], index="loop"
    ),
    "garbage": Case(
        "index-unreachable",
        "the index answers with garbage",
        ["tinyleaf"],
        ["127.0.0.1:{port}"],
        index="garbage",
    ),
    "500": Case(
        "index-unreachable", "the index answers 500", ["tinyleaf"], ["127.0.0.1:{port}", "500"], index="500"
    ),
    "503": Case(
        "index-unreachable", "the index answers 503", ["tinyleaf"], ["127.0.0.1:{port}", "503"], index="503"
    ),
    "no-tls": Case(
        "index-unreachable",
        "the index does not speak TLS",
        ["tinyleaf"],
        ["127.0.0.1:{port}", "TLS"],
        index="https://127.0.0.1:{port}/simple/",
    ),
    "untrusted": Case(
        "index-unreachable",
        "nobody trusts the index's certificate",
        ["tinyleaf"],
        ["certificate"],
        index="untrusted",
    ),
    "hang-files": Case(
        "index-unreachable",
        "pages are answered, files never",
        ["tinyscript"],
        ["127.0.0.1:{port}"],
        index="hang-files",
    ),
    "reset-files": Case(
        "index-unreachable",
        "pages are answered, files reset the connection",
        ["tinyscript"],
        ["127.0.0.1:{port}"],
        index="reset-files",
    ),
    "500-files": Case(
        "index-unreachable",
        "pages are answered, files with 500",
        ["tinyscript"],
        ["127.0.0.1:{port}"],
        index="500-files",
    ),
    "401": Case(
        "index-auth", "the index wants credentials", ["tinyleaf"], ["127.0.0.1:{port}"], index="auth"
    ),
    "wrong-password": Case(
        "index-auth",
        "the password is wrong",
        ["tinyleaf"],
        ["127.0.0.1:{port}"],
        index="http://reader:hidden-word@127.0.0.1:{port}/auth/simple/",
    ),
    "403": Case("index-auth", "the index answers 403", ["tinyleaf"], ["127.0.0.1:{port}"], index="403"),
    "403-files": Case(
        "index-auth",
        "pages are answered, files with 403",
        ["tinyscript"],
        ["127.0.0.1:{port}"],
        index="403-files",
    ),
    # packages
    "wrong-hash": Case("bad-package", "a file with another hash", ["tinywronghash"], ["tinywronghash"]),
    "truncated": Case(
        "bad-package", "a wheel of which the end is missing", ["tinytruncated"], ["tinytruncated"]
    ),
    "garbage-files": Case(
        "bad-package", "garbage instead of a file", ["tinyscript"], ["tinyscript"], index="garbage-files"
    ),
    "html-name": Case(
        "bad-package", "HTML instead of a name in the metadata", ["tinyhtmlname"], ["tinyhtmlname"]
    ),
    "liar": Case("bad-package", "another name in the metadata", ["tinyliar"], ["tinyliar"]),
    "liar-version": Case(
        "bad-package", "another version in the metadata", ["tinyliarversion"], ["tinyliarversion"]
    ),
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


# -- the page -------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
HEAD = """<!-- Written by `python -m tests.support.provoke`. Do not edit. -->

# What failed installations say

Everything here was provoked with real packages and a real index. The code is the same with uv and pip; their
messages may differ where one of them tells less. What to do about a code in general is in
[Error and notice codes](codes.md). A message ends with "Nothing was changed."; `log` has the tool's last
lines.
"""


def shown(error: OverlayError) -> str:
    """Return message and hint as on the page: without ports, the Python's version, the last sentence."""
    message = escape(error.message.replace(" Nothing was changed.", ""))
    text = f"{message} *{escape(error.hint)}*" if error.hint else message
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    return re.sub(r"this image has 3\.\d+", "this image has 3.X", text)


def escape(text: str) -> str:
    """Return a text that is text in Markdown too."""
    return re.sub(r"([\\|*_\[\]])", r"\\\1", text).replace("<", "&lt;")


def row(name: str, tools: str, text: str) -> str:
    """Return a line of the page."""
    return f"| {CASES[name].what} | {tools} | {text} |"


def page(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page.

    Parameters
    ----------
    found:
        Tool to case to what :func:`shown` returned.
    """
    out = [HEAD]
    for code in dict.fromkeys(case.code for case in CASES.values()):
        out += [f"## {code}\n", "| provoked by | tool | message, and what to do |", "|---|---|---|"]
        for name, case in CASES.items():
            if case.code != code:
                continue
            texts = [(tool, found[tool][name]) for tool in found if name in found[tool]]
            if len({text for _, text in texts}) == 1:
                out.append(row(name, ", ".join(tool for tool, _ in texts), texts[0][1]))
            else:
                out += [row(name, tool, text) for tool, text in texts]
        out.append("")
    return "\n".join(out)


def main() -> None:
    """Provoke everything, and write the page."""
    from overlayspawner.payload import contract
    from tests.support.envs import make_base, make_context

    for key in [key for key in os.environ if key.startswith(("PIP_", "UV_"))]:
        del os.environ[key]
    found: dict[str, dict[str, str]] = {"uv": {}, "pip": {}}
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        os.environ.update(XDG_CONFIG_DIRS=str(tmp / "none"), PATH="/usr/bin:/bin")
        (tmp / "uv").mkdir()
        (tmp / "uv" / "uv").symlink_to(Path(sys.executable).parent / "uv")
        contract.UV_DIR = str(tmp / "uv")
        base = make_base(tmp / "image")
        with LocalIndex(tmp / "index") as index:
            for tool, texts in found.items():
                for name, case in CASES.items():
                    ctx = make_context(tmp / f"home-{tool}-{name}", base, installer=tool)
                    texts[name] = shown(provoke(ctx, case, index))
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()
