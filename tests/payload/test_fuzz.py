"""Thousands of strings where requirements belong: refused with a code, or one requirement for every tool.

Those that reach the parser are read in a process of their own, in which every file, program and connection
that Python opens is noticed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fuzz
from tests.support.envs import ROOT, snapshot

COUNT = 9_000

PARSE = """
import json, random, sys
sys.path.insert(0, sys.argv[1])
from overlayspawner.payload import requirements
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server import body
from tests.support import fuzz

canary, count = sys.argv[2], int(sys.argv[3])
requirements.parse("warm>=1; python_version > '3'")
requirements.parse("file:///warm-1-py3-none-any.whl")
list(requirements.Requirements("warm").entries())
try:
    requirements.parse("-r x")
except OverlayError:
    pass
body.job({"action": "clean", "what": ["cache"]})
opened, on = [], True

def hook(event, args):
    if on and event.split(".")[0] in ("open", "os", "subprocess", "socket", "import", "shutil", "exec"):
        opened.append([event, repr(args)[:200]])

sys.addaudithook(hook)
accepted, refused, wrong = [], 0, []

def check(read, given):
    global refused
    try:
        return read(given)
    except OverlayError as e:
        refused += 1
        text = json.dumps(e.to_dict())
        option = isinstance(given, str) and given.isascii() and given.strip().startswith("-")
        if option and len(given) < 1000 and e.code != "option-not-allowed":
            wrong.append([repr(given)[:200], "not called an option: " + e.code])
        if e.code not in ("bad-requirement", "option-not-allowed", "bad-request", "unknown-action"):
            wrong.append([repr(given)[:200], e.code])
        if "secret@" in text or len(text) > 1500:
            wrong.append([repr(given)[:200], text[:300]])
    except Exception as e:
        wrong.append([repr(given)[:200], repr(e)])

for seed in range(count):
    text = fuzz.requirement(random.Random(seed), canary)
    found = check(requirements.parse, text)
    if found is not None:
        accepted.append(found.text)
    check(requirements.parse_name, text)
    file = requirements.Requirements(text)
    file.entries(), file.ignored(), file.unclear(), file.names()
for seed in range(count // 3):
    data = fuzz.data(random.Random(seed), canary)
    if isinstance(data, dict):
        for read in (body.job, body.plan):
            check(read, data)
on = False
print(json.dumps({"accepted": accepted, "refused": refused, "wrong": wrong, "opened": opened}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What came of reading all of them."""
    place = tmp_path_factory.mktemp("fuzz")
    canary = place / "canary"
    os.mkfifo(canary)  # whoever opens it waits for ever
    before = snapshot(place, without=["canary"])
    argv = [sys.executable, "-B", "-c", PARSE, str(ROOT), str(canary), str(COUNT)]
    environ = {**os.environ, "SECRET": "not-to-be-seen", "HOME": str(place)}
    done = subprocess.run(
        argv, cwd=place, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not-to-be-seen" not in done.stdout
    assert snapshot(place, without=["canary"]) == before
    out: dict[str, list[str]] = json.loads(done.stdout)
    return out


def test_each_is_refused_with_a_code_or_read(read: dict[str, list[str]]) -> None:
    assert read["wrong"] == []
    assert len(read["accepted"]) > 500  # they do get through, so that it counts what follows


def test_nothing_is_opened_to_read_them(read: dict[str, list[str]]) -> None:
    assert read["opened"] == []


def test_what_is_accepted_is_one_requirement_for_pip(read: dict[str, list[str]], tmp_path: Path) -> None:
    """By pip's own reader of requirements files; for uv by what may end a line."""
    from pip._internal.network.session import PipSession
    from pip._internal.req.req_file import parse_requirements

    accepted = sorted(set(read["accepted"]))
    file = tmp_path / "requirements.txt"
    file.write_text("".join(line + "\n" for line in accepted), encoding="utf-8")
    found = list(parse_requirements(str(file), session=PipSession()))
    assert [item.requirement for item in found] == [
        os.path.expandvars(line) if "${" in line else line for line in accepted
    ]
    assert not any(item.is_editable or item.constraint or item.options for item in found)
    for line in accepted:
        assert len(line.splitlines()) == 1 and not line.startswith(("-", "#", "/", "."))


def test_the_command_line(tmp_path: Path) -> None:
    """What a shell hands on, in one process: usage or a refusal, in one sentence."""
    code = """
import contextlib, io, json, random, sys
sys.path.insert(0, sys.argv[1])
from overlayspawner.payload import cli
from overlayspawner.payload.requirements import parse
from overlayspawner.payload.contract import OverlayError
from tests.support import fuzz

wrong, ends = [], {}
for seed in range(1500):
    rng = random.Random(seed)
    words = [fuzz.requirement(rng, sys.argv[2]) for _ in range(rng.choice((1, 1, 2)))]
    words = [word for word in words if word not in ("-h", "--json") and "\\0" not in word]
    verb = rng.choice(("install", "uninstall", "upgrade", "plan"))
    if not words or (verb == "install" and any(word.startswith("-r") for word in words)):
        continue  # the one option that names a file to read
    try:
        [parse(word) for word in words]
        continue
    except OverlayError:
        pass
    out = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    try:
        with contextlib.redirect_stdout(out[0]), contextlib.redirect_stderr(out[1]):
            end = cli.main([verb, *rng.choice(([], ["--json"])), *words])
    except SystemExit as e:
        end = e.code
    except BaseException as e:
        end = repr(e)
    text = ""
    for stream in out:
        stream.flush()
        text += stream.buffer.getvalue().decode()
    ends[str(end)] = ends.get(str(end), 0) + 1
    if end not in (1, 2) or "Traceback" in text or "internal" in text or not text.strip():
        wrong.append([verb, words, end, text[-300:]])
print(json.dumps({"wrong": wrong, "ends": ends}))
"""
    canary = tmp_path / "canary"
    os.mkfifo(canary)
    home = tmp_path / "home"
    home.mkdir()
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    argv = [sys.executable, "-B", "-c", code, str(ROOT), str(canary)]
    done = subprocess.run(
        argv, cwd=home, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout)
    assert out["wrong"] == []
    assert sum(out["ends"].values()) > 800 and set(out["ends"]) == {"1", "2"}
    assert os.listdir(home) == []


def test_the_same_seed_gives_the_same() -> None:
    assert fuzz.requirement(random.Random(7), "x") == fuzz.requirement(random.Random(7), "x")
    assert len({fuzz.requirement(random.Random(n), "x") for n in range(COUNT)}) > COUNT // 3
