"""Loading the extension: whatever it finds, the server runs; and nothing of ours stays in its environment."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from overlayspawner.payload import bootstrap
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import RUNTIME_ENV, SPEC_ENV, Spec
from overlayspawner.payload.probe import probe
from overlayspawner.payload.server import adapt, app
from tests.server.conftest import RunningServer, Start
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow

ENVIRON = "import os; print(*sorted(f'{k}={v}' for k, v in os.environ.items()), sep='\\n')"


class OtherManager(KernelSpecManager):
    """A KernelSpecManager that is not the stock one."""


def base_environment(server: RunningServer) -> dict[str, str]:
    """The environment that the server gives to a kernel that is not ours."""
    cell = server.run_cell(ENVIRON, "python3-base")
    return dict(line.split("=", 1) for line in cell.text.splitlines() if "=" in line)


def started(directory: Path, index: LocalIndex, **spec: object) -> tuple[Context, dict[str, str]]:
    """Do what the bootstrap does; return the context and the variables that the server gets."""
    run, home = directory / "bootstrap-run", directory / "bootstrap-home"
    run.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    before = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(run),
        "PATH": os.environ["PATH"],
        "JUPYTER_PATH": "/nowhere",
    }
    full = Spec(**{"index_url": index.url, **spec})  # type: ignore[arg-type]
    context = bootstrap.open_context(full, environ=before, base=probe())
    variables = context.variables
    return context, {**before, **variables, RUNTIME_ENV: context.runtime, SPEC_ENV: ""}


def test_after_a_start_by_the_bootstrap(start: Start, tmp_path: Path, index: LocalIndex) -> None:
    context, variables = started(tmp_path, index)
    assert "JUPYTER_CONFIG_PATH" in variables and variables["PYTHONNOUSERSITE"] == "1"
    server = start(environ=variables, home=Path(context.home))
    assert context.overlay is not None and context.env is not None
    status = server.overlay("status")
    assert (status["mode"], status["env"]) == ("normal", context.env.path)

    found = base_environment(server)
    assert not [name for name in found if name.startswith("OVERLAYSPAWNER")]
    assert "JUPYTER_CONFIG_PATH" not in found and "PYTHONNOUSERSITE" not in found
    assert found["JUPYTER_PATH"] == "/nowhere"
    specs = server.get("api/kernelspecs").json()
    assert specs["default"] == "python3" and {"python3", "python3-base"} <= set(specs["kernelspecs"])

    server.install("tinyscript")
    assert "hello from " + context.env.path in server.run_cell("import tinyscript; tinyscript.main()").text
    # one server extension, one writer: the context is the bootstrap's, no second one was opened
    assert [p.name for p in (tmp_path / "bootstrap-run").iterdir()] == [os.path.basename(context.runtime)]


def test_after_a_start_as_root_was_deferred(start: Start) -> None:
    restore = json.dumps({"PYTHONNOUSERSITE": None, "JUPYTER_CONFIG_PATH": "/somewhere"})
    environ = {
        bootstrap.RESTORE_ENV: restore,
        "PYTHONNOUSERSITE": "1",
        "JUPYTER_CONFIG_PATH": "/ours:/somewhere",
    }
    server = start(environ=environ)
    assert server.overlay("status")["mode"] == "normal"
    assert server.overlay_path.is_dir()
    found = base_environment(server)
    assert not [name for name in found if name.startswith("OVERLAYSPAWNER")]
    assert "PYTHONNOUSERSITE" not in found and found["JUPYTER_CONFIG_PATH"] == "/somewhere"


def test_without_any_hub(start: Start) -> None:
    server = start(environ={SPEC_ENV: ""})
    status = server.overlay("status")
    assert (status["mode"], status["notices"]) == ("normal", [])
    assert not status["base"]["changed"]
    assert Path(status["path"]) == server.overlay_path
    assert "python3-base" in server.get("api/kernelspecs").json()["kernelspecs"]


def test_a_terminal_acts_on_the_overlay(start: Start, index: LocalIndex) -> None:
    server = start(environ={"PIP_INDEX_URL": index.url})
    (server.home / ".bash_profile").write_text("export MINE=from-the-profile\n")
    env = server.overlay("status")["env"]
    server.install("tinyscript")
    script, mine, listed, pip, prefix, ours = server.terminal(
        "tinyscript-hello",
        "echo $MINE",
        "overlay list",
        "pip install --quiet tinyleaf && overlay list",
        "python -c 'import sys; print(sys.prefix)'",
        "env | grep ^OVERLAYSPAWNER",
    )
    assert script.strip() == f"hello from {env}"
    assert mine.strip() == "from-the-profile"
    assert any(line.split()[:2] == ["tinyscript", "1.0"] for line in listed.splitlines()), listed
    assert "tinyleaf" in pip and "tinyleaf" in server.packages()
    assert prefix.strip() == env
    assert not ours.strip()


def test_the_administrator_s_shell_is_kept(start: Start) -> None:
    server = start(settings={"ServerApp.terminado_settings": {"shell_command": ["/bin/sh"]}})
    (path,) = server.terminal("echo $PATH")
    assert str(server.run) not in path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"KernelSpecManager.allowed_kernelspecs": ["python3"]}, "a list of allowed kernels"),
        ({"ServerApp.kernel_spec_manager_class": "tests.server.test_app.OtherManager"}, "OtherManager"),
    ],
)
def test_a_server_that_picks_kernels_in_its_own_way(
    start: Start, tmp_path: Path, index: LocalIndex, settings: dict[str, object], words: str
) -> None:
    context, variables = started(tmp_path, index)
    variables["PYTHONPATH"] = str(Path(__file__).parents[2])
    server = start(environ=variables, home=Path(context.home), settings=settings)
    (notice,) = server.overlay("status")["notices"]
    assert notice["code"] == "kernel-not-replaced" and words in notice["message"]
    prefix = server.run_cell("import sys; print(sys.prefix)").text.strip()
    assert prefix == sys.prefix
    assert "python3-base" not in server.get("api/kernelspecs").json()["kernelspecs"]


def test_safe_mode_looks_and_changes_nothing(start: Start) -> None:
    server = start(spec={"safe": True})
    status = server.overlay("status")
    assert (status["mode"], status["path"], status["sizes"]["overlay"]) == ("safe", None, None)
    assert server.notices() == {"safe-mode"}
    answer = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "no-overlay")
    answer = server.get("overlay/v1/packages")
    assert (answer.status_code, answer.json()["code"]) == (409, "no-overlay")
    assert server.packages("base") and server.overlay("revisions") == {"revisions": []}
    assert not server.overlay_path.exists()


@pytest.mark.parametrize("kind", ["missing", "a file", "open to others", "damaged", "bad spec"])
def test_whatever_it_finds_the_server_runs(start: Start, tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "broken"
    if kind != "missing":
        directory.mkdir(mode=0o700)
    if kind == "a file":
        directory.rmdir()
        directory.touch()
    elif kind == "open to others":
        directory.chmod(0o777)
    elif kind == "damaged":
        (directory / "server.json").write_text('{"spec": []}')
    environ = {SPEC_ENV: "{"} if kind == "bad spec" else {RUNTIME_ENV: str(directory)}
    server = start(environ=environ)
    assert server.get("api/status").ok
    assert server.get("overlay/v1/status").status_code == 404
    assert server.run_cell("print(6 * 7)").text == "42\n"
    assert server.log.count("overlayspawner: [") == 1
    assert "Traceback" not in server.log
    environment = server.run_cell(ENVIRON).text
    assert "OVERLAYSPAWNER" not in environment
    assert not server.overlay_path.exists()


def test_storage_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(bootstrap, "open_storage", lambda *args: release.wait())
    found = app._storage_in_time(Spec(deadline=0.05), probe(), "/nowhere")
    release.set()
    assert (found.overlay, found.mode, found.notices[0]["code"]) == ("", "degraded", "deadline")


def test_loading_twice_is_loading_once(tmp_path: Path) -> None:
    settings = {app.SETTING: None}
    app.load(SimpleNamespace(web_app=SimpleNamespace(settings=settings)))
    assert settings == {app.SETTING: None}


def test_an_old_server_gets_kernels_and_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: LocalIndex, caplog: pytest.LogCaptureFixture
) -> None:
    import jupyter_server

    context, variables = started(tmp_path, index)
    for name in list(os.environ):
        if name.startswith("JUPYTER_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jupyter_server, "__version__", "1.24.0")
    handlers: list[object] = []
    log = logging.getLogger("old-server")
    old = SimpleNamespace(
        web_app=SimpleNamespace(settings={"base_url": "/"}, add_handlers=lambda *a: handlers.append(a)),
        kernel_spec_manager=KernelSpecManager(),
        log=log,
    )
    with caplog.at_level(logging.WARNING, "old-server"):
        app.load(old)
    assert not handlers and "old-server" in caplog.text
    assert old.kernel_spec_manager.kernel_dirs[0].startswith(context.runtime)
    assert RUNTIME_ENV not in os.environ and os.environ["JUPYTER_PATH"] == "/nowhere"


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        ("/bin/bash", ["/bin/bash", "--rcfile", "/rc", "-i"]),
        ("/usr/local/bin/bash", ["/usr/local/bin/bash", "--rcfile", "/rc", "-i"]),
        ("/bin/dash", ["/usr/bin/env", "ENV=/rc", "/bin/dash", "-i"]),
        ("/bin/sh", ["/usr/bin/env", "ENV=/rc", "/bin/sh", "-i"]),
        ("/usr/bin/fish", None),
        ("/usr/bin/zsh", None),
    ],
)
def test_shells(shell: str, command: list[str] | None) -> None:
    assert adapt.shell_command(shell, "/rc") == command


def test_a_posix_shell_gets_the_overlay_too(start: Start) -> None:
    server = start(environ={"SHELL": "/bin/sh"})
    (prefix,) = server.terminal("python -c 'import sys; print(sys.prefix)'")
    assert prefix.strip() == server.overlay("status")["env"]
