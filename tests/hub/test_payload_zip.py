"""The payload's zip: what is in it, that it runs, and that its name depends on nothing but its sources."""

from __future__ import annotations

import ast
import asyncio
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import overlayspawner
from overlayspawner.hub import command, payload_zip

PACKAGE = Path(overlayspawner.__file__).parent


def test_two_builds_give_the_same_bytes_whatever_the_dates_and_modes_of_the_sources(tmp_path: Path) -> None:
    first = payload_zip.build()
    module = PACKAGE / "payload" / "contract.py"
    before = module.stat()
    os.utime(module, (1, 1))
    payload_zip._build.cache_clear()
    try:
        second = payload_zip.build()
    finally:
        os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
        payload_zip._build.cache_clear()
    assert second == first


@pytest.fixture
def unbuilt() -> Iterator[None]:
    """As in a hub that has just begun."""
    payload_zip._build.cache_clear()
    yield
    payload_zip._build.cache_clear()


@pytest.mark.usefixtures("unbuilt")
def test_threads_that_want_it_at_once_get_the_same_one() -> None:
    with ThreadPoolExecutor(4) as threads:
        found = [future.result() for future in [threads.submit(payload_zip.build) for _ in range(4)]]
    assert len({id(payload) for payload in found}) == 1
    assert payload_zip._build.cache_info().misses == 1


@pytest.mark.usefixtures("unbuilt")
async def test_the_hub_serves_others_while_it_is_built(tmp_path: Path) -> None:
    built_before_others = []

    async def other() -> None:
        built_before_others.append(payload_zip._build.cache_info().currsize)

    waiting = asyncio.ensure_future(other())
    directory, _ = await command.deliver(str(tmp_path / "payload"))
    await waiting
    assert built_before_others == [0] and Path(directory, "overlay.pyz").is_file()


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_builds_the_same_bytes(seed: str) -> None:
    code = "from overlayspawner.hub import payload_zip; print(payload_zip.build().id)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert done.stdout.strip() == payload_zip.build().id


def _bare(source: bytes) -> str:
    """The program without texts that are evaluated and thrown away, with the line of each statement."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for gone in ("end_lineno", "end_col_offset"):  # of a function that ends with such a text
            if hasattr(node, gone):
                setattr(node, gone, 0)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                e for e in body if not (isinstance(e, ast.Expr) and isinstance(e.value, ast.Constant))
            ]
            node.body = [e for e in node.body if not isinstance(e, ast.Pass)]
    return ast.dump(tree, include_attributes=True)


@pytest.mark.parametrize("path", sorted((PACKAGE / "payload").rglob("*.py")), ids=lambda p: p.name)
def test_what_is_left_out_changes_no_program(path: Path) -> None:
    source = path.read_bytes()
    assert _bare(payload_zip.lean(source)) == _bare(source)


def test_docstrings_and_comments_are_left_out() -> None:
    source = b"""'''Text.'''
import x  # stays
# goes
class E(Exception):
    'Text.'
class F:
    a = 1
    'about a'
    b = '# stays'
    c = '''
# stays
'''
def f():
    'one'; return 2
"""
    lean = payload_zip.lean(source)
    assert b"Text" not in lean and b"goes" not in lean and b"about" not in lean
    assert lean.count(b"stays") == 3 and lean.count(b"\n") == source.count(b"\n")
    scope: dict[str, object] = {}
    exec(compile(lean.replace(b"import x", b""), "lean", "exec"), scope)
    assert scope["F"].c == "\n# stays\n" and scope["f"]() == 2  # type: ignore[attr-defined, operator]


def test_the_id_depends_on_every_source() -> None:
    sources = {"a.py": b"1", "b.py": b"2"}
    assert payload_zip.make_zip(sources) != payload_zip.make_zip({**sources, "b.py": b"3"})
    assert payload_zip.make_zip(sources) == payload_zip.make_zip(dict(reversed(sources.items())))


def test_it_holds_the_payload_and_nothing_of_the_hub() -> None:
    with zipfile.ZipFile(io.BytesIO(payload_zip.build().zip)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert names == sorted(names)
    found = [p for p in (PACKAGE / "payload").rglob("*") if p.suffix in (".py", ".txt")]
    expected = {str(p.relative_to(PACKAGE.parent)) for p in found}
    # the panel, where somebody has built it
    built = (PACKAGE / "labextension").rglob("*")
    expected |= {str(p.relative_to(PACKAGE.parent)) for p in built if p.is_file()}
    assert set(names) == expected | {"__main__.py", "overlayspawner/__init__.py"}


def test_it_is_within_its_budget() -> None:
    assert len(payload_zip.build().zip) < payload_zip.MAX_ZIP_BYTES


def test_it_imports_from_the_zip_with_the_standard_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "overlay.pyz"
    path.write_bytes(payload_zip.build().zip)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from overlayspawner.payload import contract as c"
    code += "; print(c.__file__)"
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip().startswith(str(path))
