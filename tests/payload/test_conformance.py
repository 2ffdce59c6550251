"""One table of requests, and the same plan and the same change of each by uv and by pip, old and new.

``make conformance`` runs all of it with all four, and renews the table in docs/explanation/resolution.md.
The suite itself runs all with the newest uv, and a few with the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import given
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import user_site
from overlayspawner.payload.installer import choose, pip, uv
from overlayspawner.payload.planning import plan
from overlayspawner.payload.probe import Base
from tests.support.envs import describe, make_context, put, snapshot
from tests.support.index import LocalIndex
from tests.support.uv_wheel import fetched
from tests.support.wheels import make_sdist, make_wheel

OLD_UV = ".".join(map(str, uv.OLDEST))
OLD_PIP = pip.OLDEST_TEXT
TOOLS = {"uv newest": "", f"uv {OLD_UV}": OLD_UV, "pip newest": "", f"pip {OLD_PIP}": OLD_PIP}
EVERYTHING = os.environ.get("OVERLAYSPAWNER_CONFORMANCE", "")
"""A file for what came of each case: then all is run."""

PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"


@dataclass(frozen=True)
class Case:
    """One row.

    Parameters
    ----------
    name:
        What it is about, as the documentation says it.
    asked:
        The words of ``overlay install``. ``{index}``, ``{sha}`` (of tinydata 1.0) and ``{here}`` are put in.
    new, satisfied, shadows, builds:
        What the plan shall hold: names with versions.
    code:
        Or what it is refused with; ``*`` where that is no matter, ``|`` between those that are as good.
    first:
        What is installed before.
    files:
        What lies in the current directory.
    builds:
        Names that have to be built. Without ``versions`` in the plan where they come from a URL.
    extra:
        With the second index, too.
    late:
        Of which tools (the beginning of the name) a plan need not find out: no file is looked at for it.
    differs:
        What another tool gives: the beginning of its name → fields.
    """

    name: str
    asked: str
    new: dict[str, str] = field(default_factory=dict)
    satisfied: str = ""
    shadows: str = ""
    code: str = ""
    first: str = ""
    files: dict[str, str] = field(default_factory=dict)
    builds: str = ""
    unseen: dict[str, str] = field(default_factory=dict)
    extra: bool = False
    late: str = ""
    differs: dict[str, dict[str, Any]] = field(default_factory=dict)


LEAF2 = {"tinyleaf": "2.0"}
DATA = {"tinydata": "1.0"}

CASES = [
    Case("satisfied by the image", "tinyleaf", satisfied="tinyleaf"),
    Case("newer than the image's", "tinyleaf>=2", LEAF2, shadows="tinyleaf"),
    Case("older than the image's", "tinyleaf==1.0", {"tinyleaf": "1.0"}, shadows="tinyleaf"),
    Case("dependencies", "tinyforest 'tinytree<2'", {"tinyforest": "1.0", "tinytree": "1.0"},
         satisfied="tinyleaf"),
    Case("extras", "tinyextra[leaf]", {"tinyextra": "1.0"}, satisfied="tinyleaf"),
    Case("extras of the image's package", "baseextra[more]", DATA, satisfied="baseextra"),
    Case("a marker that is false", "'tinydata; python_version < \"3\"' tinyscript", {"tinyscript": "1.0"}),
    Case("a marker that is true", "'tinydata; python_version > \"3\"'", DATA),
    Case("names in another spelling", "TinyNS_One", {"tinyns-one": "1.0"}),
    Case("nothing new", "tinydata", first="tinydata"),
    Case("replaces what was there", "tinyleaf==1.0", {"tinyleaf": "1.0"}, first="'tinyleaf>=2'",
         shadows="tinyleaf"),
    Case("a wheel by URL", "'tinydata @ {index}/files/tinydata-1.0-py3-none-any.whl'", DATA),
    Case("a wheel by URL, wrong hash",
         "'tinydata @ {index}/files/tinydata-1.0-py3-none-any.whl#sha256={zeros}'",
         code="bad-package", late="uv"),
    Case("a wheel by path", "./tinyhere-1.0-py3-none-any.whl", {"tinyhere": "1.0"}),
    Case("a wheel by URL, wrong name", "'other @ {index}/files/tinydata-1.0-py3-none-any.whl'", code="*"),
    Case("an sdist of the index", "tinysdist", {"tinysdist": "1.0"}, builds="tinysdist"),
    Case("an sdist that needs something to be built", "tinyisolated", {"tinyisolated": "1.0"},
         builds="tinyisolated"),
    Case("a project's directory", "./project", unseen={"tinyproject": "1.0"}, builds="tinyproject"),
    Case("a project's directory with extras", "'./project[data]'",
         unseen={"tinyproject": "1.0", "tinydata": "1.0"}, builds="tinyproject"),
    Case("the directory itself: .", ".", unseen={"tinydot": "1.0"}, builds="tinydot"),
    Case("a repository: tag and subdirectory", "'tinygit @ git+file://{here}/repo@v1#subdirectory=part'",
         unseen={"tinygit": "1.0"}, builds="tinygit"),
    Case("editable", "-e ./project", unseen={"tinyproject": "1.0"}, builds="tinyproject"),
    Case("editable with extras", "-e './project[data]'", unseen={"tinyproject": "1.0", "tinydata": "1.0"},
         builds="tinyproject"),
    Case("a dependency group", "--group dev", {"tinydata": "1.0", "tinyscript": "1.0"}),
    Case("-r: nested, comments, continued lines, variables", "-r a.txt",
         {"tinydata": "1.0", "tinytree": "1.0", "tinyscript": "1.0"}, satisfied="tinyleaf",
         files={"a.txt": "# mine\n-r sub/b.txt\ntinytree \\\n  <2  # old\n",
                "sub/b.txt": "-r=../c.txt\n${{CONFORMANCE}}\n", "c.txt": "tinydata\n"}),
    Case("-c: nested", "tinyforest -c limits.txt", {"tinyforest": "1.0", "tinytree": "1.0"},
         satisfied="tinyleaf", files={"limits.txt": "-c more.txt\n", "more.txt": "tinytree<2\ntinydata<1\n"}),
    Case("-c that contradicts", "'tinytree>=2' -c limits.txt", code="conflict|no-matching-version",
         files={"limits.txt": "tinytree<2\n"}),
    Case("a hash: right", "-r a.txt", DATA, files={"a.txt": "tinydata==1.0 --hash=sha256:{sha}\n"}),
    Case("a hash: one of two is right", "-r a.txt", DATA,
         files={"a.txt": "tinydata==1.0 --hash=sha256:{zeros} \\\n --hash=sha256:{sha}\n"}),
    Case("a hash: wrong", "-r a.txt", code="bad-package", late="uv 0.4",
         files={"a.txt": "tinydata==1.0 --hash=sha256:{zeros}\n"}),
    Case("a hash: another line has none", "-r a.txt", {"tinydata": "1.0", "tinyscript": "1.0"},
         files={"a.txt": "tinydata==1.0 --hash=sha256:{sha}\ntinyscript\n"}),
    Case("a hash without a version", "-r a.txt", code="bad-requirement",
         files={"a.txt": "tinydata --hash=sha256:{sha}\n"}),
    Case("pylock.toml", "-r pylock.toml", {"tinydata": "1.0", "tinytree": "1.0"}, satisfied="tinyleaf",
         files={"pylock.toml": 'lock-version = "1.0"\n[[packages]]\nname = "tinydata"\nversion = "1.0"\n'
                'wheels = [{{name = "x", hashes = {{sha256 = "{sha}"}}}}]\n'
                '[[packages]]\nname = "tinytree"\nversion = "1.0"\n'
                '[[packages]]\nname = "tinyscript"\nversion = "1.0"\nmarker = "python_version < \'3\'"\n'}),
    Case("pylock.toml: wrong hash", "-r pylock.toml", code="bad-package", late="uv 0.4",
         files={"pylock.toml": 'lock-version = "1.0"\n[[packages]]\nname = "tinydata"\nversion = "1.0"\n'
                'wheels = [{{name = "x", hashes = {{sha256 = "{zeros}"}}}}]\n'}),
    Case("uv.lock", "-r uv.lock", {"tinydata": "1.0", "tinytree": "1.0"}, satisfied="tinyleaf",
         files={"uv.lock": """\
