"""Packages from before: found, turned into requirements, installed; and left exactly as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import importing, revisions, sources
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists, user_site
from overlayspawner.payload.importing import import_packages
from overlayspawner.payload.probe import Base
from tests.support.doctor import assert_clean
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_context,
    put,
    run_python,
    snapshot,
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
    """An empty overlay; whatever is done, the rest of the home stays as it is, byte for byte."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("PYTHONUSERBASE", "PYTHONPATH", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    yield make_context(home, base, index_url=index.url)


def local(ctx: Context, *wheels: Path, requested: bool = True) -> Path:
    """Install wheels into ``~/.local`` as ``pip install --user`` does."""
    site = Path(user_site(ctx))
    fill(site, *wheels, requested=requested)
    return site


def fill(site: Path, *wheels: Path, requested: bool = False, installer: str = "pip") -> None:
    site.mkdir(parents=True, exist_ok=True)
    before = set(site.glob("*.dist-info"))
    for wheel in wheels:
        put(site, wheel)
    for info in set(site.glob("*.dist-info")) - before:
        (info / "INSTALLER").write_text(f"{installer}\n")
        if requested:
            (info / "REQUESTED").touch()


def make_venv(directory: Path, *wheels: Path, python: str = "python3.9", **options: Any) -> Path:
    """Make what a venv of another Python leaves on a disk; its interpreter is gone."""
    fill(directory / "lib" / python / "site-packages", *wheels, **options)
    (directory / "bin").mkdir()
    (directory / "bin" / "python").symlink_to("/opt/gone/bin/python3.9")
    (directory / "pyvenv.cfg").write_text("home = /opt/gone/bin\nversion = 3.9.1\n")
    return directory


def rest_of(home: str) -> dict[str, str]:
    """Describe the home without the overlay and uv's cache."""
    return snapshot(home, without=[".overlay"])


def requirements(ctx: Context) -> list[str]:
    overlay, _ = ctx.require()
    return Path(overlay.requirements).read_text().split("\n")[:-1]


def left_out(result: dict[str, Any]) -> dict[str, str]:
    return {item["requirement"]: item["reason"] for item in result["left_out"]}


def installed(ctx: Context) -> dict[str, str]:
    _, env = ctx.require()
    return {name: dist.version for name, dist in overlay_dists(env).items()}


def test_user_site(ctx: Context, tmp_path: Path) -> None:
    local(ctx, make_wheel(tmp_path, "tinytree", "1.0", requires=["tinyleaf>=1,<2"]))
    local(ctx, make_wheel(tmp_path, "tinydata", "1.0"), requested=False)
    local(ctx, make_wheel(tmp_path, "pip", "20.0"))
    local(ctx, make_wheel(tmp_path, "basetool", "0.9"))
    before = rest_of(ctx.home)
    assert importing.found(ctx)["user_site"] == 4
    result = import_packages(ctx, "user-site", who="me")
    # the version that was there, though there is a newer one; and the line does not hold it
    assert installed(ctx) == {"tinydata": "1.0", "tinytree": "1.0"}
    assert requirements(ctx) == ["tinydata", "tinytree"]
    assert result["requirements"] == ["tinydata", "tinytree"]
    assert list(left_out(result)) == ["basetool"] and "1.0" in left_out(result)["basetool"]
    revision = revisions.latest(ctx.require()[0])
    assert revision is not None and revision["argv"] == ["import", "user-site"]
    assert rest_of(ctx.home) == before
    assert_clean(ctx, without=["user-site"])


def test_the_overlay_s_python_goes_on_seeing_the_user_site(
    ctx: Context,
    tmp_path: Path,
    base: Base,  # noqa: F811
) -> None:
    # a venv that sees the packages of the Python below it, as those of most images do
    ctx = make_context(
        Path(ctx.home) / "more",
        Base.from_dict({**base.to_dict(), "system_site": True}),
        index_url=ctx.spec.index_url,
    )
    site = local(ctx, make_wheel(tmp_path, "tinydata", "1.0"), make_wheel(tmp_path, "mineonly", "3.0"))
    _, env = ctx.require()
    import_packages(ctx, "user-site")
    code = "import mineonly, tinydata; print(mineonly.__file__); print(tinydata.__file__)"
    environ = {"HOME": ctx.home, "PATH": "/usr/bin:/bin"}
    out = subprocess.check_output([env.python, "-c", code], env=environ, text=True).split()
    assert out[0].startswith(str(site)) and out[1].startswith(env.path)


