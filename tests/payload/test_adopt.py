"""What other tools change in an env is recorded: with a real pip and uv, and a real index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import adopt, doctor, leftovers, merge, revisions, snapshot
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.probe import Base
from tests.support.envs import (
    ROOT,
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_context,
    run_child,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    yield make_context(tmp_path / "home", base, index_url=index.url)


def pip(ctx: Context, *arguments: str) -> None:
    """Run the env's pip as `!python -m pip` does."""
    _, env = ctx.require()
    argv = [env.python, "-I", "-m", "pip", *arguments, "-q", "--disable-pip-version-check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def uv(ctx: Context, *arguments: str) -> None:
    _, env = ctx.require()
    program = os.path.join(os.path.dirname(sys.executable), "uv")
    index_url = os.environ["PIP_INDEX_URL"]
    argv = [program, "pip", *arguments, "-q", "--python", env.python]
    if arguments[0] == "install":
        argv += ["--index-url", index_url]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def lines(ctx: Context) -> list[str]:
    overlay, _ = ctx.require()
    return Path(overlay.requirements).read_text().splitlines()


def write_lines(ctx: Context, *text: str) -> None:
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_text("".join(line + "\n" for line in text))


def site(ctx: Context) -> Path:
    _, env = ctx.require()
    return Path(env.site_packages)


def versions(items: list[dict[str, Any]]) -> dict[str, str]:
    return {item["name"]: item["version"] for item in items}


def test_nothing_is_adopted_from_an_env_nobody_touched(ctx: Context) -> None:
    assert not adopt.needed(ctx)
    apply(ctx, "install", install=["tinytree"])
    assert not adopt.needed(ctx)
    overlay, _ = ctx.require()
    assert not adopt.adopt(ctx)["revision"]["changed"]
    apply(ctx, "uninstall", uninstall=["tinytree"])
    assert not adopt.needed(ctx)
    assert len(revisions.ids(overlay)) == 2


@pytest.mark.parametrize("tool", [pip, uv])
def test_packages_from_another_tool_are_adopted(ctx: Context, tool: Any) -> None:
    tool(ctx, "install", "tinytree")
    assert adopt.needed(ctx)
    result = adopt.adopt(ctx, who="somebody")
    plan = result["plan"]
    assert "tinytree" in versions(plan["new"])
    assert [p["name"] for p in plan["new"] if p["requested"]] == ["tinytree"]
    # what it needs came along, and is no line of its own
    assert lines(ctx) == ["tinytree"]
    assert not adopt.needed(ctx)
    overlay, _ = ctx.require()
    revision = revisions.latest(overlay)
    assert revision is not None
    assert (revision["action"], revision["who"], revision["undo"]) == ("adopt", "somebody", "download")
    assert revision["requirements"] == {"before": [], "after": ["tinytree"]}
    assert not adopt.adopt(ctx)["revision"]["changed"]
    assert merge.pending(overlay) == {"added": [], "removed": [], "changed": []}


def test_a_version_that_hides_the_images_is_written_down(ctx: Context) -> None:
    pip(ctx, "install", "tinyleaf==2.0")
    plan = adopt.adopt(ctx)["plan"]
    assert [(s["name"], s["hidden"]) for s in plan["shadows"]] == [("tinyleaf", "1.1")]
    assert lines(ctx) == ["tinyleaf==2.0"]


def test_what_a_command_asked_for_is_recorded_as_it_was_asked(ctx: Context) -> None:
    pip(ctx, "install", "tinytree>=1")
    argv = ["pip", "install", "--no-cache-dir", "-i", "http://me:secret@127.0.0.1/simple", "tinytree>=1"]
    adopt.adopt(ctx, argv=[*argv, "tinyleaf", "only-if-needed"])
    # the image had tinyleaf: nothing was installed, and still it was asked for
    assert lines(ctx) == ["tinyleaf", "tinytree>=1"]
    overlay, _ = ctx.require()
    revision = revisions.latest(overlay)
    assert revision is not None
    assert "secret" not in json.dumps(revision)
    assert revision["argv"][:2] == ["pip", "install"]


def test_a_removal_takes_the_line_along(ctx: Context) -> None:
    apply(ctx, "install", install=["tinytree", "tinydata"])
    pip(ctx, "uninstall", "-y", "tinydata")
    result = adopt.adopt(ctx)
    assert [(r["name"], r["reason"]) for r in result["plan"]["removes"]] == [("tinydata", "uninstalled")]
    assert lines(ctx) == ["tinytree"]
    assert result["missing"] == []


def test_metadata_that_went_alone_is_missing_not_removed(ctx: Context) -> None:
    apply(ctx, "install", install=["tinytree"])
    before = lines(ctx)
    shutil.rmtree(next(site(ctx).glob("tinytree-*.dist-info")))
    result = adopt.adopt(ctx)
    assert result["missing"] == ["tinytree"]
    assert not result["revision"]["changed"]
    assert lines(ctx) == before
    assert adopt.missing(ctx) == ["tinytree"]
    assert [n["code"] for n in adopt.notices(ctx)] == ["packages-missing"]
    # looking again finds nothing new, and does not forget
    assert not adopt.needed(ctx)
    assert adopt.adopt(ctx)["missing"] == ["tinytree"]


def test_another_version_than_the_line_allows_leaves_the_line_and_is_pending(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyleaf>=2"])
    pip(ctx, "install", "tinyleaf==1.0")
    plan = adopt.adopt(ctx)["plan"]
    assert [(p["name"], p["version"], p["replaces"]) for p in plan["new"]] == [("tinyleaf", "1.0", "2.0")]
    assert lines(ctx) == ["tinyleaf>=2"]
    overlay, _ = ctx.require()
    assert merge.pending(overlay)["changed"] == ["tinyleaf>=2"]


def test_a_later_command_beats_a_line_that_nobody_edited(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyleaf>=2"])
    pip(ctx, "install", "tinyleaf==1.0")
    adopt.adopt(ctx, argv=["pip", "install", "tinyleaf==1.0"])
    assert lines(ctx) == ["tinyleaf==1.0"]
    overlay, _ = ctx.require()
    assert not any(merge.pending(overlay).values())


def test_a_line_edited_by_hand_beats_the_command(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyleaf"])
    write_lines(ctx, "# mine", "tinyleaf>=2  # because")
    pip(ctx, "install", "tinyleaf==1.0")
    adopt.adopt(ctx, argv=["pip", "install", "tinyleaf==1.0"])
    assert lines(ctx) == ["# mine", "tinyleaf>=2  # because"]
    overlay, _ = ctx.require()
    assert merge.pending(overlay)["changed"] == ["tinyleaf>=2"]


def test_a_hand_written_line_is_realised_by_a_tool_that_installs_what_it_says(ctx: Context) -> None:
    write_lines(ctx, "tinytree>=1  # soon")
    overlay, _ = ctx.require()
    assert merge.pending(overlay)["added"] == ["tinytree>=1"]
    pip(ctx, "install", "tinytree")
    adopt.adopt(ctx)
    assert lines(ctx) == ["tinytree>=1  # soon"]
    assert not any(merge.pending(overlay).values())


def test_urls_are_recorded_without_credentials(ctx: Context, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "localpkg", "3.1")
    pip(ctx, "install", f"file://{wheel}")
    adopt.adopt(ctx)
    assert lines(ctx) == [f"localpkg @ file://{wheel}"]
    write_lines(ctx)
    messages: list[str] = []
    info = next(site(ctx).glob("localpkg-*.dist-info")) / "direct_url.json"
    info.write_text(json.dumps({"url": "https://user:secret@example.org/localpkg.whl", "archive_info": {}}))
    (info.parent / "RECORD").write_text((info.parent / "RECORD").read_text() + "x,,\n")
    item = snapshot.read(ctx.require()[1])
    assert item is not None
    del item["localpkg"]
    snapshot.write(ctx.require()[1], item)
    adopt.adopt(ctx, on_event=lambda event: messages.append(event["message"]))
    assert lines(ctx) == ["localpkg==3.1"]
    assert any("credentials" in message for message in messages)
    overlay, _ = ctx.require()
    assert "secret" not in json.dumps(revisions.latest(overlay))


def test_a_project_used_from_where_it_lies(ctx: Context, tmp_path: Path) -> None:
    project = Path(ctx.home) / "project"
    make_project(project)
    pip(ctx, "install", "--no-build-isolation", "-e", str(project))
    adopt.adopt(ctx)
    assert lines(ctx) == ["-e file://${HOME}/project#egg=edited-by-hand"]


def make_project(folder: Path) -> None:
    """Write a project with a build backend of its own: nothing has to be fetched."""
    folder.mkdir(parents=True)
    (folder / "edited_by_hand.py").write_text("there = True\n")
    (folder / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'Edited_by.hand'\nversion = '1.0'\n"
    )
    (folder / "backend.py").write_text(
        "import os, zipfile\n"
        "HERE = os.path.dirname(os.path.abspath(__file__))\n"
        "def build_editable(folder, config_settings=None, metadata_directory=None):\n"
        "    info = 'edited_by_hand-1.0.dist-info/'\n"
        "    parts = {\n"
        "        '__editable__.edited_by_hand.pth': HERE + '\\n',\n"
        "        info + 'METADATA': 'Metadata-Version: 2.1\\nName: Edited_by.hand\\nVersion: 1.0\\n',\n"
        "        info + 'WHEEL': 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',\n"
        "    }\n"
        "    parts[info + 'RECORD'] = ''.join(f'{p},,\\n' for p in [*parts, info + 'RECORD'])\n"
        "    name = 'edited_by_hand-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(os.path.join(folder, name), 'w') as archive:\n"
        "        for path, text in parts.items():\n"
        "            archive.writestr(path, text)\n"
        "    return name\n"
    )


def test_our_own_changes_are_told_from_others_without_a_snapshot(ctx: Context) -> None:
    apply(ctx, "install", install=["tinytree"])
    _, env = ctx.require()
    Path(snapshot.path(env)).write_bytes(b"\0" * 100)
    assert adopt.needed(ctx)
    assert not adopt.adopt(ctx)["revision"]["changed"]
    assert not adopt.needed(ctx)
    os.unlink(snapshot.path(env))
    pip(ctx, "install", "tinydata")
    plan = adopt.adopt(ctx)["plan"]
    assert versions(plan["new"]).keys() == {"tinydata"}
    assert lines(ctx) == ["tinytree", "tinydata"]


def test_a_change_of_ours_does_not_swallow_what_another_tool_did(ctx: Context) -> None:
    pip(ctx, "install", "tinydata")
    apply(ctx, "install", install=["tinytree"])
    assert sorted(lines(ctx)) == ["tinydata", "tinytree"]
    overlay, _ = ctx.require()
    assert [r["action"] for r in revisions.list_revisions(overlay)] == ["install", "adopt"]
    assert not adopt.adopt(ctx)["revision"]["changed"]


def test_what_interrupted_tools_leave_is_told(ctx: Context) -> None:
    _, env = ctx.require()
    apply(ctx, "install", install=["tinytree", "tinydata"])
    (site(ctx) / "~inytree.py").mkdir()
    (site(ctx) / "~thergone").mkdir()
    (next(site(ctx).glob("tinydata-*.dist-info")) / "INSTALLER").unlink()
    (site(ctx) / "handmade.py").write_text("")
    found = {(i["kind"], os.path.basename(i["path"])): i for i in leftovers.leftovers(env, deep=True)}
    assert {kind for kind, _ in found} == {"renamed", "partial", "orphan"}
    assert found["renamed", "~inytree.py"]["original"] == str(site(ctx) / "tinytree.py")
    assert found["renamed", "~thergone"]["original"] == ""
    assert ("orphan", "handmade.py") in found
    assert [i["name"] for i in found.values() if i["kind"] == "partial"] == ["tinydata"]
    assert [n["code"] for n in adopt.notices(ctx)] == ["packages-partial"]


def test_what_was_left_is_mended(ctx: Context) -> None:
    overlay, env = ctx.require()
    apply(ctx, "install", install=["tinytree", "tinydata"])
    before = env_snapshot(ctx)
    (site(ctx) / "~inytree.py").mkdir()
    (site(ctx) / "~inytree.py" / "old.py").write_text("")
    (next(site(ctx).glob("tinydata-*.dist-info")) / "INSTALLER").unlink()
    shutil.rmtree(next(site(ctx).glob("tinytree-*.dist-info")))
    done = adopt.mend(ctx)
    assert done == [
        "Set aside what pip left behind: ~inytree.py.",
        "Installed tinydata again.",
        "Installed tinytree again.",
    ]
    assert leftovers.leftovers(env, deep=True) == []
    assert adopt.notices(ctx) == []
    assert not adopt.needed(ctx)
    after = env_snapshot(ctx)
    assert {path for path in after if "__pycache__" not in path} == {
        path for path in before if "__pycache__" not in path
    }
    assert merge.pending(overlay) == {"added": [], "removed": [], "changed": []}


@pytest.mark.parametrize("how", ["missing", "unreadable", "a file"])
def test_packages_that_cannot_be_seen_keep_their_lines(ctx: Context, how: str) -> None:
    overlay, _ = ctx.require()
    apply(ctx, "install", install=["tinydata"])
    folder = site(ctx)
    if how == "unreadable":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        folder.chmod(0)
    else:
        folder.rename(folder.parent / "elsewhere")
        if how == "a file":
            folder.write_text("")
    try:
        for change in (
            lambda: adopt.adopt(ctx),
            lambda: apply(ctx, "install", install=["tinytree"]),
            lambda: apply(ctx, "uninstall", uninstall=["tinytree"]),
        ):
            with pytest.raises(OverlayError) as caught:
                change()
            assert caught.value.code == "env-broken"
    finally:
        if how == "unreadable":
            folder.chmod(0o755)
    assert lines(ctx) == ["tinydata"]
    assert len(revisions.ids(overlay)) == 1
    assert doctor.fix(ctx) or how == "unreadable"
    assert lines(ctx) == ["tinydata"]
    assert os.path.isdir(os.path.join(ctx.require()[1].site_packages, "tinydata"))


def test_a_package_that_is_not_complete_is_not_adopted(ctx: Context) -> None:
    pip(ctx, "install", "tinydata")
    mark = next(site(ctx).glob("tinydata-*.dist-info")) / "INSTALLER"
    mark.unlink()
    assert not adopt.adopt(ctx)["revision"]["changed"]
    assert lines(ctx) == []
    assert not adopt.needed(ctx)
    pip(ctx, "install", "--force-reinstall", "tinydata")
    assert versions(adopt.adopt(ctx)["plan"]["new"]).keys() == {"tinydata"}
    assert lines(ctx) == ["tinydata"]


ADOPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from overlayspawner.payload import adopt
from overlayspawner.payload.context import Context
adopt.adopt(Context.load(sys.argv[1]), argv=["pip", "install", "tinytree>=1"])
"""


def test_an_adoption_killed_at_any_step_is_finished_by_the_next(ctx: Context, tmp_path: Path) -> None:
    overlay, _ = ctx.require()
    pip(ctx, "install", "tinytree>=1")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    (runtime / "server.json").write_text(ctx.to_json())
    fresh = tmp_path / "fresh"
    shutil.copytree(overlay.path, fresh, symlinks=True)
    step = survived = 0
    while True:
        step += 1
        done = run_child(ADOPT, str(runtime), fault=f"adopt@{step}:kill")
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        survived += 1
        adopt.adopt(ctx)
        assert not adopt.needed(ctx)
        recorded = [r for r in revisions.list_revisions(overlay) if r["action"] == "adopt"]
        assert len(recorded) == 1, step
        # either the command's own words, or what the metadata tells
        assert lines(ctx) in (["tinytree>=1"], ["tinytree"]), step
        assert recorded[0]["requirements"]["after"] == lines(ctx), step
        assert not any(merge.pending(overlay).values()), step
        shutil.rmtree(overlay.path)
        shutil.copytree(fresh, overlay.path, symlinks=True)
    assert survived >= 5
    assert lines(ctx) == ["tinytree>=1"]


def test_a_project_linked_the_old_way_is_no_package_of_the_index(ctx: Context) -> None:
    """``setup.py develop`` leaves no PEP 610 file: its bare name would bring anybody's package elsewhere."""
    project = Path(ctx.home, "my project")
    (project / "mine.egg-info").mkdir(parents=True)
    (project / "mine.egg-info" / "PKG-INFO").write_text("Metadata-Version: 1.2\nName: mine\nVersion: 0.1\n")
    (site(ctx) / "mine.egg-link").write_text(f"{project}\n.")
    adopt.adopt(ctx)
    assert lines(ctx) == ["-e file://${HOME}/my%20project#egg=mine"]
