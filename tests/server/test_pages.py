"""What an overlay brings into the pages of a real JupyterLab, and what it can't do to them."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from overlayspawner.payload.contract import Spec
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.server import pages
from tests.server.conftest import EXTENSIONS, RunningServer, Start
from tests.support.wheels import make_wheel

LAB = {"ServerApp.jpserver_extensions": {**EXTENSIONS, "jupyterlab": True}}
PLACE = "share/jupyter/labextensions"
SECRET = "nobody may read this"


def package(name: str, version: str = "1.0.0", lab: dict[str, Any] | None = None, **more: Any) -> str:
    about = {"_build": {"load": "static/remoteEntry.js", "extension": "./extension"}, **(lab or {})}
    return json.dumps({"name": name, "version": version, "jupyterlab": about, **more})


def extension(name: str, version: str = "1.0.0", **more: Any) -> dict[str, str]:
    """The files of an extension, for a wheel."""
    top = f"{PLACE}/{name}"
    return {
        f"{top}/package.json": package(name, version, **more),
        f"{top}/static/remoteEntry.js": f"// {name} {version}",
    }


def config(server: RunningServer, path: str = "lab") -> dict[str, Any]:
    answer = server.get(path)
    assert answer.ok, answer.text
    found = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', answer.text, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def names(server: RunningServer, path: str = "lab") -> set[str]:
    return {item["name"] for item in config(server, path)["federated_extensions"]}


def left_out(server: RunningServer) -> dict[str, str]:
    """Extension → why it is left out."""
    out = {}
    for item in server.get("overlay/v1/status").json()["notices"]:
        if item["code"] == "labextension-left-out":
            found = re.match(
                r"The JupyterLab extension (\S+) (?:\(from \S+ \S+\) )?is not loaded: (.*)\.$",
                item["message"],
            )
            assert found, item
            out[found[1]] = found[2]
    return out


def env_of(server: RunningServer) -> Path:
    return Path(server.get("overlay/v1/status").json()["env"])


def damage(env: Path, secret: Path) -> dict[str, str]:
    """Put everything bad into an env; return extension → a word of the reason why it is left out."""
    top = env / PLACE
    bad = {
        "truncated": '{"name": "truncated", ',
        "list": "[]",
        "nothing": "",
        "unbuilt": json.dumps({"name": "unbuilt", "version": "1.0.0"}),
        "named": package("<img src=x onerror=alert(1)>"),
        "outside": package("outside", lab={"_build": {"load": "../../../../../secret.js"}}),
        "deep": "[" * 200_000,
        "huge": package("huge", description="x" * 2_000_000),
    }
    for name, text in bad.items():
        (top / name / "static").mkdir(parents=True)
        (top / name / "package.json").write_text(text)
        (top / name / "static" / "remoteEntry.js").write_text("1;")
    (top / "empty").mkdir()
    (top / "unloadable").mkdir()
    (top / "unloadable" / "package.json").write_text(package("unloadable"))
    (top / "loop").symlink_to(top)
    (top / "linked").symlink_to(secret)
    fifo = top / "fifo"
    fifo.mkdir()
    os.mkfifo(fifo / "package.json")
    one = top / "linkedfile"
    one.mkdir()
    (one / "package.json").symlink_to(secret / "package.json")
    # this one is good, but for what it holds
    good = top / "good"
    (good / "static" / "schemas" / "x").mkdir(parents=True)
    (good / "schemas" / "good").mkdir(parents=True)
    (good / "package.json").write_text(package("good", lab={"disabledExtensions": ["overlayspawner"]}))
    (good / "install.json").write_text("{truncat")
    (good / "static" / "remoteEntry.js").write_text("1;")
    (good / "static" / "schemas" / "x" / "y.json").write_text("{}")
    (good / "static" / "token.js").symlink_to(secret / "static" / "remoteEntry.js")
    (good / "static" / "all").symlink_to(secret)
    schemas = {
        "fine": '{"title": "Fine", "type": "object", "properties": {}}',
        "cut": "{",
        "no": '{"type": 7}',
    }
    for name, text in schemas.items():
        (good / "schemas" / "good" / f"{name}.json").write_text(text)
    return {
        **dict.fromkeys(
            ("truncated", "list", "nothing", "deep", "huge", "fifo", "linkedfile"), "package.json"
        ),
        "unbuilt": "built",
        "named": "names another",
        "outside": "no file to load",
        "unloadable": "missing",
        "loop": "is a link",
        "linked": "is a link",
    }


def wait_for(server: RunningServer, name: str) -> None:
    end = time.monotonic() + 30
    while name not in names(server):
        assert time.monotonic() < end, f"{name} does not come into the page:\n{server.log}"
        time.sleep(0.1)


def test_no_file_of_an_overlay_breaks_a_page(start: Start, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "static").mkdir(parents=True)
    (secret / "package.json").write_text(package("linkedfile"))
    (secret / "static" / "remoteEntry.js").write_text(SECRET)
    server = start(settings=LAB)
    before = names(server)
    expected = damage(env_of(server), secret)
    job = server.job("install", install=["tinyleaf"])
    assert (job["state"], job["reload"]) == ("done", True)

    def check(server: RunningServer) -> None:
        assert names(server) == before | {"good"}
        assert config(server)["disabledExtensions"] == []
        found = left_out(server)
        assert set(found) == set(expected), found
        assert {name for name in found if expected[name] not in found[name]} == set()
        answer = server.get("lab/api/settings")
        assert answer.ok, answer.text
        ids = {item["id"] for item in answer.json()["settings"]}
        assert {item for item in ids if item.startswith("good")} == {"good:fine"}
        assert server.get("lab/extensions/good/static/remoteEntry.js").text == "1;"
        for path in (
            "good/static/token.js",
            "good/static/all/static/remoteEntry.js",
            "linked/static/remoteEntry.js",
        ):
            answer = server.get(f"lab/extensions/{path}")
            assert answer.status_code in (403, 404) and SECRET not in answer.text, path

    check(server)
    # all of it is there already when a server starts
    server.stop()
    again = start(settings=LAB, home=server.home)
    wait_for(again, "good")
    check(again)


def test_they_come_change_and_go(start: Start, tmp_path: Path) -> None:
    image = tmp_path / "image" / "share" / "jupyter"
    for name in ("newer", "older", "same"):
        folder = image / "labextensions" / name
        (folder / "static").mkdir(parents=True)
        (folder / "package.json").write_text(package(name, "2.0.0"))
        (folder / "static" / "remoteEntry.js").write_text(f"// image's {name}")
    (image / "kernels" / "tinylang").mkdir(parents=True)
    spec = {"argv": ["sh", "-c", "true"], "display_name": "Tiny", "language": "tiny"}
    (image / "kernels" / "tinylang" / "kernel.json").write_text(json.dumps(spec))
    server = start(settings=LAB, environ={"JUPYTER_PATH": str(image)})
    before = names(server)
    assert {"newer", "older", "same"} <= before

    data = {
        **extension("tiny"),
        **extension("@org/mime", lab={"_build": {"load": "static/remoteEntry.js", "mimeExtension": "./m"}}),
        **extension("old", dependencies={"@jupyterlab/application": "^3.0.0"}),
        **extension("newer", "1.5.0"),
        **extension("same", "2.0.0"),
        **extension("older", "2.1.0", lab={"disabledExtensions": ["@jupyterlab/mathjax-extension:plugin"]}),
        "share/jupyter/kernels/tinylang/kernel.json": json.dumps({**spec, "argv": ["python", "-m", "tiny"]}),
        "share/jupyter/kernels/tinylang/logo-64x64.png": "png",
        "share/jupyter/kernels/own/kernel.json": json.dumps(
            {"argv": ["own", "{resource_dir}"], "display_name": "Own"}
        ),
        "share/jupyter/kernels/python3/kernel.json": json.dumps({**spec, "argv": ["python", "-c", "1"]}),
        "share/jupyter/kernels/bad/kernel.json": "[",
        "bin/own": "#!/bin/sh\n",
    }
    first = make_wheel(tmp_path, "tinywidgets", "1.0", data=data)
    switched = {"ServerApp": {"jpserver_extensions": {"tinyserver": True}}}
    config_d = "etc/jupyter/jupyter_server_config.d"
    served = {**extension("served"), f"{config_d}/tinyserver.json": json.dumps(switched)}
    second = make_wheel(tmp_path, "tinyserved", "1.0", data=served)
    job = server.job("install", install=[f"tinywidgets @ file://{first}", f"tinyserved @ file://{second}"])
    assert (job["state"], job["reload"]) == ("done", True), job
    assert names(server) == before | {"tiny", "@org/mime"}
    assert server.get("lab/extensions/older/static/remoteEntry.js").text == "// older 2.1.0"
    assert server.get("lab/extensions/newer/static/remoteEntry.js").text == "// image's newer"
    assert left_out(server) == {
        "old": f"it was made for another JupyterLab than {pages.image_lab().version}: it asks for "
        "@jupyterlab/application ^3.0.0",
        "newer": "it would replace the image's newer version 2.0.0",
        "served": "it needs a server extension (tinyserver), and the server loads only the image's",
    }
    mathjax = "@jupyterlab/mathjax-extension:plugin"
    assert mathjax in config(server)["disabledExtensions"]

    # a page without them, and the next one with them again
    off = config(server, "lab?overlay-extensions=off")
    assert {item["name"] for item in off["federated_extensions"]} == before
    assert mathjax not in off["disabledExtensions"]
    assert mathjax in config(server)["disabledExtensions"]
    assert names(server) == before | {"tiny", "@org/mime"}

    found = server.get("api/kernelspecs").json()["kernelspecs"]
    python = str(env_of(server) / "bin" / "python")
    assert found["tinylang"]["spec"]["argv"] == spec["argv"], "the image's kernel stays what it was"
    assert found["tinylang-overlay"]["spec"]["argv"] == [python, "-m", "tiny"]
    assert found["tinylang-overlay"]["spec"]["display_name"] == "Tiny (overlay)"
    assert "logo-64x64" in found["tinylang-overlay"]["resources"]
    assert found["own"]["spec"]["argv"][0] == str(env_of(server) / "bin" / "own")
    assert found["python3"]["spec"]["argv"][0] == "/bin/sh"
    assert "bad" not in found

    job = server.job("install", install=["tinyleaf"])
    assert (job["state"], job["reload"]) == ("done", False), "nothing of the page has changed"
    third = make_wheel(tmp_path / "next", "tinywidgets", "2.0", data=extension("tiny", "2.0.0"))
    job = server.job("install", install=[f"tinywidgets @ file://{third}"])
    assert (job["state"], job["reload"]) == ("done", True), job
    assert names(server) == before | {"tiny"} and set(left_out(server)) == {"served"}
    assert server.get("lab/extensions/tiny/static/remoteEntry.js").text == "// tiny 2.0.0"
    # jupyter_server remembers where a file was; here it was the overlay's
    assert server.get("lab/extensions/older/static/remoteEntry.js").text == "// image's older"
    assert "own" not in server.get("api/kernelspecs").json()["kernelspecs"]

    job = server.job("uninstall", uninstall=["tinywidgets", "tinyserved"])
    assert (job["state"], job["reload"]) == ("done", True), job
    assert names(server) == before and left_out(server) == {}
    job = server.job("undo")
    assert (job["state"], job["reload"]) == ("done", True), job
    assert "tiny" in names(server) and set(left_out(server)) == {"served"}


def test_a_server_that_takes_no_settings_of_users(start: Start) -> None:
    server = start(settings=LAB, environ={"JUPYTERHUB_DISABLE_USER_CONFIG": "1"})
    before = names(server)
    for path, text in extension("tiny").items():
        file = env_of(server) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    job = server.job("install", install=["tinyleaf"])
    assert (job["state"], job["reload"]) == ("done", False)
    assert names(server) == before
    assert "takes no settings of users" in left_out(server)["tiny"]


@pytest.mark.parametrize(
    ("choice", "disabled", "allowed"),
    [
        ("auto", "", True),
        ("auto", "0", True),
        ("auto", "1", False),
        ("always", "1", True),
        ("never", "", False),
    ],
)
def test_who_may(monkeypatch: pytest.MonkeyPatch, choice: str, disabled: str, allowed: bool) -> None:
    monkeypatch.setenv("JUPYTERHUB_DISABLE_USER_CONFIG", disabled)
    context: Any = SimpleNamespace(runtime="/none", spec=Spec(lab_extensions=choice))
    assert pages.Pages(context, SimpleNamespace())._allowed() is allowed
    with_trait = SimpleNamespace(disable_user_config=True)
    assert pages.Pages(context, with_trait)._allowed() is (choice == "always")


def test_nobody_waits_for_a_loop_that_has_ended() -> None:
    loop = IOLoop(make_current=False)
    context: Any = SimpleNamespace(runtime="/none", spec=Spec())
    made = pages.Pages(context, SimpleNamespace(io_loop=loop))
    done: list[int] = []
    running = threading.Thread(target=loop.start)
    running.start()
    made._on_loop(lambda: done.append(1))
    loop.add_callback(loop.stop)
    running.join()
    with pytest.raises(TimeoutError):
        made._on_loop(lambda: done.append(2))
    assert done == [1]
    loop.close()


def test_what_went_wrong_on_the_loop_went_wrong() -> None:
    loop = IOLoop(make_current=False)
    context: Any = SimpleNamespace(runtime="/none", spec=Spec())
    made = pages.Pages(context, SimpleNamespace(io_loop=loop))
    running = threading.Thread(target=loop.start)
    running.start()
    with pytest.raises(FileNotFoundError):
        made._on_loop(lambda: os.rename("/nowhere/a", "/nowhere/b"))
    loop.add_callback(loop.stop)
    running.join()
    loop.close()


def test_a_kernel_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    env = Env(str(tmp_path / "env"), "3.11")
    own = Path(env.path, "share", "jupyter", "kernels", "own")
    own.mkdir(parents=True)
    spec = {"argv": ["python", "-m", "own"], "display_name": "Own", "language": "own"}
    (own / "kernel.json").write_text(json.dumps(spec))
    (tmp_path / "runtime" / "notices").mkdir(parents=True)
    context: Any = SimpleNamespace(runtime=str(tmp_path / "runtime"), spec=Spec(), env=env)
    made = pages.Pages(context, SimpleNamespace(log=logging.getLogger("test")))
    place = tmp_path / "runtime" / "share" / "jupyter" / "kernels"
    made.refresh()
    assert not place.exists()
    place.mkdir(parents=True)
    made.refresh()
    written = json.loads((place / "own" / "kernel.json").read_text())
    assert written["argv"] == [env.python, "-m", "own"]


def test_nothing_is_deleted_on_the_loop(tmp_path: Path) -> None:
    place = tmp_path / "share" / "jupyter" / "labextensions"
    for name in ("tiny", "@org/mime", ".tiny"):
        (place / name).mkdir(parents=True)
        (place / name / "package.json").write_text(name)
    context: Any = SimpleNamespace(runtime=str(tmp_path), spec=Spec())
    made = pages.Pages(context, SimpleNamespace())
    made._put({"tiny": str(place / ".tiny")}, ["@org/mime"])
    assert (place / "tiny" / "package.json").read_text() == ".tiny"
    assert not (place / "@org").exists()
    # a thread does that
    assert {path.parent.name for path in place.glob(".*/package.json")} == {".tiny+old", ".@org+mime+old"}
