"""``start.bin``: its parts, the bytecode of other Pythons, and the script that makes that for a release."""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from overlayspawner.hub import compiling, payload_zip, start_bin
from scripts import bytecode
from tests.support.envs import ROOT, other_pythons

OWN = importlib.util.MAGIC_NUMBER
OTHERS = other_pythons()
each_other = pytest.mark.parametrize(
    "python", OTHERS or [pytest.param("", marks=pytest.mark.skip(reason="no other Python is here"))]
)


@pytest.fixture(scope="module")
def modules() -> start_bin.Modules:
    return start_bin.start_modules(payload_zip.payload_sources())


def parts(start: bytes) -> tuple[int, dict[bytes, bytes]]:
    """The zip's size, and magic number → packed part, with nothing before, between or after them."""
    stream = io.BytesIO(start)
    size, places = marshal.load(stream)
    body = stream.read()
    out = {}
    end = 0
    for magic, (at, length) in places.items():
        assert at == end
        end = at + length
        out[magic] = body[at:end]
    assert end == len(body)
    return size, out


def test_the_start_is_the_zip_s(modules: start_bin.Modules) -> None:
    built = payload_zip.build()
    size, found = parts(built.start)
    assert size == len(built.zip)
    assert {b"", OWN} <= set(found)
    assert marshal.loads(zlib.decompress(found[b""])) == modules
    with zipfile.ZipFile(io.BytesIO(built.zip)) as archive:
        for _, path, _, text in modules:
            assert archive.read(path).decode() == text
    for made, (name, path, package, text) in zip(marshal.loads(zlib.decompress(found[OWN])), modules):
        assert made == (name, path, package, compile(text, path, "exec", dont_inherit=True))
    assert len(modules) == len({name for name, *_ in modules}) == len(start_bin.START_MODULES)


# -- compiling ----------------------------------------------------------------------------------------


@each_other
def test_another_python_compiles_for_itself(modules: start_bin.Modules, python: str) -> None:
    made = bytecode.compile_with(python, modules)
    code = "import importlib.util as u, sys; print(u.MAGIC_NUMBER.hex(), *sys.version_info[:2])"
    out = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [made.magic.hex(), *map(str, made.short)]
    assert made.magic != OWN


@pytest.mark.parametrize("python", [sys.executable, *OTHERS])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_bytes_depend_on_nothing_but_sources_and_python(
    modules: start_bin.Modules, python: str, seed: str
) -> None:
    """Whatever else a process has loaded, interned and holds, and however it orders its sets."""
    code = """import sys, asyncio, json, marshal, io
text = sys.argv[1]
data = sys.stdin.buffer.read()
kept = []
for *_, source in marshal.loads(data):
    words = "".join(c if c.isidentifier() or c.isdigit() else " " for c in source).split()
    kept += map(sys.intern, {*source, *words})
sys.stdin = io.TextIOWrapper(io.BytesIO(data))
exec(compile(text, "p", "exec"))
"""
    done = subprocess.run(
        [python, "-X", "no_debug_ranges", "-c", code, start_bin.program()],
        input=marshal.dumps(modules, 2),
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
    )
    other = start_bin.pack(bytes.fromhex(done.stdout.split()[-1].decode()))
    assert other == bytecode.compile_with(python, modules).packed


def test_the_hub_compiles_the_same_as_a_bare_process(modules: start_bin.Modules) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start_bin.program()],
        input=marshal.dumps(modules, 2),
        capture_output=True,
        check=True,
    )
    assert compiling.compiled(modules).hex() == done.stdout.split()[-1].decode()


@pytest.mark.parametrize("optimize", ["", "2"])
def test_a_hub_s_own_options_change_no_code(modules: start_bin.Modules, optimize: str) -> None:
    """A hub may run without assertions; they stay in what it delivers."""
    modules = [("m", "m.py", False, "def f():\n    'text'\n    assert not 1\n")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", start_bin.program()],
        input=marshal.dumps(modules, 2),
        env={**os.environ, "PYTHONOPTIMIZE": optimize},
        capture_output=True,
        check=True,
    )
    assert compiling.compiled(modules).hex() == done.stdout.split()[-1].decode()


