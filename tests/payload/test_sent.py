"""Files of which a page sends the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import sent
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import Requirements

PROJECT = """
[project]
name = "mine"
dependencies = ["numpy>=1.26", "Rich"]
[project.optional-dependencies]
plots = ["seaborn"]
[dependency-groups]
test = ["pytest", {include-group = "tools"}]
tools = ["ruff"]
"""

LOCK = """
version = 1
[[package]]
name = "mine"
source = { editable = "." }
dependencies = [{ name = "tinytree" }, { name = "beside" }]
[[package]]
name = "tinytree"
version = "1.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://index.example/t.whl", hash = "sha256:HASH" }]
[[package]]
name = "beside"
version = "1.0"
source = { path = "../beside/beside-1.0-py3-none-any.whl" }
""".replace("HASH", "0a" * 32)


def left(found: dict[str, Any]) -> list[str]:
    return [item["requirement"] for item in found["left_out"]]


def test_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hidden-word")
    (tmp_path / "other.txt").write_text("tinyleaf\n")
    text = f"""\ufeff# mine
numpy >= 1.26 \\
    , < 3  # not four
rich==13.0 --hash=sha256:{"0b" * 32}
-r {tmp_path}/other.txt
-rother.txt
--constraint limits.txt
-e .
-e ../mine[extra]
-e git+https://git.example.org/it#egg=it
~/wheels/a-1.0-py3-none-any.whl
./b-1.0-py3-none-any.whl
c @ file:///wheels/c-1.0-py3-none-any.whl
{tmp_path}/other.txt
--index-url https://elsewhere.example/
tool @ https://index.example/${{SECRET_TOKEN}}/tool.whl
${{SECRET_TOKEN}}==1.0
https://me:hidden-word@index.example/secret-1.0-py3-none-any.whl
"""
    found = sent.read("requirements.txt", text)
    assert found["requirements"] == [
        "numpy >= 1.26      , < 3",
        "rich==13.0",
        "it @ git+https://git.example.org/it#egg=it",
        "tool @ https://index.example/${SECRET_TOKEN}/tool.whl",
    ]
    assert "hidden-word" not in str(found) and "tinyleaf" not in str(found)
    assert len(left(found)) == 13, left(found)
    assert left(found)[-1] == "1 hash"
    assert all(item["reason"] for item in found["left_out"])


def test_a_project_and_its_groups() -> None:
    found = sent.read("pyproject.toml", PROJECT)
    assert found == {
        "requirements": ["numpy>=1.26", "Rich"],
        "left_out": [],
        "groups": ["plots", "test", "tools"],
    }
    found = sent.read("pyproject.toml", PROJECT, ["Test", "plots"])
    assert found["requirements"] == ["numpy>=1.26", "Rich", "pytest", "ruff", "seaborn"]
    with pytest.raises(OverlayError) as caught:
        sent.read("pyproject.toml", PROJECT, ["nothing"])
    assert caught.value.code == "bad-request"


def test_a_lock() -> None:
    found = sent.read("uv.lock", LOCK)
    assert found["requirements"] == ["tinytree==1.0"]
    assert left(found) == ["mine", "beside @ file://../beside/beside-1.0-py3-none-any.whl", "1 hash"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "[["),
        ("pyproject.toml", ".".join("a" * 400_000) + " = 1"),
        ("uv.lock", "version = 9"),
        ("requirements.txt", "a\0b"),
    ],
)
def test_what_is_none(name: str, text: str) -> None:
    with pytest.raises(OverlayError) as caught:
        sent.read(name, text)
    assert caught.value.code == "bad-request"


def test_rows_of_spaces_are_read_once() -> None:
    # hours, if each were looked at from each of them; with that a server stands still
    found = sent.read(
        "requirements.txt", f"x{' ' * 900_000}y\nnumpy{' ' * 900} # why\nrich==1   --hash=sha256:0"
    )
    assert found["requirements"] == ["numpy", "rich==1"] and len(found["left_out"]) == 1
    lines = Requirements(f"x{' ' * 900_000}y\nnumpy   # why\n   # why")
    assert [entry.text for entry in lines.entries()] == ["numpy"]


def test_groups_that_include_one_another_count_once() -> None:
    def groups(count: int) -> str:
        both = "{include-group = 'g%d'}, {include-group = 'g%d'}"
        inner = [f"g{n} = [{both % (n + 1, n + 1)}]" for n in range(count)]
        return "\n".join(["[dependency-groups]", *inner, f"g{count} = ['numpy']"])

    assert sent.read("pyproject.toml", groups(90), ["g0"])["requirements"] == ["numpy"]
    for text in (groups(5000), "[dependency-groups]\ng0 = [{include-group = 'g0'}]"):
        with pytest.raises(OverlayError) as caught:
            sent.read("pyproject.toml", text, ["g0"])
        assert caught.value.code == "bad-request"


@pytest.mark.parametrize("odd", ["dependencies = 5", "dependencies = [{ name = 'tinytree', extra = 5 }]"])
def test_a_lock_of_other_kinds(odd: str) -> None:
    text = LOCK.replace('dependencies = [{ name = "tinytree" }, { name = "beside" }]', odd)
    assert text != LOCK
    assert sent.read("uv.lock", text)["requirements"] == (["tinytree==1.0"] if "tinytree" in odd else [])
