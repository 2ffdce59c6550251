"""The manual names only what there is: files, anchors, commands, settings, targets and modules."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from overlayspawner.hub.command import OverlayCommandMixin
from overlayspawner.hub.docker import OverlayDockerSpawner
from overlayspawner.hub.kube import OverlayKubeSpawner
from overlayspawner.hub.local import OverlayLocalSpawner
from overlayspawner.payload import cli, contract

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The text without blocks of code, and without spans of it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def code(page: Path) -> str:
    """The blocks and spans of code, one below the other."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`]+)`", rest)])


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(there), f"{there.name} has no heading for #{anchor}"


@each_page
def test_commands_exist(page: Path) -> None:
    actions = cli._parser()._actions
    verbs = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    found = re.findall(r"^overlay ([a-z]+)", code(page), flags=re.MULTILINE)
    assert set(found) <= set(verbs)


@each_page
def test_settings_exist(page: Path) -> None:
    found = set(
        re.findall(r"\b(overlay_[a-z_]+|(?:delete_)?home_volume|home_dir_template)\b", page.read_text())
    )
    classes = (OverlayDockerSpawner, OverlayKubeSpawner, OverlayLocalSpawner)
    known = {name for cls in classes for name in cls.class_trait_names()}
    known |= {name for name in vars(OverlayCommandMixin) if name.startswith("overlay_")}
    assert found <= known


@each_page
def test_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    found = set(re.findall(r"^make ([a-z][a-z0-9-]*)", code(page), flags=re.MULTILINE))
    assert found <= targets


@each_page
def test_codes_exist(page: Path) -> None:
    found = set(re.findall(r"codes\.md#([a-z-]+)", page.read_text()))
    found |= set(re.findall(r"`\[([a-z]+-[a-z-]+)\]`", page.read_text()))
    assert found <= set(contract.CODES)


def test_the_map_has_every_module() -> None:
    text = (ROOT / "docs" / "development.md").read_text()
    for half in ("hub", "payload"):
        section = text.split(f"### overlayspawner/{half}\n")[1].split("\n#")[0]
        root = ROOT / "overlayspawner" / half
        modules = {str(p.relative_to(root)) for p in root.rglob("*") if p.suffix in (".py", ".sh")}
        modules -= {"__init__.py", "server/__init__.py"}
        assert set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)) == modules