@each_other
def test_a_hub_on_another_python_takes_the_same_bytecode(modules: start_bin.Modules, python: str) -> None:
    """The digest of the sources is that of the machine on which the release was made."""
    if bytecode.compile_with(python, modules).short < (3, 10):
        pytest.skip("no hub runs on it")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from overlayspawner.hub import payload_zip, start_bin; "
        "print(payload_zip.build().id); "
        "print(start_bin.digest(start_bin.start_modules(payload_zip.payload_sources())))"
    )
    done = subprocess.run([python, "-I", "-B", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == start_bin.digest(modules)


# -- what a wheel brings ------------------------------------------------------------------------------

MAGIC = b"\x01\x02\r\n"
PACKED = start_bin.pack(b"bytecode of some Python, as it is packed")


def test_a_file_of_the_wheel_is_used(modules: start_bin.Modules, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(start_bin.make_bytecode_file(MAGIC, PACKED, modules))
    (tmp_path / "notes.txt").write_text("something else")
    assert start_bin.shipped(modules, tmp_path) == {MAGIC: PACKED}


def test_none_are_used_where_none_were_made(modules: start_bin.Modules, tmp_path: Path) -> None:
    assert start_bin.shipped(modules, tmp_path / "missing") == {}
    assert start_bin.shipped(modules, tmp_path) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "garbage",
        "other format",
        "no number",
        "truncated",
        "only a head",
        "longer",
        "byte of code",
        "magic number",
        "directory",
    ],
)
def test_a_damaged_file_is_left_out(modules: start_bin.Modules, tmp_path: Path, damage: str) -> None:
    good = start_bin.make_bytecode_file(MAGIC, PACKED, modules)
    path = tmp_path / "a.bin"
    head, _, packed = good.partition(b"\n")
    content = {
        "empty": b"",
        "garbage": b"\xff \x00\n" * 300,
        "other format": good.replace(b"bytecode-1", b"bytecode-2", 1),
        "no number": good.replace(MAGIC.hex().encode(), b"xy" * 4, 1),
        "truncated": good[:-1],
        "only a head": head,
        "longer": good + b"\0",
        "byte of code": head + b"\n" + packed[:9] + bytes([packed[9] ^ 1]) + packed[10:],
        "magic number": good.replace(MAGIC.hex().encode(), OWN.hex().encode(), 1),
    }.get(damage)
    if content is None:
        path.mkdir()
    else:
        assert content != good
        path.write_bytes(content)
    (tmp_path / "b.bin").write_bytes(start_bin.make_bytecode_file(b"\x03\x04\r\n", PACKED, modules))
    assert start_bin.shipped(modules, tmp_path) == {b"\x03\x04\r\n": PACKED}


@pytest.mark.parametrize("edited", ["text", "name", "order"])
def test_a_file_of_other_sources_is_left_out(modules: start_bin.Modules, tmp_path: Path, edited: str) -> None:
    (tmp_path / "a.bin").write_bytes(start_bin.make_bytecode_file(MAGIC, PACKED, modules))
    name, path, package, text = modules[-1]
    other = {
        "text": [*modules[:-1], (name, path, package, text + "\n")],
        "name": [*modules[:-1], (name + "x", path, package, text)],
        "order": [*modules[:-2], modules[-1], modules[-2]],
    }[edited]
    assert start_bin.shipped(other, tmp_path) == {}


def test_a_file_of_another_compiler_is_left_out(
    modules: start_bin.Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(start_bin.make_bytecode_file(MAGIC, PACKED, modules))
    text = start_bin.program()
    monkeypatch.setattr(start_bin, "program", lambda: text + "# edited\n")
    assert start_bin.shipped(modules, tmp_path) == {}


def test_the_payload_has_what_the_wheel_brings_and_the_hub_s_own(
    modules: start_bin.Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for magic in (MAGIC, OWN):
        content = start_bin.make_bytecode_file(magic, PACKED, modules)
        (tmp_path / f"{magic.hex()}.bin").write_bytes(content)
    monkeypatch.setattr(start_bin, "shipped_dir", lambda: tmp_path)
    payload_zip._build.cache_clear()
    try:
        _, found = parts(payload_zip.build().start)
    finally:
        payload_zip._build.cache_clear()
    assert set(found) == {b"", MAGIC, OWN}
    assert found[MAGIC] == PACKED != found[OWN]


def test_all_that_is_delivered_is_within_its_budget(modules: start_bin.Modules) -> None:
    """With bytecode for all versions; those that are not here count as much as the largest that is."""
    built = payload_zip.build()
    made = [bytecode.compile_with(python, modules) for python in OTHERS]
    compiled = {**start_bin.own(modules), **{one.magic: one.packed for one in made}}
    largest = max(compiled.values(), key=len)
    for number in range(len(bytecode.VERSIONS) - len(compiled)):
        compiled[b"%d" % number] = largest
    assert len(compiled) >= len(bytecode.VERSIONS)
    start = start_bin.make_start(modules, len(built.zip), compiled)
    total = len(built.zip) + len(start) + len(built.launcher)
    assert total < payload_zip.MAX_BYTES < 1_024_000 < 1 << 20
    assert payload_zip.MAX_ZIP_BYTES < payload_zip.MAX_BYTES


# -- the script ---------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two supported versions: the one that runs the tests, and one that nobody has. Returns a directory."""
    monkeypatch.setattr(bytecode, "VERSIONS", (sys.version_info[:2], (3, 99)))
    directory = tmp_path / "made"
    monkeypatch.setattr(sys, "argv", ["bytecode.py", "--directory", str(directory)])
    return directory


NAME = "cpython-{}.{}.bin".format(*sys.version_info[:2])


def test_a_missing_version_stops_it(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bytecode.main() == 1
    assert not script.exists()
    said = capsys.readouterr().err
    assert "no CPython 3.99 was found" in said
    assert "bytecode: {}.{}: made by".format(*sys.version_info[:2]) in said


def test_it_can_be_told_to_go_on(
    script: Path, capsys: pytest.CaptureFixture[str], modules: start_bin.Modules
) -> None:
    script.mkdir()
    (script / "cpython-3.98.bin").write_bytes(b"of an earlier run")
    sys.argv.append("--incomplete")
    assert bytecode.main() == 0
    assert os.listdir(script) == [NAME]
    assert list(start_bin.shipped(modules, script)) == [OWN]
    assert "left out: 3.99." in capsys.readouterr().err
    first = (script / NAME).read_bytes()
    assert bytecode.main() == 0
    assert (script / NAME).read_bytes() == first


def test_an_interpreter_that_is_named_goes_first(
    script: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named = tmp_path / "some-python"
    named.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    named.chmod(0o755)
    sys.argv += ["--incomplete", "--python", str(named)]
    assert bytecode.main() == 0
    assert f", {named}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo no such version >&2; exit 127", "no such version"),
        ("exit 3", "exit status 3"),
        ("echo hello", "exit status 0"),
        ("echo compiled CPython 3.14.0 alpha aabb0d0a 00", "CPython 3.14.0 (alpha) is no release"),
        ("echo compiled PyPy 3.11.1 final aabb0d0a 00", "PyPy 3.11.1 (final) is no release"),
    ],
)
def test_interpreters_that_are_not_used(
    modules: start_bin.Modules, tmp_path: Path, text: str, why: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{text}\n")
    python.chmod(0o755)
    with pytest.raises(bytecode.Unfit, match=re.escape(why)):
        bytecode.compile_with(str(python), modules)
    with pytest.raises(bytecode.Unfit):
        bytecode.compile_with(str(tmp_path / "missing"), modules)


def test_all_supported_versions_have_bytecode() -> None:
    """The hub's versions are in the project's metadata; images may have 3.9 besides."""
    text = (ROOT / "pyproject.toml").read_text()
    hub = {tuple(map(int, v.split("."))) for v in re.findall(r'Python :: (3\.\d+)"', text)}
    assert set(bytecode.VERSIONS) == hub | {(3, 9)}