version = 1
[[package]]
name = "here"
version = "1"
source = {{ editable = "." }}
dependencies = [{{ name = "tinytree" }}, {{ name = "tinyscript", marker = "python_version < '3'" }}]
[package.dev-dependencies]
dev = [{{ name = "tinyextra" }}]
[[package]]
name = "tinytree"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
dependencies = [{{ name = "tinyleaf" }}, {{ name = "tinydata", extra = ["none"] }}]
[[package]]
name = "tinyleaf"
version = "1.1"
source = {{ registry = "https://pypi.org/simple" }}
[[package]]
name = "tinydata"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [{{ url = "https://x/tinydata-1.0-py3-none-any.whl", hash = "sha256:{sha}" }}]
[[package]]
name = "tinyscript"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
[[package]]
name = "tinyextra"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
"""}),
    Case("a conda package of the image", "tinyconda", satisfied="tinyconda"),
    Case("newer than a conda package", "'tinyconda>=2'", {"tinyconda": "2.0"}, shadows="tinyconda"),
    Case("a Debian package of the image", "tinydebian", satisfied="tinydebian"),
    Case("newer than a Debian package", "'tinydebian>=2'", {"tinydebian": "2.0"}, shadows="tinydebian"),
    Case("a copy in ~/.local does not count", "tinylocaluser", {"tinylocaluser": "1.0"},
         shadows="tinylocaluser"),
    Case("yanked: passed over", "tinyyanked", {"tinyyanked": "1.0"}),
    Case("yanked: taken when pinned", "tinyyanked==1.1", {"tinyyanked": "1.1"}),
    Case("a pre-release: passed over", "tinypre", {"tinypre": "1.0"}),
    Case("a pre-release: asked for", "'tinypre>=2.0rc1'", {"tinypre": "2.0rc1"}),
    Case("a pre-release: there is nothing else", "tinybeta", {"tinybeta": "1.0b1"}),
    Case("requires another Python: passed over", "tinypast", {"tinypast": "1.0"}),
    Case("requires another Python: all versions", "tinyfuture", code="no-matching-version"),
    Case("a local version: the public one asked", "tinycuda==1.0", {"tinycuda": "1.0+cu118"},
         differs={"uv 0.4": {"new": {"tinycuda": "1.0"}}}),
    Case("a local version: asked for", "'tinycuda==1.0+cu117'", {"tinycuda": "1.0+cu117"}),
    Case("an epoch", "tinyepoch", {"tinyepoch": "1!1.0"}),
    Case("build tags: the highest", "tinybuild", {"tinybuild": "1.0", "tinydata": "1.0"}),
    Case("a wheel for this platform before one for all", "tinytag", {"tinytag": "1.0", "tinydata": "1.0"}),
    Case("a wheel for another platform is none", "tinyalien", code="no-matching-version|no-such-package"),
    Case("a newer version in an extra index", "tinydata", {"tinydata": "2.0"}, extra=True),
    Case("only in an extra index", "tinyonly", {"tinyonly": "1.0"}, extra=True),
    Case("the same twice", "tinyleaf tinyleaf", satisfied="tinyleaf"),
    Case("two lines that fit", "'tinyleaf>=1' 'tinyleaf<2'", satisfied="tinyleaf"),
    Case("two lines that contradict each other", "'tinyleaf<1.1' 'tinyleaf>=2'",
         code="conflict|no-matching-version"),
    Case("two requests that contradict each other", "tinyleft tinyright", code="conflict"),
    Case("no such package", "tinynowhere", code="no-such-package"),
    Case("a newer dependency would hide the image's", "tinykeep",
         {"tinykeep": "1.0", "tinytree": "1.0"}, satisfied="tinyleaf",
         differs={"pip": {"new": {"tinykeep": "1.0", "tinytree": "2.0", "tinyleaf": "2.0"},
                          "satisfied": "", "shadows": "tinyleaf"}}),
]  # fmt: skip


# -- the world they are in --------------------------------------------------------------------------------


def project(folder: Path, name: str, *, build_needs: str = "", tables: str = "") -> Path:
    """Write a project with a backend of its own, that can be used from where it lies, too."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(make_sdist(folder / "made", name, "1.0")) as archive:
        for member in archive.getmembers():
            found = archive.extractfile(member)
            assert found is not None
            (folder / os.path.basename(member.name)).write_bytes(found.read())
    (folder / "PKG-INFO").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProvides-Extra: data\n"
        'Requires-Dist: tinydata; extra == "data"\n'
    )
    backend = (folder / "_backend.py").read_text()
    needs = f"import {build_needs}\n" if build_needs else ""
    (folder / "_backend.py").write_text(f"{needs}{backend}\nbuild_editable = build_wheel\n")
    requires = f'["{build_needs}"]' if build_needs else "[]"
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = {requires}\nbuild-backend = "_backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n'
        'optional-dependencies = {data = ["tinydata"]}\n' + tables
    )
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    folder = tmp_path_factory.mktemp("shop")
    here = f"{PYTHON}-{PYTHON}-linux_{platform.machine()}"
    with LocalIndex(folder) as running:
        for wheel in (
            make_wheel(folder, "tinyconda", "2.0"),
            make_wheel(folder, "tinydebian", "2.0"),
            make_wheel(folder, "tinylocaluser", "1.0"),
            make_wheel(folder, "tinybeta", "1.0b1"),
            make_wheel(folder, "tinycuda", "1.0"),
            make_wheel(folder, "tinycuda", "1.0+cu117"),
            make_wheel(folder, "tinycuda", "1.0+cu118"),
            make_wheel(folder, "tinyepoch", "2.0"),
            make_wheel(folder, "tinyepoch", "1!1.0"),
            make_wheel(folder, "tinytag", "1.0"),
            make_wheel(folder, "tinytag", "1.0", tag=here, requires=["tinydata"]),
            make_wheel(folder, "tinyalien", "1.0", tag="cp27-cp27m-win32"),
            make_wheel(folder, "tinykeep", "1.0", requires=["tinyleaf", "tinytree"]),
        ):
            running.add(wheel)
        for build, needs in (("1", []), ("10", ["tinydata"]), ("2", [])):
            made = make_wheel(folder / build, "tinybuild", "1.0", requires=needs)
            running.add(made.rename(made.with_name(f"tinybuild-1.0-{build}-py3-none-any.whl")))
        made_of = project(folder / "isolated", "tinyisolated", build_needs="tinydata")
        sdist = folder / "tinyisolated-1.0.tar.gz"
        with tarfile.open(sdist, "w:gz") as archive:
            for path in made_of.iterdir():
                if path.is_file():
                    archive.add(path, f"tinyisolated-1.0/{path.name}")
        running.add(sdist)
        yield running


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    folder = tmp_path_factory.mktemp("more")
    with LocalIndex(folder, recipes=False) as running:
        running.add(make_wheel(folder, "tinydata", "2.0"))
        running.add(make_wheel(folder, "tinyonly", "1.0"))
        yield running