def test_what_the_image_has_in_an_older_version(ctx: Context, tmp_path: Path) -> None:
    local(ctx, make_wheel(tmp_path, "tinyleaf", "2.0"))  # the image has 1.1
    import_packages(ctx, "user-site")
    assert (requirements(ctx), installed(ctx)) == (["tinyleaf>=2.0"], {"tinyleaf": "2.0"})


def test_a_version_that_is_not_to_be_had(ctx: Context, tmp_path: Path) -> None:
    names = {"tinytree": "0.5", "tinydata": "1.0", "tinypre": "1.0", "tinyextra": "0.1", "tinyforest": "1.0"}
    local(ctx, *(make_wheel(tmp_path, name, version) for name, version in names.items()))
    local(ctx, make_wheel(tmp_path, "tinyleaf", "2.0"))
    result = import_packages(ctx, "user-site")
    # what can be had is as it was, the rest is as new as fits
    names.update({"tinytree": "2.0", "tinyextra": "1.0", "tinyleaf": "2.0"})
    assert installed(ctx) == names
    assert result["left_out"] == []


def test_what_cannot_be_installed_is_left_out_and_the_rest_is_one_change(
    ctx: Context, tmp_path: Path
) -> None:
    names = ["tinydata", "mineonly", "tinyscript", "tinyrefuse", "tinyforest", "tinyextra"]
    local(ctx, *(make_wheel(tmp_path, name, "1.0") for name in names))
    events: list[dict[str, Any]] = []
    result = import_packages(ctx, "user-site", on_event=events.append)
    assert set(left_out(result)) == {"mineonly", "tinyrefuse"}
    assert all(left_out(result).values())
    assert requirements(ctx) == ["tinydata", "tinyextra", "tinyforest", "tinyscript"]
    assert len(revisions.ids(ctx.require()[0])) == 1
    assert [e for e in events if "mineonly" in e["message"]]
    # a second time there is nothing to do
    again = import_packages(ctx, "user-site")
    assert again["revision"]["changed"] is False and len(revisions.ids(ctx.require()[0])) == 1


def test_nothing_of_it_can_be_installed(ctx: Context, tmp_path: Path) -> None:
    local(ctx, make_wheel(tmp_path, "mineonly", "1.0"))
    before = env_snapshot(ctx)
    with pytest.raises(OverlayError) as e:
        import_packages(ctx, "user-site")
    assert e.value.code == "no-such-package" and env_snapshot(ctx) == before


@pytest.mark.slow
def test_with_pip(ctx: Context, tmp_path: Path) -> None:
    ctx.spec.installer = "pip"
    names = {"tinytree": "1.0", "mineonly": "1.0", "tinyextra": "0.1"}
    local(ctx, *(make_wheel(tmp_path, name, version) for name, version in names.items()))
    result = import_packages(ctx, "user-site")
    assert list(left_out(result)) == ["mineonly"]
    assert installed(ctx) == {"tinytree": "1.0", "tinyextra": "1.0"}


def test_a_venv_of_another_python_is_read_never_run(ctx: Context, tmp_path: Path) -> None:
    wheels = [
        make_wheel(tmp_path, "tinytree", "2.0", requires=["tinyleaf>=2"]),
        make_wheel(tmp_path, "tinyleaf", "2.0"),
        make_wheel(tmp_path, "setuptools", "50.0"),
    ]
    venv = make_venv(Path(ctx.home) / "project" / ".venv", *wheels)
    before = rest_of(ctx.home)
    assert importing.found(ctx)["venvs"] == [str(venv)]
    (told,) = importing.notices(ctx)
    assert told["code"] == "venvs-found" and str(venv) in told["hint"]
    import_packages(ctx, str(venv))
    # tinyleaf came along for tinytree: no line of its own
    assert requirements(ctx) == ["tinytree"]
    assert installed(ctx) == {"tinyleaf": "2.0", "tinytree": "2.0"}
    assert rest_of(ctx.home) == before
    assert importing.notices(ctx) == []


