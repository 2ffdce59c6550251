"""Packages that lie in both layers: told exactly where Python can't import a part any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload.dists import by_name, listing
from overlayspawner.payload.splits import splits
from tests.payload.faults.trees import package
from tests.support.changes import write

JOINING = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"


def find(tmp_path: Path, ours: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
    for site, layer in (("overlay", ours), ("base", image)):
        for name, contents in layer.items():
            write(str(tmp_path / site), package(name, "1", contents))
    staged = by_name(listing(str(tmp_path / "overlay")))
    return splits(staged, {}, by_name(listing(str(tmp_path / "base"))))


def importable(tmp_path: Path, module: str) -> bool:
    code = (
        f"import sys; sys.path[:0] = {[str(tmp_path / 'overlay'), str(tmp_path / 'base')]!r}; import {module}"
    )
    return (
        subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=False).returncode == 0
    )


CASES: list[tuple[dict[str, Any], dict[str, Any], str, str, list[str]]] = [
    # the overlay's is regular and hides what another one of the image adds
    (
        {"plug": {"plug/__init__.py": ""}},
        {"plug": {"plug/__init__.py": ""}, "plug_extra": {"plug/extra.py": ""}},
        "plug.extra",
        "overlay",
        ["plug-extra==1"],
    ),
    # the image's is regular and hides what the overlay adds
    (
        {"plug_extra": {"plug/extra.py": ""}},
        {"plug": {"plug/__init__.py": "", "plug/core.py": ""}},
        "plug.extra",
        "base",
        ["plug==1"],
    ),
    # one level deeper, below a namespace package
    (
        {"a": {"cloud/store/__init__.py": ""}},
        {"b": {"cloud/store/more.py": ""}, "c": {"cloud/other/__init__.py": ""}},
        "cloud.store.more",
        "overlay",
        ["b==1"],
    ),
]


@pytest.mark.parametrize(("ours", "image", "module", "regular", "install"), CASES)
def test_torn_apart(
    ours: dict[str, Any], image: dict[str, Any], module: str, regular: str, install: list[str], tmp_path: Path
) -> None:
    found = find(tmp_path, ours, image)
    assert not importable(tmp_path, module)
    assert [(f["package"], f["regular"], f["install"]) for f in found] == [
        (module.rpartition(".")[0], regular, install)
    ]
    assert install[0] in found[0]["message"]
    # the remedy works
    name = install[0].partition("==")[0].replace("-", "_")
    write(str(tmp_path / "overlay"), package(name, "1", image[name]))
    assert importable(tmp_path, module)


@pytest.mark.parametrize(
    ("ours", "image", "module"),
    [
        # namespace packages are joined
        ({"a": {"ns/a/__init__.py": ""}}, {"b": {"ns/b/__init__.py": ""}}, "ns.b"),
        # another version of the same distribution
        (
            {"a": {"a/__init__.py": "", "a/new.py": ""}},
            {"a": {"a/__init__.py": "", "a/old.py": ""}},
            "a.new",
        ),
        # made to be joined
        (
            {"a": {"j/__init__.py": JOINING, "j/a.py": ""}},
            {"b": {"j/__init__.py": JOINING, "j/b.py": ""}},
            "j.b",
        ),
        ({"a": {"one.py": ""}}, {"b": {"two/__init__.py": ""}}, "two"),
    ],
)
def test_not_torn_apart(ours: dict[str, Any], image: dict[str, Any], module: str, tmp_path: Path) -> None:
    assert find(tmp_path, ours, image) == []
    assert importable(tmp_path, module)
