"""The generated pages are what the code says, and say of no setting that it works when nothing reads it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    path = list(sys.path)
    sys.path.insert(0, str(DOCS))
    try:
        import generate

        return generate
    finally:
        sys.path[:] = path


@pytest.mark.parametrize(
    "name",
    [
        "settings.md",
        "command-line.md",
        "codes.md",
        "rest.md",
        "spec.md",
        "helm.md",
        "engines.md",
        "spawn-failures.md",
    ],
)
def test_page_is_current(generate: ModuleType, name: str) -> None:
    written = (DOCS / "reference" / name).read_text()
    assert written == generate.page(name), f"docs/reference/{name} is stale: run `make docs`"


def test_the_chart_s_schema_is_current(generate: ModuleType) -> None:
    assert generate.charts.SCHEMA.read_text() == generate.charts.schema_text(), "run `make docs`"


def test_every_generated_page_is_checked(generate: ModuleType) -> None:
    assert set(generate.PAGES) == {
        "settings.md",
        "command-line.md",
        "codes.md",
        "rest.md",
        "spec.md",
        "helm.md",
        "engines.md",
        "spawn-failures.md",
    }


def test_check_finds_a_stale_page(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "overlayspawner").symlink_to(ROOT / "overlayspawner")
    command = [sys.executable, str(tmp_path / "docs" / "generate.py"), "--check"]
    page = tmp_path / "docs" / "reference" / "codes.md"
    page.write_text(page.read_text() + "Something else.\n")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "codes.md is out of date" in result.stdout
    assert page.read_text().endswith("Something else.\n")


def _read_by_the_payload() -> set[str]:
    """Names of attributes that are read of something called ``spec``, outside the contract."""
    found = set()
    for path in (ROOT / "overlayspawner" / "payload").rglob("*.py"):
        if path.name == "contract.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                if name in ("spec", "_spec"):
                    found.add(node.attr)
    return found


def test_settings_without_effect_are_marked(generate: ModuleType) -> None:
    """A field of the spec that nothing reads is marked as without effect, and only such a one."""
    from overlayspawner.payload.contract import Spec

    unread = set(vars(Spec())) - _read_by_the_payload()
    marked = {name.removeprefix("overlay_") for name in generate.NOT_YET}
    assert marked == unread