def test_a_conda_environment_gives_what_pip_installed(ctx: Context, tmp_path: Path) -> None:
    prefix = Path(ctx.home) / ".conda" / "envs" / "old"
    site = prefix / "lib" / "python3.12" / "site-packages"
    fill(site, make_wheel(tmp_path, "numpy", "1.0"), installer="conda")
    fill(site, make_wheel(tmp_path, "tinydata", "1.0"))
    (prefix / "conda-meta").mkdir()
    assert importing.found(ctx)["conda"] == [str(prefix)]
    assert importing.notices(ctx) == []  # told of when asked, not by itself
    result = import_packages(ctx, str(prefix))
    assert requirements(ctx) == ["tinydata"]
    assert list(left_out(result)) == ["1 packages"]


def origin(site: Path, name: str, **data: Any) -> None:
    (site / f"{name}-1.0.dist-info" / "direct_url.json").write_text(json.dumps(data))


def test_origins(ctx: Context, tmp_path: Path) -> None:
    names = ["tinydata", "tinyscript", "viagit", "withsecret", "editable", "lost"]
    site = Path(ctx.home) / "env/lib/python3.11/site-packages"
    fill(site, *(make_wheel(tmp_path, name, "1.0") for name in names))
    wheel = make_wheel(tmp_path / "kept", "tinydata", "1.0")
    project = Path(ctx.home) / "code"
    project.mkdir()
    origin(site, "tinydata", url=wheel.as_uri(), archive_info={})
    origin(site, "tinyscript", url="file:///gone/tinyscript-1.0-py3-none-any.whl", archive_info={})
    origin(site, "viagit", url="https://git.example/x.git", vcs_info={"vcs": "git", "commit_id": "a" * 40})
    origin(site, "withsecret", url="https://me:secret@host.example/w.zip", archive_info={})
    origin(site, "editable", url=project.as_uri(), dir_info={"editable": True})
    origin(site, "lost", url="file:///gone/project", dir_info={"editable": True})
    found = sources.read(str(site), user_site="", home=ctx.home)
    lines = {r.name: r.text for r in found.wanted}
    assert lines["tinydata"] == f"tinydata @ {wheel.as_uri()}"
    assert lines["tinyscript"] == "tinyscript"
    assert lines["viagit"] == f"viagit @ git+https://git.example/x.git@{'a' * 40}"
    assert lines["withsecret"] == "withsecret"
    assert lines["editable"] == "-e file://${HOME}/code#egg=editable"
    assert "lost" not in lines and "secret" not in json.dumps(found.left_out)
    reasons = {item["requirement"] for item in found.left_out}
    assert "lost" in reasons
    import_packages(ctx, str(Path(make_venv(tmp_path / "v", wheel))))
    assert installed(ctx) == {"tinydata": "1.0"}


def test_a_project_that_is_used_from_where_it_lies(ctx: Context, tmp_path: Path) -> None:
    project = Path(ctx.home) / "my code"
    project.mkdir()
    (project / "mine.py").write_text("N = 1\n")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "backend.py").write_text(BACKEND)
    (tmp_path / "requirements.txt").write_text(f"-e {project}\ntinydata\n")
    result = import_packages(ctx, str(tmp_path / "requirements.txt"))
    assert result["left_out"] == []
    assert requirements(ctx) == ["-e file://${HOME}/my%20code#egg=mine", "tinydata"]
    (project / "mine.py").write_text("N = 2\n")
    assert run_python(ctx, "import mine; print(mine.N)") == "2"


BACKEND = """
import os, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "mine-1.0-py3-none-any.whl"
    info = "mine-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        archive.writestr("mine.pth", HERE + "\\n")
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "RECORD", "mine.pth,,\\n" + info + "METADATA,,\\n")
    return name
"""