def image(folder: Path, wheels: Path, pip_version: str) -> Base:
    """Make an image's Python with a release of pip, packages of pip's, conda's and Debian's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    base = describe(folder)
    site = Path(base.site_dirs[-1])
    for entry in fetched("pip", pip_version).iterdir():
        if entry.name.startswith("pip"):
            (site / entry.name).symlink_to(entry)
    put(site, make_wheel(wheels, "tinyleaf", "1.1"))
    put(site, make_wheel(wheels, "baseextra", "1.0", extras={"more": ["tinydata"]}))
    put(site, make_wheel(wheels, "tinyconda", "1.0"))
    (site / "tinyconda-1.0.dist-info" / "RECORD").unlink()
    (site / "tinyconda-1.0.dist-info" / "INSTALLER").write_text("conda\n")
    (site / "tinydebian.py").touch()
    egg = site / "tinydebian-1.0.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 1.1\nName: tinydebian\nVersion: 1.0\n")
    (egg / "top_level.txt").write_text("tinydebian\n")
    return describe(folder)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    made: dict[str, Base] = {}

    def base(tool: str) -> Base:
        version = TOOLS[tool] if tool.startswith("pip") else ""
        if version not in made:
            folder = tmp_path_factory.mktemp("base")
            made[version] = image(folder / "image", folder / "wheels", version)
        return made[version]

    return base


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has lying about: projects, a repository, a wheel."""
    folder = tmp_path_factory.mktemp("place")
    project(folder / "project", "tinyproject")
    groups = '[dependency-groups]\ndev = ["tinydata", {include-group = "x"}]\nx = ["tinyscript"]\n'
    project(folder, "tinydot", tables=groups)
    make_wheel(folder, "tinyhere", "1.0")
    project(folder / "repo" / "part", "tinygit")
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"], ["tag", "v1"],
                  ["rm", "-q", "-r", "part"], ["commit", "-q", "-m", "two"]):  # fmt: skip
        subprocess.run(["git", *who, *words], cwd=folder / "repo", env=environ, check=True)
    return folder


