"""What ``overlay install`` accepts besides requirements: files of all kinds, projects, groups, limits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlayspawner.payload import given
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.importing import import_packages
from overlayspawner.payload.probe import Base
from tests.support.envs import base, make_context, uv_on_path  # noqa: F401  (fixtures)
from tests.support.index import LocalIndex

PROJECT = """
[project]
name = "My_Project"
version = "1.0"
dependencies = ["tinytree<2"]
[project.optional-dependencies]
data = ["tinydata"]
[dependency-groups]
test = ["tinyscript", {include-group = "more"}]
more = ["tinyextra[leaf]"]
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

BACKEND = '''
import os, zipfile

INFO = "my_project-1.0.dist-info"
META = """Metadata-Version: 2.1
Name: my-project
Version: 1.0
Requires-Dist: tinytree<2
Provides-Extra: data
Requires-Dist: tinydata; extra == "data"
"""


def _wheel(folder, files):
    name = "my_project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as out:
        files = {
            **files,
            INFO + "/METADATA": META,
            INFO + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        }
        for path, text in files.items():
            out.writestr(path, text)
        out.writestr(INFO + "/RECORD", "".join(path + ",,\\n" for path in [*files, INFO + "/RECORD"]))
    return name


def build_wheel(folder, settings=None, metadata=None):
    return _wheel(folder, {"my_project.py": "WHERE = __file__\\n"})


def build_editable(folder, settings=None, metadata=None):
    return _wheel(folder, {"my_project.pth": os.getcwd() + "\\n"})


def get_requires_for_build_wheel(settings=None):
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
'''

HASH = "0" * 64


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    installer: str,
) -> Context:
    made = make_context(tmp_path / "home", base, installer=installer, index_url=index.url)
    work = tmp_path / "home" / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", made.home)
    return made


def project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "my_project.py").write_text("WHERE = __file__\n")
    return folder


def install(ctx: Context, *words: str, **named: list[str]) -> dict[str, str]:
    """Install what is named; return what the overlay holds then."""
    found = given.read(words, home=ctx.home, **named)  # type: ignore[arg-type]
    ctx.spec.constraints = found.constraints
    apply(ctx, "install", install=found.requirements)
    ctx.spec.constraints = []
    return {name: dist.version for name, dist in overlay_dists(ctx.require()[1]).items()}


def lines(ctx: Context) -> list[str]:
    return Path(ctx.require()[0].requirements).read_text().splitlines()


