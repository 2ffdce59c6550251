"""Which extensions for JupyterLab come out of an overlay: decided, found, copied."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import envkernels, labextensions, labfolder
from overlayspawner.payload.labextensions import Damaged, Lab, allows, order, read, told, why_not
from overlayspawner.payload.overlay import Env

LAB = Lab("4.2.0", {"@jupyterlab/application": 4, "@jupyterlab/services": 7, "@jupyterlab/coreutils": 6})


def package(name: str = "tiny", **more: Any) -> dict[str, Any]:
    lab = {"extension": True, "_build": {"load": "static/remoteEntry.1.js", "extension": "./extension"}}
    return {"name": name, "version": "1.2.3", "jupyterlab": {**lab, **more.pop("jupyterlab", {})}, **more}


def reason(data: dict[str, Any], **options: Any) -> str:
    found = why_not(read(json.dumps(data), data["name"]), LAB, **options)
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("versions", "majors"),
    [
        ("^4.0.0", {4}),
        ("~4.6.6", {4}),
        ("4", {4}),
        ("4.x", {4}),
        ("^2 || ^3 || ^4", {2, 3, 4}),
        ("^3.0.0 || ^3.8.0", {3}),
        (">=2.0.0 <4.0.0", {2, 3}),
        (">=2 <4.1", {2, 3, 4}),
        (">= 3", {3, 4, 5, 6}),
        ("3 - 5", {3, 4, 5}),
        ("^4.0.0-alpha.1", {4}),
        ("<=3", {0, 1, 2, 3}),
        # what says nothing
        ("*", {0, 1, 2, 3, 4, 5, 6}),
        ("", {0, 1, 2, 3, 4, 5, 6}),
        ("latest", {0, 1, 2, 3, 4, 5, 6}),
        ("workspace:^", {0, 1, 2, 3, 4, 5, 6}),
        ("file:../3", {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_majors_of_a_range(versions: str, majors: set[int]) -> None:
    assert {major for major in range(7) if allows(versions, major)} == majors


def test_versions_are_ordered_as_npm_does() -> None:
    versions = ["2.0.0", "1.10.0", "1.0.1", "1.0.0", "1.0.0-beta", "1.0.0-alpha.10", "1.0.0-alpha.2", "no"]
    assert sorted(versions, key=order, reverse=True) == versions
    assert sorted(versions, key=order) == versions[::-1]


@pytest.mark.parametrize(
    ("data", "options", "word"),
    [
        (package(dependencies={"@jupyterlab/application": "^3.0.0"}), {}, "@jupyterlab/application ^3.0.0"),
        (package(dependencies={"@jupyterlab/services": "^6"}), {}, "@jupyterlab/services ^6"),
        (package(), {"modules": ["tiny_server"]}, "tiny_server"),
        (package(jupyterlab={"discovery": {"server": {"base": {"name": "tiny-py"}}}}), {}, "tiny-py"),
        (package(jupyterlab={"discovery": {"server": {}}}), {}, ""),
        (package(jupyterlab={"discovery": {"server": {"managers": []}}}), {}, "server extension"),
        (package("@jupyter/docprovider-extension"), {}, "jupyter_server_ydoc"),
        (package(), {"image": "1.2.4"}, "1.2.4"),
        (package("@jupyter-notebook/lab-extension"), {"image": "1.2.2"}, "the image's version 1.2.2"),
        (package("overlayspawner"), {}, "panel"),
    ],
)
def test_left_out(data: dict[str, Any], options: dict[str, Any], word: str) -> None:
    found = reason(data, **options)
    assert word in found and bool(word) == bool(found)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (package(dependencies={"@jupyterlab/application": "^3 || ^4", "@lumino/widgets": "^1"}), {}),
        (package(dependencies={"@jupyterlab/services": "^7.0.0", "@jupyterlab/elsewhere": "^1"}), {}),
        # brought along, not shared
        (
            package(
                dependencies={"@jupyterlab/application": "^3"},
                jupyterlab={"sharedPackages": {"@jupyterlab/application": False}},
            ),
            {},
        ),
        (package(), {"image": "1.2.3-beta"}),
        (package(), {"modules": ["tiny_server"], "loaded": {"tiny_server"}}),
        (
            package(jupyterlab={"discovery": {"server": {"base": {"name": "Tiny.Py"}}}}),
            {"installed": {"tiny-py"}},
        ),
    ],
)
def test_taken(data: dict[str, Any], options: dict[str, Any]) -> None:
    assert reason(data, **options) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        json.dumps({"name": "tiny", "version": "1.0.0"}),
        json.dumps({"name": "tiny", "version": "1.0.0", "jupyterlab": []}),
        json.dumps({"name": "tiny", "version": "1.0.0", "jupyterlab": {"_build": 1}}),
        json.dumps(package("other")),
        json.dumps({**package(), "name": ["tiny"]}),
        json.dumps({**package(), "version": 1}),
        json.dumps({**package(), "version": "<b>"}),
        *(
            json.dumps(package(jupyterlab={"_build": {"load": load}}))
            for load in (
                None,
                "",
                1,
                "/etc/passwd",
                "../x.js",
                "static/../../x.js",
                "https://e.org/x.js",
                "a b",
            )
        ),
    ],
)
def test_damaged(text: str) -> None:
    with pytest.raises(Damaged):
        read(text, "tiny")


@pytest.mark.parametrize("name", ["<img src=x>", "a/b", "@a/b/c", "..", "@a", ".hidden", "a\nb", "é"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Damaged):
        read(json.dumps(package(name)), name)


def test_only_what_jupyterlab_needs_is_taken_over() -> None:
    data = package(
        description="A <b>tiny</b> one",
        homepage={"no": "text"},
        repository=["no"],
        dependencies={"a": 1, "b": "^1"},
        scripts={"x": "y"},
        jupyterlab={
            "_build": {
                "load": "static\\remoteEntry.js",
                "extension": "./ext",
                "style": 4,
                "mimeExtension": {},
            },
            "disabledExtensions": ["@jupyterlab/mathjax-extension:plugin", 7, "overlayspawner:panel"],
        },
    )
    assert read(json.dumps(data), "tiny").package == {
        "name": "tiny",
        "version": "1.2.3",
        "description": "A <b>tiny</b> one",
        "dependencies": {"b": "^1"},
        "jupyterlab": {
            "_build": {"load": "static/remoteEntry.js", "extension": "./ext"},
            "disabledExtensions": ["@jupyterlab/mathjax-extension:plugin"],
        },
    }


def test_a_notice_names_the_package_and_is_one_line() -> None:
    found = told("tiny\x1b[0m\n", "tiny-py", "1.0", "it is " + "x" * 1000, "Do.")
    assert found["code"] == labextensions.CODE
    assert found["message"].startswith("The JupyterLab extension tiny?[0m? (from tiny-py 1.0) is not loaded")
    assert len(found["message"]) <= 600


# -- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(str(tmp_path / "env"), "3.11")


def put(env: Env, name: str, files: dict[str, str] | None = None, **more: Any) -> Path:
    folder = Path(env.path, "share", "jupyter", "labextensions", name)
    contents = {"package.json": json.dumps(package(name, **more)), "static/remoteEntry.1.js": "1;"}
    for path, text in {**contents, **(files or {})}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def installed(env: Env, name: str, files: list[str]) -> None:
    info = Path(env.site_packages, f"{name}-1.0.dist-info")
    info.mkdir(parents=True)
    (info / "RECORD").write_text("".join(f"../../../{path},sha256=x,1\n" for path in files))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def copied(env: Env, tmp_path: Path, name: str = "tiny", good: bool = True) -> set[str]:
    target = tmp_path / "copy"
    source = os.path.join(env.path, *labfolder.FOLDER, name)
    labfolder.copy(source, str(target), package(name), lambda schema: good)
    assert not any(path.is_symlink() for path in target.rglob("*"))
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def test_two_levels_are_looked_at(env: Env) -> None:
    for name in ("tiny", "@org/one", "@org/two", ".hidden", "~ending", "deep/inside"):
        put(env, name)
    (Path(env.path, *labfolder.FOLDER) / "file.txt").write_text("x")
    found = labfolder.scan(env)
    assert [item.name for item in found] == ["@org/one", "@org/two", "tiny"]
    put(env, "tiny", description="another")
    changed = [item.name for item, before in zip(labfolder.scan(env), found) if item.mark != before.mark]
    assert changed == ["tiny"]


def test_links_are_seen_and_not_followed(env: Env, tmp_path: Path) -> None:
    put(env, "tiny")
    elsewhere = Env(str(tmp_path / "elsewhere"), "3.11")
    other = put(elsewhere, "other")
    top = Path(env.path, *labfolder.FOLDER)
    (top / "other").symlink_to(other)
    (top / "@org").symlink_to(top)  # a loop
    assert {item.name: item.mark is None for item in labfolder.scan(env)} == {
        "tiny": False,
        "other": True,
        "@org": True,
    }
    linked = Env(str(tmp_path / "linked"), "3.11")
    Path(linked.path).mkdir()
    Path(linked.path, "share").symlink_to(Path(elsewhere.path, "share"))
    assert [(item.name, item.mark) for item in labfolder.scan(linked)] == [("labextensions", None)]
    assert labfolder.scan(Env(str(tmp_path / "nothing"), "3.11")) == []


def test_nothing_outside_is_copied(env: Env, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "token").write_text("secret")
    folder = put(env, "tiny", {"static/1.js": "1", "static/1.js.map": "{}", "themes/x.css": "x"})
    (folder / "static" / "link.js").symlink_to(secret / "token")
    (folder / "static" / "dir").symlink_to(secret)
    (folder / "static" / "loop").symlink_to(folder)
    os.mkfifo(folder / "static" / "fifo.js")
    assert copied(env, tmp_path) == {"package.json", "static/remoteEntry.1.js", "static/1.js", "themes/x.css"}


def test_package_json_is_ours_and_install_json_stays_away(env: Env, tmp_path: Path) -> None:
    put(env, "tiny", {"install.json": "{truncat"}, description="long")
    assert "install.json" not in copied(env, tmp_path)
    assert json.loads((tmp_path / "copy" / "package.json").read_text()) == package("tiny")


@pytest.mark.parametrize(
    ("name", "path", "text", "good", "there"),
    [
        ("tiny", "schemas/tiny/plugin.json", '{"properties": {}}', True, True),
        ("@org/tiny", "schemas/@org/tiny/plugin.json", "{}", True, True),
        ("tiny", "schemas/tiny/package.json.orig", "{", True, True),
        ("tiny", "schemas/tiny/plugin.json", "{}", False, False),
        ("tiny", "schemas/tiny/plugin.json", "{", True, False),
        ("tiny", "schemas/tiny/plugin.json", "[]", True, False),
        ("tiny", "schemas/tiny/plugin.json", '{"properties": []}', True, False),
        # no browser could read the answer that has the schemas of all
        ("tiny", "schemas/tiny/plugin.json", '{"properties": {"a": {"default": NaN}}}', True, False),
        ("tiny", "schemas/other/plugin.json", "{}", True, False),
        ("tiny", "schemas/plugin.json", "{}", True, False),
        ("tiny", "static/schemas/x.json", "{}", True, False),
        ("myschemas", "schemas/myschemas/plugin.json", "{}", True, False),
    ],
)
def test_schemas(env: Env, tmp_path: Path, name: str, path: str, text: str, good: bool, there: bool) -> None:
    put(env, name, {path: text})
    assert (path in copied(env, tmp_path, name, good)) is there


def test_limits(env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(env, "tiny", {"static/big.js": "x" * 1000})
    monkeypatch.setattr(labfolder, "MAX_BYTES", 900)
    with pytest.raises(labfolder.TooLarge):
        copied(env, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(labfolder, "MAX_FILES", 1)
    with pytest.raises(labfolder.TooLarge):
        labfolder.copy(str(put(env, "tiny")), str(tmp_path / "two"), package(), lambda schema: True)
    folder = put(env, "huge", {"package.json": " " * (labextensions.MAX_PACKAGE_JSON + 1)})
    with pytest.raises(ValueError):
        labfolder.read_text(str(folder / "package.json"))


def test_whose_it_is_and_what_it_has_a_server_load(env: Env) -> None:
    place = "share/jupyter/labextensions"
    config = "etc/jupyter/jupyter_server_config.d"
    for name in ("tiny", "@org/scoped", "other", "nobodys"):
        put(env, name)
    put(env, "told", {"install.json": json.dumps({"packageName": "Tells.It"})})
    installed(env, "tiny", [f"{place}/tiny/package.json"])
    installed(env, "pyscoped", [f"{place}/@org/scoped/package.json", f"{config}/a.json", f"{config}/b.json"])
    installed(env, "tells_it", [f"{place}/told/package.json", f"{config}/gone.json"])
    # of the same name, but not its owner
    installed(env, "other", ["share/else"])
    installed(env, "zother", [f"{place}/other/package.json"])
    folder = Path(env.path, config)
    folder.mkdir(parents=True)
    switched = {"ServerApp": {"jpserver_extensions": {"a_module": True, "off": False}}}
    (folder / "a.json").write_text(json.dumps(switched))
    (folder / "b.json").write_text("{truncat")
    owners = labfolder.owners(env, labfolder.scan(env))
    assert {name: dist.name for name, dist in owners.items()} == {
        "tiny": "tiny",
        "@org/scoped": "pyscoped",
        "told": "tells-it",
        "other": "zother",
    }
    assert labfolder.server_extensions(env, owners["tiny"]) == []
    assert labfolder.server_extensions(env, owners["@org/scoped"]) == ["a_module", "b"]
    assert labfolder.server_extensions(env, owners["told"]) == ["gone"]


@pytest.mark.parametrize(("number", "there"), [("1", True), ("NaN", False), ("1e999", False)])
def test_a_kernel_that_no_browser_could_read_of(env: Env, number: str, there: bool) -> None:
    folder = Path(env.path, "share", "jupyter", "kernels", "own")
    folder.mkdir(parents=True)
    text = '{"argv": ["python"], "display_name": "Own", "language": "x", "metadata": {"a": %s}}'
    (folder / "kernel.json").write_text(text % number)
    assert ("own" in envkernels.wanted(env, ())) is there