def test_packages_that_need_each_other(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    fill(
        site,
        make_wheel(tmp_path, "egg", "1.0", requires=["hen"]),
        make_wheel(tmp_path, "hen", "1.0", requires=["egg"]),
    )
    found = sources.read(str(site), user_site="", home=str(tmp_path))
    assert [r.text for r in found.wanted] == ["egg"]


def test_requirements_file(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "more.txt").write_text("tinyscript\n-r requirements.txt\n")
    (folder / "requirements.txt").write_text(
        "\ufeff# mine\n"
        "tinydata==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
        "tinytree >= 1, < 2  # the old one\n"
        "--index-url http://elsewhere/\n"
        "-r more.txt\n-r nowhere.txt\n"
        "tinyfuture ; python_version < '3'\n"
        "tinyleaf\n"  # the image's will do
        "basetool >= 3\n"
    )
    result = import_packages(ctx, str(folder))
    assert requirements(ctx) == ["tinydata==1.0", "tinytree >= 1, < 2", "tinyscript"]
    assert installed(ctx) == {"tinydata": "1.0", "tinyscript": "1.0", "tinytree": "1.0"}
    assert set(left_out(result)) == {
        "--index-url http://elsewhere/",
        "-r nowhere.txt",
        "tinyfuture ; python_version < '3'",
        "tinyleaf",
        "basetool >= 3",
    }


def test_pyproject(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\ndependencies = ["tinydata"]\n'
        '[project.optional-dependencies]\nplot = ["tinyscript"]\n'
        '[dependency-groups]\ntest = ["tinytree<2", {include-group = "More"}]\nmore = ["tinyextra"]\n'
        'loop = [{include-group = "loop"}]\n'
    )
    path = str(tmp_path / "pyproject.toml")
    first = import_packages(ctx, path)
    assert requirements(ctx) == ["tinydata"]
    assert set(left_out(first)) == {"group loop", "group more", "group test"}
    import_packages(ctx, f"{path}[plot, test]")
    assert set(requirements(ctx)) == {"tinydata", "tinyscript", "tinytree<2", "tinyextra"}
    for groups in ("nothing", "loop"):
        with pytest.raises(OverlayError, match=groups):
            import_packages(ctx, f"{path}[{groups}]")


def test_pylock_and_conda_yaml(ctx: Context, tmp_path: Path) -> None:
    lock = tmp_path / "pylock.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "x"\n'
        '[[packages]]\nname = "tinytree"\nversion = "1.0"\n'
        '[[packages]]\nname = "tinypast"\nversion = "1.0"\nmarker = "python_version < \'3\'"\n'
        '[[packages]]\nname = "mine"\n'
    )
    result = import_packages(ctx, str(lock))
    assert requirements(ctx) == ["tinytree==1.0"]
    assert set(left_out(result)) == {"tinypast==1.0 ; python_version < '3'", "mine"}
    (tmp_path / "environment.yml").write_text(
        "name: x\ndependencies:\n  - python=3.11\n  - numpy\n  - pip:\n"
        "    - tinydata  # mine\n    - 'tinyscript==1.0'\n    - -r more.txt\n  - scipy\nvariables:\n  A: b\n"
    )
    result = import_packages(ctx, str(tmp_path / "environment.yml"))
    assert requirements(ctx) == ["tinytree==1.0", "tinydata", "tinyscript==1.0"]
    assert set(left_out(result)) == {"2 packages", "-r more.txt"}


def test_a_wheel_beside_a_requirements_file(ctx: Context, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    wheel = make_wheel(folder, "beside", "1.0")
    (folder / "requirements.txt").write_text(f"./{wheel.name}\n")
    monkeypatch.chdir(tmp_path)  # a server's own directory is not the file's
    import_packages(ctx, "project/requirements.txt")
    assert installed(ctx) == {"beside": "1.0"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pylock.toml", "packages = 5"),
        ("pylock.toml", 'packages = "abc"'),
        ("pyproject.toml[dev]", "[dependency-groups]\ndev = 5"),
        ("pyproject.toml[dev]", '[dependency-groups]\ndev = "abc"'),
        ("pyproject.toml", "project = 3"),
        ("environment.yml", "dependencies: 3"),
    ],
)
def test_files_of_another_shape_ask_for_nothing(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name.partition("[")[0]).write_text(text)
    assert sources.read(str(tmp_path / name), user_site="", home=str(tmp_path)).wanted == []


