"""What uv and pip were heard to say, from the oldest to the newest that are supported, and what it means.

``recorded/TOOL-VERSION.json`` holds the output of each for the cases of :mod:`tests.support.provoke`. The
index is not asked here: what only it can tell is in ``tests/payload/test_errors.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer import builds, conflicts, words
from overlayspawner.payload.installer.errors import classify
from overlayspawner.payload.installer.explain import Attempt, explain
from tests.support.provoke import CASES

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
HEARD = [(path.stem, name) for path in RECORDED for name in json.loads(path.read_text())]

UNCLEAR = {"foreign", "garbage", "cut", "yanked-only"}
"""Cases in which some version of a tool says that there is nothing to be had: the index tells more."""

OTHER_NAME = {("pip-22.2", "liar")}
"""The oldest pip believes the metadata, and then misses the file of that name."""

ENVIRON = {"UV_DEFAULT_INDEX": "https://someone:hidden-word@index.example/simple"}


def heard(tool: str, name: str) -> str:
    path = Path(__file__).parent / "recorded" / f"{tool}.json"
    return "\n".join(json.loads(path.read_text())[name])


def explained(text: str, tool: str = "uv", **more: object) -> OverlayError:
    attempt = Attempt("3.11.7", lambda: ENVIRON, offline=True, **more)  # type: ignore[arg-type]
    return explain(classify(text, tool), attempt)


def test_both_ends_of_what_is_supported_were_recorded() -> None:
    from overlayspawner.payload.installer import pip, uv

    tools = {path.stem for path in RECORDED}
    assert "uv-" + ".".join(map(str, uv.OLDEST)) in tools
    assert f"pip-{pip.OLDEST_TEXT}" in tools
    assert len(tools) >= 5


@pytest.mark.parametrize(("tool", "name"), HEARD)
def test_words(tool: str, name: str) -> None:
    case, text = CASES[name], heard(tool, name)
    error = explained(text, tool, lines=case.install, constraints=case.settings.get("constraints", ()))
    if (tool, name) == ("pip-22.2", "html-name"):
        # what an old pip makes of it; since then such a name gets into no file (see `test_installer.py`)
        assert error.code == "installer-failed"
        return
    codes = {case.code, "no-such-package", "no-matching-version"} if name in UNCLEAR else {case.code}
    assert error.code in codes, text
    told = f"{error.message} {error.hint}"
    named = case.code in ("build-failed", "bad-package", "conflict", "no-such-package")
    if named and (tool, name) not in OTHER_NAME:
        for part in case.says:
            # which of two is installed, and whose a line is, only the overlay knows
            if part not in ("administrator", "tinyleft 1.0") and not part.startswith(
                ("tinyleft 1.0", "tinyright 1.0")
            ):
                assert part in told, text
    if case.code == "index-unreachable" and name not in UNCLEAR:
        assert words.reason(text)
        # some don't name it: then it is the one that is set
        assert any(host in told for host in ("index.invalid", "127.0.0.1", "index.example"))


@pytest.mark.parametrize("tool", [path.stem for path in RECORDED])
def test_both_sides_of_a_conflict(tool: str) -> None:
    found = conflicts.contradiction(conflicts.sides(heard(tool, "conflict")), [])
    assert [(s.who, s.need) for s in found] == [("tinyleft", "tinyleaf<2"), ("tinyright", "tinyleaf>=2")]
    limits = CASES["conflict-constraint"].settings["constraints"]
    found = conflicts.contradiction(conflicts.sides(heard(tool, "conflict-constraint")), limits)  # type: ignore[arg-type]
    assert [(s.who, s.need) for s in found] == [("tinyright", "tinyleaf>=2"), ("", "tinyleaf<2")]


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("error: command 'gcc' failed: No such file or directory", "the program gcc"),
        ("error: command '/usr/bin/x86_64-linux-gnu-g++' failed: No such file", "x86_64-linux-gnu-g++"),
        ("unable to execute 'x86_64-linux-gnu-gcc': No such file or directory", "x86_64-linux-gnu-gcc"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'cmake'", "the program cmake"),
        ("meson.build: ERROR: Unknown compiler(s): [['gfortran'], ['flang']]", "example gfortran"),
        ("error: can't find Rust compiler", "the Rust compiler"),
        ("Cargo, the Rust package manager, is not installed or is not on PATH.", "the Rust compiler"),
        ('CMake was unable to find a build program corresponding to "Ninja".', "the program Ninja"),
        ("No CMAKE_CXX_COMPILER could be found.", "a CXX compiler"),
        ("Error: pg_config executable not found.", "the program pg_config"),
        ("/bin/sh: 1: mysql_config: not found", "the program mysql_config"),
        ("Exception: Can not find valid pkg-config name.", "MySQL"),
        ("Package libffi was not found in the pkg-config search path.", "the library libffi"),
        ("Dependency \"openblas\" not found, tried pkgconfig", "the library openblas"),
        ("fatal error: Python.h: No such file or directory", "the header file Python.h"),
        ("fatal error: 'ffi.h' file not found", "the header file ffi.h"),
        ("/usr/bin/ld: cannot find -lxml2: No such file or directory", "the library xml2"),
        ("ModuleNotFoundError: No module named 'numpy'", "the Python module numpy"),
        ("/bin/sh: pkg-config: command not found", "the program pkg-config"),
        ("nothing is wrong here", ""),
    ],
)  # fmt: skip
def test_what_a_build_lacked(line: str, lacks: str) -> None:
    found = builds.missing(f"running build_ext\n{line}\nerror: the end\n")
    assert lacks in found
    assert bool(lacks) == bool(found)


def test_a_compiler_that_was_killed() -> None:
    error = explained(
        "error: Failed to build `thing==1.0`\n  cause: The build backend returned an error\n"
        "c++: fatal error: Killed signal terminated program cc1plus\n"
    )
    assert (error.code, "ran out of memory" in error.message) == ("build-failed", True)


@pytest.mark.parametrize(
    "text",
    [
        "see https://someone:hidden-word@index.example/simple/",
        "see https://index.example/x?token=hidden-word&a=b",
        "see https://index.example/x?hidden-word",
        "see hidden-word",
    ],
)
def test_credentials_are_in_nothing_that_is_shown(text: str) -> None:
    for line in (
        text,
        f"error: Failed to build `thing==1.0`\n{text}: error",
        f"hint: {text} 401 Unauthorized",
    ):
        error = explained(line)
        assert "hidden-word" not in str(error.to_dict())


def test_what_is_shown_is_text_and_bounded() -> None:
    text = "\x1b[31merror: Failed to build `thing==1.0`\x1b[0m\n\x07\u202e<b>no</b>\n" + "x" * 900_000
    text += "\n" + "y\n" * 90_000
    error = explained(text)
    assert len(error.log) <= words.MAX_LOG
    assert len(error.message) < 1_200
    assert "\x1b" not in error.log and "\u202e" not in error.log
    short = explained("\x1b[31merror: Failed to build `thing==1.0`\x1b[0m\n\x07\u202e<b>error</b>")
    assert "<b>error</b>" in short.message


@pytest.mark.parametrize(
    "piece", ["x" * 4_000, "a-" * 2_000, "./" * 2_000, "a==1 depends on ", "from (", "Wheel '"]
)
def test_no_output_takes_for_ever_to_read(piece: str) -> None:
    """A pattern that tries everything would take minutes over this; the limit of pytest-timeout ends it."""
    explained("error: Failed to build `thing==1.0`\n" + "\n".join([piece * (4_000 // len(piece))] * 20))
    explained("ERROR: Could not find a version\nResolutionImpossible\n" + (piece * 200_000)[:270_000])


def test_digits_of_a_folder_are_no_answer_of_the_index() -> None:
    """A stage's name is random, and held 404 once: the index then counted as one that merely lacks a file."""
    text = (
        "Collecting tinyscript (from -r /home/u/.overlay/stage-7b5a8a8404f1/requirements.txt (line 1))\n"
        "ERROR: Could not install packages due to an OSError: HTTPConnectionPool(host='127.0.0.1', port=80): "
        "Max retries exceeded with url: /a.whl (ResponseError('too many 500 error responses'))"
    )
    assert words.code_of(text) == "index-unreachable"
    assert words.code_of(text.replace("too many 500 error responses", "refused")) == "index-unreachable"


def test_an_explanation_that_fails_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("no environment")

    error = classify("No matching distribution found\nsee https://a:hidden-word@b/", "pip")
    out = explain(error, Attempt("3.11.7", broken))
    assert out is error
    assert "hidden-word" not in out.log
