"""The local index is what pip and uv take it for; the suites that build on it can't see that themselves."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.index import recipes
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel


def install(
    tool: str, url: str, target: Path, *what: str, timeout: int = 60
) -> subprocess.CompletedProcess[str]:
    # A machine's own settings (other indexes, folders of wheels) must not answer instead of the index.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(target.parent), "PIP_CONFIG_FILE": "/dev/null"}
    if tool == "pip":
        argv = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-cache-dir",
            "--retries=0",
            "--target",
            str(target),
        ]
    else:
        uv = pytest.importorskip("uv")
        argv = [uv.find_uv_bin(), "pip", "install", "--no-config", "--no-cache", "--python", sys.executable]
        argv += ["--target", str(target)]
        environment["UV_HTTP_RETRIES"] = "0"
    return subprocess.run(
        [*argv, "--index-url", url, *what], env=environment, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(params=["pip", "uv"])
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_dependencies_come_along(index: LocalIndex, tool: str, tmp_path: Path) -> None:
    done = install(tool, index.url, tmp_path / "out", "tinyforest", "tinyextra[leaf]", "tinysdist")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").glob("*.py")} == {
        "tinyextra.py", "tinyforest.py", "tinyleaf.py", "tinysdist.py", "tinytree.py"
    }  # fmt: skip
    assert "2.0" in (tmp_path / "out" / "tinytree.py").read_text()


def test_yanked_and_other_python_are_left_alone(index: LocalIndex, tool: str, tmp_path: Path) -> None:
    done = install(tool, index.url, tmp_path / "out", "tinyyanked", "tinypast")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").glob("*.dist-info")} == {
        "tinypast-1.0.dist-info", "tinyyanked-1.0.dist-info"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        ["tinyrefuse"], ["tinytruncated"], ["tinywronghash"], ["tinyleft", "tinyright"], ["tinyfuture"],
        ["tinylost"], ["tinynowhere"], ["tinyhtmlname"],
    ],
)  # fmt: skip
def test_broken_ones_are_refused(index: LocalIndex, tool: str, tmp_path: Path, what: list[str]) -> None:
    assert install(tool, index.url, tmp_path / "out", *what).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["garbage", "reset", "500", "garbage-files", "reset-files", "500-files"])
def test_faults_fail(index: LocalIndex, tool: str, tmp_path: Path, prefix: str) -> None:
    assert install(tool, index.prefixed(prefix), tmp_path / "out", "tinyleaf").returncode != 0


@pytest.mark.slow
def test_slow_ones_work(index: LocalIndex, tool: str, tmp_path: Path) -> None:
    assert install(tool, index.prefixed("slow"), tmp_path / "out", "tinyleaf").returncode == 0


def test_hang_hangs(index: LocalIndex) -> None:
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(index.prefixed("hang"), timeout=0.5)


@pytest.mark.slow
def test_credentials(index: LocalIndex, tool: str, tmp_path: Path) -> None:
    refused = install(tool, index.prefixed("auth"), tmp_path / "out", "tinyleaf", timeout=60)
    assert refused.returncode != 0
    allowed = install(tool, index.prefixed("auth", credentials=True), tmp_path / "out", "tinyleaf")
    assert allowed.returncode == 0, allowed.stderr


def test_both_kinds_of_page_say_the_same(index: LocalIndex) -> None:
    for name in index.projects:
        page = requests.get(f"{index.url}{name}/").text
        data = requests.get(
            f"{index.url}{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
        ).json()
        assert [item["filename"] in page for item in data["files"]] == [True] * len(index.projects[name])
        for item in data["files"]:
            if "core-metadata" not in item:
                continue
            raw = requests.get(f"{index.url}{name}/{item['url']}.metadata").content
            assert hashlib.sha256(raw).hexdigest() == item["core-metadata"]["sha256"]


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    first = recipes.build(tmp_path / "one")
    second = recipes.build(tmp_path / "two")
    assert [e.path.read_bytes() for e in first] == [e.path.read_bytes() for e in second]


def test_the_log_names_what_was_asked(index: LocalIndex) -> None:
    index.requests.clear()
    requests.get(f"{index.url}tinyleaf/")
    assert [request.path for request in index.requests] == ["/simple/tinyleaf/"]


def test_old_stand_ins_lack_what_a_server_imports(tmp_path: Path) -> None:
    import zipfile

    for path in recipes.old_distributions(tmp_path):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "site")
    for statement in (
        "from traitlets.config import Configurable",
        "from sqlalchemy.orm import declarative_base",
        "import jupyter_client",
    ):
        code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {statement}"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
        assert done.returncode != 0
        assert "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr, done.stderr


def test_a_wheel_of_ones_own_is_served(tmp_path: Path) -> None:
    with LocalIndex(tmp_path, recipes=False) as own:
        own.add(make_wheel(tmp_path, "mine", "0.1"))
        assert "mine-0.1" in requests.get(f"{own.url}mine/").text


def test_moods_come_and_go(index: LocalIndex) -> None:
    url = f"{index.prefixed('moody')}tinyleaf/"
    with index.feeling("503"):
        assert requests.get(url, timeout=10).status_code == 503
    assert requests.get(url, timeout=10).ok
    with index.feeling("held"):
        with pytest.raises(requests.Timeout):
            requests.get(url, timeout=0.3)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(requests.get, url, timeout=10)
            assert not waiting.done()
            index.mood = ""
            assert waiting.result().ok