def test_a_text_that_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("".join(f"on day {n} it rained\n" for n in range(5000)))
    found = sources.read(str(tmp_path / "log.txt"), user_site="", home=str(tmp_path))
    assert not found.wanted and len(found.left_out) == sources.MAX_LEFT_OUT + 1
    assert found.left_out[-1]["requirement"] == f"{5000 - sources.MAX_LEFT_OUT} more"


@pytest.mark.parametrize(
    "what", ["user-site", "nowhere", "empty", "binary.txt", "broken.toml", "deep.toml", "", "large.txt"]
)
def test_sources_that_are_none(ctx: Context, tmp_path: Path, what: str, monkeypatch: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2")
    (tmp_path / "broken.toml").write_text("[[")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 20_000)
    (tmp_path / "large.txt").write_bytes(b"x\n" * (sources.MAX_FILE // 2 + 1))
    before = env_snapshot(ctx)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OverlayError) as e:
        import_packages(ctx, what)
    assert e.value.code == "bad-request"
    assert env_snapshot(ctx) == before


def test_an_index_that_is_away_fails_the_whole(ctx: Context, tmp_path: Path, index: LocalIndex) -> None:
    local(ctx, make_wheel(tmp_path, "tinydata", "1.0"), make_wheel(tmp_path, "tinyscript", "1.0"))
    ctx.spec.index_url = index.prefixed("500")
    before = env_snapshot(ctx)
    with pytest.raises(OverlayError) as e:
        import_packages(ctx, "user-site")
    assert e.value.code == "index-unreachable"
    assert env_snapshot(ctx) == before


def test_looking_around_is_bounded(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(ctx.home)
    for n in range(30):
        (home / f"data{n:02d}" / "deep" / "deeper").mkdir(parents=True)
    make_venv(home / "zz")
    make_venv(home / "deep" / "two")
    make_venv(home / "deep" / "one" / "three")  # too deep
    make_venv(home / ".virtualenvs" / "named")
    (home / "link").symlink_to(home / "zz")
    (home / "round").symlink_to(home)
    there = importing.found(ctx)
    assert set(there["venvs"]) == {str(home / place) for place in ("zz", "deep/two", ".virtualenvs/named")}
    fill(home / ".local/lib/python3.7/site-packages", make_wheel(tmp_path, "old", "1.0"))
    assert importing.found(ctx)["other_user_sites"] == {str(home / ".local/lib/python3.7/site-packages"): 1}
    looked: list[str] = []
    real = importing._names
    monkeypatch.setattr(importing, "_names", lambda folder: looked.append(folder) or real(folder))
    monkeypatch.setattr(importing, "MAX_ENTRIES", 10)
    importing.found(ctx)
    assert len(looked) < 20
    # nothing of the overlay's own is taken for the user's
    assert not [p for p in there["venvs"] if ".overlay" in p]


def test_an_import_can_follow_other_changes(ctx: Context, tmp_path: Path) -> None:
    apply(ctx, "install", install=["tinytree"])
    local(ctx, make_wheel(tmp_path, "tinytree", "1.0"), make_wheel(tmp_path, "tinydata", "1.0"))
    result = import_packages(ctx, "user-site")
    assert installed(ctx) == {"tinydata": "1.0", "tinyleaf": "2.0", "tinytree": "2.0"}
    assert list(left_out(result)) == ["tinytree"]
    assert importing.notices(ctx) == []


def test_the_command_lists_what_there_is(home: Path, tmp_path: Path, pyz: str, index: LocalIndex) -> None:
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PIP_INDEX_URL": index.url}

    def overlay(*argv: str) -> str:
        command = [sys.executable, "-I", pyz, "cli", "import", *argv]
        return subprocess.check_output(command, env=environ, text=True)

    assert "nothing in your home" in overlay()
    version = "{}.{}".format(*sys.version_info)
    site = home / f".local/lib/python{version}/site-packages"
    fill(site, make_wheel(tmp_path, "tinydata", "1.0"))
    venv = make_venv(home / "mine", make_wheel(tmp_path, "tinyscript", "1.0"))
    assert [line.split()[0] for line in overlay().splitlines()] == ["user-site", str(venv)]
    assert json.loads(overlay("--json"))["venvs"] == [str(venv)]
    assert not (home / ".overlay").exists()
    assert "Installed tinyscript 1.0." in overlay(str(venv))
