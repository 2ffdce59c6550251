"""The outcome as a whole: log in, install, throw the container away, and the packages are still there."""

from __future__ import annotations

import pytest

from tests.docker.conftest import HOMES
from tests.support.hub import RunningHub, index_environment, xsrf
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside]


@pytest.mark.parametrize("kind", ["stacks", "venv"])
def test_packages_stay(hub: RunningHub, kind: str) -> None:
    user = f"walker{kind}"
    hub.configure(user, image=image(kind))
    browser = hub.login(user)
    assert browser.get(f"{hub.host}/hub/spawn", timeout=120).ok
    hub.wait_ready(user)
    base = f"{hub.host}/user/{user}/"
    assert browser.get(f"{base}lab", timeout=60).status_code == 200

    # over REST, as the page does it: with cookies and an XSRF token
    answer = browser.post(
        f"{base}overlay/v1/jobs",
        json={"action": "install", "install": ["tinytree"]},
        headers={"X-XSRFToken": xsrf(browser, f"/user/{user}/")},
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    server = hub.server(user)
    job = server.finished(answer.json())
    assert job["state"] == "done", job
    assert answer.headers["Location"].endswith(f"/overlay/v1/jobs/{job['id']}")

    # from the notebook
    with server.kernel() as kernel:
        cell = kernel.run("import tinytree, tinyleaf; print(tinytree.__version__, tinyleaf.__version__)")
        assert cell.text == "2.0 2.0\n", cell
        cell = kernel.run("%pip install tinyscript")
        assert not cell.error, cell
        cell = kernel.run("import tinyscript; print(tinyscript.__file__)")
        assert cell.text.startswith(f"{HOMES[kind]}/.overlay/default/envs/"), cell

    first = hub.engine.container(user).id
    hub.stop_server(user)
    assert [c.name for c in hub.engine.containers() if c.id == first] == []
    hub.start_server(user)
    assert hub.engine.container(user).id != first

    cell = server.run_cell("import tinytree, tinyscript; print(tinytree.__file__, tinyscript.__file__)")
    assert not cell.error, cell
    assert cell.text.count(f"{HOMES[kind]}/.overlay/default/envs/") == 2
    packages = server.packages("overlay")
    assert {"tinytree", "tinyleaf", "tinyscript"} <= set(packages)
    assert packages["tinytree"]["version"] == "2.0"
    assert packages["tinytree"]["requested"] is True
    assert packages["tinyleaf"]["requested"] is False
    assert "jupyterlab" in server.packages("base")
    assert "jupyterlab" not in packages

    # and away again
    job = server.job("uninstall", uninstall=["tinytree"])
    assert job["state"] == "done", job
    assert "ModuleNotFoundError" in server.run_cell("import tinytree").error
    assert not {"tinytree", "tinyleaf"} & set(server.packages("overlay"))
    assert "tinyscript" in server.packages("overlay")


def test_the_image_is_not_changed(hub: RunningHub) -> None:
    server = hub.start_server("tidy")
    server.install("tinymany")
    differences = hub.engine.container("tidy").diff() or []
    # A volume's mount point shows up as added; below /opt/conda nothing may have been written but byte code.
    changed = [
        item["Path"]
        for item in differences
        if item["Path"].startswith("/opt/conda/") and "__pycache__" not in item["Path"] and item["Kind"] != 0
    ]
    assert changed == []
    assert server.overlay("status")["mode"] == "normal"


def test_progress_is_told(hub: RunningHub) -> None:
    hub.start_server("progress", wait=False)
    events = hub.wait_ready("progress")
    assert events[-1]["ready"]
    assert len(events) >= 3, events
    numbers = [event["progress"] for event in events]
    assert numbers == sorted(numbers), events
    # the last event is the hub's own, with a link; ours are plain text
    assert all("html_message" not in event for event in events[:-1]), events


def test_the_same_home_without_a_hub(hub: RunningHub, index: LocalIndex) -> None:
    """In a terminal of a server, then in a container started by hand, then in a server again."""
    server = hub.start_server("byhand")
    install, remove, missing, rest = server.terminal(
        "pip install --user tinyscript",
        "pip uninstall -y ipykernel",
        "overlay run no-such-program",
        "overlay install tinytree && overlay pyz ~ && overlay run pytest --version",
        timeout=120,
    )
    assert "Successfully installed tinyscript" in install and "--user is left out" in install
    assert "belongs to the image and stays" in remove
    assert "no such program" in missing
    assert "Installed tinyleaf 2.0, tinytree 2.0." in rest and "Wrote /home/jovyan/overlay.pyz" in rest
    (volume,) = [m["Name"] for m in hub.engine.container("byhand").attrs["Mounts"] if m["RW"]]
    hub.stop_server("byhand")

    script = """
        overlay() { python ~/overlay.pyz "$@"; }
        overlay list --quiet
        overlay run python -c 'import tinytree; print(tinytree.__file__)'
        overlay install tinydata
        ~/overlay.pyz run pytest -q --version
        python3 ~/overlay.pyz status --json | grep '"changed"'
        overlay run sh -c 'exit 7' || echo $?
    """
    shown = hub.engine.client.containers.run(
        image("stacks"),
        ["sh", "-ec", script],
        name=f"{hub.engine.prefix}-without-a-hub",
        environment=index_environment(index),
        volumes={volume: {"bind": "/home/jovyan", "mode": "rw"}},
        stderr=False,
        remove=True,
    ).decode()
    lines = shown.splitlines()
    assert lines[:3] == ["tinyleaf", "tinyscript", "tinytree"], shown
    assert lines[3].startswith("/home/jovyan/.overlay/default/envs/")
    assert lines[4] == "Installed tinydata 1.0."
    assert lines[5].startswith("pytest ") and lines[-1] == "7", shown
    assert lines[6].strip() == '"changed": false', "python3 is the same image as python"

    server = hub.start_server("byhand")
    assert not server.run_cell("import tinydata, tinytree").error
    assert set(server.packages()) >= {"tinydata", "tinytree", "tinyscript"}