def where(ctx: Context) -> str:
    """Return the file that ``my_project`` is imported from."""
    code = "import my_project; print(my_project.WHERE)"
    done = subprocess.run(
        [ctx.require()[1].python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()


def test_a_project(ctx: Context) -> None:
    folder = project(Path("mine here"))
    assert install(ctx, "./mine here[data]") == {"my-project": "1.0", "tinytree": "1.0", "tinydata": "1.0"}
    # another image may have the home at another path
    assert lines(ctx) == ["my-project[data] @ file://${HOME}/work/mine%20here"]
    assert where(ctx).startswith(ctx.require()[1].path)
    os.chdir(folder)
    assert install(ctx, ".") == {"my-project": "1.0", "tinytree": "1.0", "tinydata": "1.0"}
    assert lines(ctx) == ["my-project @ file://${HOME}/work/mine%20here"]


def test_a_project_that_is_used_from_where_it_lies(ctx: Context) -> None:
    folder = project(Path("mine"))
    assert install(ctx, editables=["mine"]) == {"my-project": "1.0", "tinytree": "1.0"}
    assert lines(ctx) == ["-e file://${HOME}/work/mine#egg=my-project"]
    assert where(ctx) == str(folder.absolute() / "my_project.py")


def test_a_group(ctx: Context) -> None:
    project(Path("mine"))
    assert install(ctx, groups=["mine/pyproject.toml:Test"]) == {"tinyscript": "1.0", "tinyextra": "1.0"}
    os.chdir("mine")
    assert lines(ctx) == ["tinyscript", "tinyextra[leaf]"]
    assert "tinyscript" in install(ctx, groups=["test"])
    assert "tinytree" in install(ctx, files=["pyproject.toml"])


def test_constraints(ctx: Context) -> None:
    Path("limits.txt").write_text("# mine\ntinytree<2  # old\n--no-binary :all:\ntinynowhere==7\n")
    assert install(ctx, "tinyforest", constraints=["limits.txt"]) == {"tinyforest": "1.0", "tinytree": "1.0"}
    assert lines(ctx) == ["tinyforest"]
    # it was for one change; the next keeps what is there
    assert install(ctx, "tinydata")["tinytree"] == "1.0"
    Path("all.txt").write_text("-c limits.txt\n-r more.txt\n")
    Path("more.txt").write_text("tinyscript\ntinytree\n")
    assert install(ctx, files=["all.txt"])["tinytree"] == "1.0"


def test_hashes(ctx: Context, index: LocalIndex) -> None:
    good = index.projects["tinydata"][0].sha256
    Path("good.txt").write_text(f"tinydata==1.0 \\\n  --hash=sha256:{HASH} \\\n  --hash=sha256:{good}\n")
    assert install(ctx, files=["good.txt"]) == {"tinydata": "1.0"}
    assert lines(ctx) == ["tinydata==1.0"]
    Path("bad.txt").write_text(f"tinyscript==1.0 --hash=sha256:{HASH}\n")
    with pytest.raises(OverlayError) as e:
        install(ctx, files=["bad.txt"])
    assert e.value.code == "bad-package"
    assert lines(ctx) == ["tinydata==1.0"]


def test_pylock(ctx: Context, index: LocalIndex) -> None:
    good = index.projects["tinytree"][0]
    for name, digest in (("good", good.sha256), ("bad", HASH)):
        Path(f"pylock.{name}.toml").write_text(
            'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "tinytree"\nversion = "1.0"\n'
            f'wheels = [{{url = "{index.url}/x.whl", hashes = {{sha256 = "{digest}"}}}}]\n'
        )
    with pytest.raises(OverlayError) as e:
        install(ctx, files=["pylock.bad.toml"])
    assert e.value.code == "bad-package"
    assert install(ctx, files=["pylock.good.toml"]) == {"tinytree": "1.0"}


def real_lock(index: LocalIndex) -> None:
    """Have uv lock a project with markers, extras and groups, here."""
    Path("pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.9"\n'
        'dependencies = ["tinyforest", "tinypre ; python_version < \'3\'",'
        " \"tinyextra[tree] ; sys_platform == 'linux'\","
        " \"tinyleaf<2 ; sys_platform == 'linux'\", \"tinyleaf>=2 ; sys_platform == 'win32'\"]\n"
        '[project.optional-dependencies]\ndata = ["tinydata"]\n'
        '[dependency-groups]\ndev = ["tinyscript"]\n'
    )
    uv = Path(sys.executable).parent / "uv"
    environ = {"PATH": os.environ["PATH"], "HOME": os.getcwd(), "UV_DEFAULT_INDEX": index.url}
    subprocess.run([uv, "lock", "-q", "--no-cache", "-p", sys.executable], check=True, env=environ)


def test_a_lock_of_uv(ctx: Context, index: LocalIndex) -> None:
    real_lock(index)
    held = {"tinyextra": "1.0", "tinyforest": "1.0", "tinytree": "1.0"}
    # what the image has in the version of the lock is not installed again
    assert lock_versions(ctx, "uv.lock") == {**held, "tinyleaf": "1.1"}
    assert lock_versions(ctx, "uv.lock[dev, data]") == {
        **held,
        "tinyleaf": "1.1",
        "tinydata": "1.0",
        "tinyscript": "1.0",
    }
    assert install(ctx, files=["uv.lock"]) == held
    result = import_packages(ctx, "uv.lock[data]")
    assert "tinydata==1.0" in lines(ctx)
    assert [item["requirement"] for item in result["left_out"]] == ["group dev", "tinyleaf==1.1"]
    with pytest.raises(OverlayError, match="no group 'nothing'"):
        import_packages(ctx, "uv.lock[nothing]")


def lock_versions(ctx: Context, text: str) -> dict[str, str]:
    from overlayspawner.payload import sources

    return sources.read(text, user_site="", home=ctx.home).versions


def test_a_lock_with_a_wrong_hash(ctx: Context, index: LocalIndex) -> None:
    real_lock(index)
    text = Path("uv.lock").read_text()
    digest = hashlib.sha256(index.projects["tinyforest"][0].path.read_bytes()).hexdigest()
    assert digest in text
    Path("uv.lock").write_text(text.replace(digest, HASH))
    with pytest.raises(OverlayError) as e:
        install(ctx, files=["uv.lock"])
    assert e.value.code == "bad-package"


@pytest.mark.parametrize(
    ("words", "named", "code"),
    [
        ((), {"files": ["nowhere.txt"]}, "bad-request"),
        ((), {"files": ["options.txt"]}, "option-not-allowed"),
        ((), {"files": ["odd.txt"]}, "bad-requirement"),
        ((), {"files": ["uv.lock"]}, "bad-request"),
        ((), {"constraints": ["nowhere.txt"]}, "bad-request"),
        ((), {"constraints": ["odd.txt"]}, "bad-requirement"),
        ((), {"editables": ["nowhere"]}, "bad-request"),
        ((), {"editables": ["empty"]}, "bad-request"),
        (("./empty",), {}, "bad-request"),
        (("./nowhere",), {}, "bad-requirement"),
        (("-r", "odd.txt"), {}, "option-not-allowed"),
        ((), {"groups": ["test"]}, "bad-request"),
        ((), {"groups": ["mine/pyproject.toml:nothing"]}, "bad-request"),
        ((), {"groups": ["odd.toml:odd"]}, "bad-requirement"),
        ((), {"groups": ["--index-url"]}, "bad-request"),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    named: dict[str, list[str]],
    code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    project(Path("mine"))
    Path("empty").mkdir()
    Path("options.txt").write_text("tinydata\n--extra-index-url http://elsewhere/\n")
    Path("odd.txt").write_text("tinydata\n!?\n")
    Path("odd.toml").write_text('[dependency-groups]\nodd = ["--index-url=http://elsewhere/"]\n')
    Path("uv.lock").write_text("version = 99\n")
    with pytest.raises(OverlayError) as e:
        given.read(words, home="", **named)  # type: ignore[arg-type]
    assert e.value.code == code, e.value.message