def tool_path(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the uv that is meant where an image may have one."""
    if tool.startswith("uv"):
        found = fetched("uv", TOOLS[tool])
        monkeypatch.setenv("PATH", f"{found / 'bin'}{os.pathsep}/usr/bin:/bin")
    else:
        monkeypatch.setenv("PATH", "/usr/bin:/bin")


# -- the comparison ---------------------------------------------------------------------------------------


def names(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["name"]: item["version"] for item in found}


def wish(case: Case, tool: str) -> dict[str, Any]:
    more = next((fields for begin, fields in case.differs.items() if tool.startswith(begin)), {})
    return {key: more.get(key, getattr(case, key)) for key in ("new", "satisfied", "shadows", "code")}


def outcome(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "new": names(found["new"]),
        "satisfied": " ".join(sorted(names(found["satisfied_by_base"]))),
        "shadows": " ".join(sorted(names(found["shadows"]))),
        "builds": " ".join(sorted(names(found["builds"]))),
        "removes": names(found["removes"]),
    }


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(OverlayError) as error:
        do()
    return error.value.code


SAMPLE = ("newer than the image's", "-c: nested", "a hash: wrong", "two lines that contradict each other",
          "a newer version in an extra index", "a newer dependency would hide the image's")  # fmt: skip
"""Cases that every tool has to do in each run of the suite; the newest uv does all."""


def rows() -> Iterator[Any]:
    for tool in TOOLS:
        for case in CASES:
            if EVERYTHING or tool == "uv newest" or case.name in SAMPLE:
                marks = [] if tool == "uv newest" else [pytest.mark.slow]
                yield pytest.param(tool, case, marks=marks, id=f"{tool}: {case.name}")


@pytest.mark.parametrize(("tool", "case"), list(rows()))
def test_the_same_by_each(
    case: Case,
    tool: str,
    tmp_path: Path,
    place: Path,
    shop: LocalIndex,
    more: LocalIndex,
    bases: Callable[[str], Base],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    tool_path(tool, monkeypatch)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("CONFORMANCE", "tinyscript")
    monkeypatch.chdir(place)
    extra = [more.url] if case.extra else []
    which = tool.partition(" ")[0]
    ctx = make_context(
        tmp_path / "home", bases(tool), installer=which, index_url=shop.url, extra_index_urls=extra
    )
    ctx.runtime = str(tmp_path / "run")
    os.mkdir(ctx.runtime)
    if TOOLS[tool]:
        assert choose(ctx).version == TOOLS[tool]
    if "~/.local" in case.name:
        put(Path(user_site(ctx)), make_wheel(tmp_path, "tinylocaluser", "1.0"))
    sha = hashlib.sha256((shop.directory / "tinydata-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    known = {"index": shop.root, "sha": sha, "zeros": "0" * 64, "here": str(place)}
    written = tmp_path / "files"
    for name, text in case.files.items():
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_text(text.format(**known))
    if case.files:
        monkeypatch.chdir(written)
    if case.first:
        apply(ctx, "install", install=words(ctx, case.first))

    state = "failed"
    try:
        compare(case, tool, ctx, case.asked.format(**known))
        same = wish(case, tool) == wish(case, "")
        state = "refused" if same and case.code else "same" if same else "differs"
    finally:
        if EVERYTHING:
            with open(EVERYTHING, "a") as out:
                out.write(json.dumps({"case": case.name, "tool": tool, "state": state}) + "\n")


def words(ctx: Context, text: str) -> list[Any]:
    """Read the words of a command, as the command line does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    for name, field_ in (("-r", "files"), ("-c", "constraints"), ("-e", "editables"), ("--group", "groups")):
        parser.add_argument(name, dest=field_, action="append", default=[])
    wanted = given.read(home=ctx.home, **vars(parser.parse_args(shlex.split(text))))
    ctx.spec.constraints = wanted.constraints
    return wanted.requirements


def compare(case: Case, tool: str, ctx: Context, asked: str) -> None:
    expected = wish(case, tool)
    before = snapshot(ctx.home, without=[".overlay/.cache"])
    if expected["code"]:
        codes = [refused(lambda: apply(ctx, "install", install=words(ctx, asked)))]
        if not case.late or not tool.startswith(case.late):
            codes.append(refused(lambda: plan(ctx, install=words(ctx, asked))))
        assert len(set(codes)) == 1
        assert codes[0] in expected["code"].split("|") or expected["code"] == "*"
        after = snapshot(ctx.home, without=[".overlay/.cache"])
        assert {k: v for k, v in after.items() if k in before} == before
        return
    told = outcome(plan(ctx, install=words(ctx, asked)))
    assert snapshot(ctx.home, without=[".overlay/.cache"]) == before
    assert told.pop("removes") == {}
    assert told == {
        "new": expected["new"],
        "satisfied": expected["satisfied"],
        "shadows": expected["shadows"],
        "builds": case.builds,
    }
    asking = words(ctx, asked)
    done = outcome(apply(ctx, "install", install=asking)["plan"])
    written = Path(ctx.require()[0].requirements).read_text().splitlines()
    assert {r.text for r in asking if r.name} <= {*written}
    assert done["new"] == {**expected["new"], **case.unseen}
    if not case.builds:
        assert (done["satisfied"], done["shadows"], done["removes"]) == (
            told["satisfied"],
            told["shadows"],
            {},
        )
