"""Safe mode and starting over, from the spawn page to the container, each for one start only."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest
import requests

from tests.docker.conftest import HOMES
from tests.support.hub import RunningHub, SpawnFailed, xsrf
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside, pytest.mark.timeout(240)]

# A form and a function of the administrator's: they go on working, and never see what is ours.
CONFIG = """
async def form(spawner):
    return '<label>Course <input name="course" value="none"></label>'

c.Spawner.options_form = form
# A hub that comes back waits no longer than this for a server, on a busy machine too.
c.Spawner.http_timeout = 120
c.Spawner.options_from_form = lambda data: {"course": data["course"][0], "seen": sorted(data)}
"""
HOME = HOMES["stacks"]


@pytest.fixture(scope="module")
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    with RunningHub(CONFIG, image=image("stacks"), index=index) as running:
        yield running


def submit(hub: RunningHub, browser: requests.Session, **fields: str) -> None:
    """Send the spawn page's form, as a browser does."""
    url = f"{hub.host}/hub/spawn"
    page = browser.get(url, timeout=60)
    assert page.ok and 'name="course"' in page.text and 'name="overlay"' in page.text, page.text
    data = {"course": "none", "overlay": "normal", **fields, "_xsrf": xsrf(browser, "/hub/")}
    answer = browser.post(url, data=data, timeout=60, allow_redirects=False)
    assert answer.status_code == 302 and "spawn-pending" in answer.headers["Location"], answer.text


def stored(hub: RunningHub, user: str) -> object:
    return hub.model(user)["servers"][""]["user_options"]


def folders(hub: RunningHub, user: str) -> list[str]:
    """Return what resets have moved aside."""
    done = hub.engine.container(user).exec_run(["ls", f"{HOME}/.overlay"])
    return [name for name in done.output.decode().split() if name.startswith("default.reset-")]


def test_safe_mode_by_a_link(hub: RunningHub) -> None:
    browser = hub.login("linker")
    submit(hub, browser, course="physics")
    hub.wait_ready("linker")
    options = {"course": "physics", "seen": ["_xsrf", "course"]}
    assert stored(hub, "linker") in (options, {**options, "seen": ["course"]})
    options = stored(hub, "linker")
    hub.server("linker").install("tinytree")
    hub.stop_server("linker")

    assert browser.get(f"{hub.host}/hub/spawn?overlay=safe", timeout=60).ok
    events = hub.wait_ready("linker")
    assert any("Safe mode" in str(event.get("message")) for event in events), events
    server = hub.server("linker")
    status = server.overlay("status")
    assert status["mode"] == "safe" and "safe-mode" in {n["code"] for n in status["notices"]}
    assert "ModuleNotFoundError" in server.run_cell("import tinytree").error
    assert stored(hub, "linker") == options
    hub.stop_server("linker")

    hub.start_server("linker")
    assert server.overlay("status")["mode"] == "normal"
    assert not server.run_cell("import tinytree").error


def test_no_reset_by_a_link(hub: RunningHub) -> None:
    hub.start_server("careful").install("tinyleaf")
    hub.stop_server("careful")
    browser = hub.login("careful")
    answer = browser.get(f"{hub.host}/hub/spawn?overlay=reset", timeout=60)
    assert answer.status_code == 400 and "by a link" in answer.text
    server = hub.start_server("careful")
    assert "tinyleaf" in server.packages() and not folders(hub, "careful")


def test_a_reset_by_the_form_is_done_once(hub: RunningHub) -> None:
    user = "starter"
    hub.start_server(user).install("tinytree")
    hub.stop_server(user)
    submit(hub, hub.login(user), overlay="reset")
    hub.wait_ready(user)
    server = hub.server(user)
    (folder,) = folders(hub, user)
    told = [n for n in server.overlay("status")["notices"] if n["code"] == "reset-done"]
    assert len(told) == 1 and f"{HOME}/.overlay/{folder}" in told[0]["message"]
    assert not server.packages() and "overlay" not in str(stored(hub, user))
    server.install("tinyleaf")

    # the same container, started again with the same environment
    container = hub.engine.container(user)
    container.restart(timeout=10)
    end = time.monotonic() + 60
    while container.logs().decode().count("[overlay-ready]") < 2:
        assert time.monotonic() < end, container.logs().decode()
        time.sleep(0.2)
    assert folders(hub, user) == [folder]
    text = container.exec_run(["cat", f"{HOME}/.overlay/default/requirements.txt"]).output.decode()
    assert text.split() == ["tinyleaf"]

    hub.stop_server(user)
    server = hub.start_server(user)
    assert folders(hub, user) == [folder] and "tinyleaf" in server.packages()
    for _ in range(2):  # the installation, then the reset
        job = server.job("undo")
        assert job["state"] == "done", job
    assert "tinytree" in server.packages()


def test_a_hub_that_is_killed_while_a_reset_starts(hub: RunningHub) -> None:
    user = "unlucky"
    hub.start_server(user).install("tinyleaf")
    hub.stop_server(user)
    hub.configure(user, cmd=["/bin/sh", "-c", "sleep 5; exec start-notebook.py"])
    submit(hub, hub.login(user), overlay="reset")
    for event in hub.events(user):
        if hub.engine.containers(f"-{user}") and "aiting" in str(event.get("message", "")):
            break
        assert not event.get("failed") and not event.get("ready"), event
    hub.stop(signal.SIGKILL)
    hub.start()
    server = hub.wait_found(user)
    assert len(folders(hub, user)) == 1 and not server.packages()
    server.install("tinydata")
    hub.stop_server(user)
    server = hub.start_server(user)
    assert len(folders(hub, user)) == 1 and "tinydata" in server.packages()


def test_a_failed_start_offers_safe_mode(hub: RunningHub) -> None:
    user = "failing"
    hub.configure(user, cmd=["/bin/sh", "-c", "echo '<script>alert(1)</script>'; sleep 2; exit 1"])
    browser = hub.login(user)
    submit(hub, browser)
    while hub.model(user)["servers"].get("", {}).get("pending"):
        time.sleep(0.1)
    page = browser.get(f"{hub.host}/hub/spawn-pending/{user}", timeout=60).text
    link = re.search(r'href="(/hub/spawn/failing\?overlay=safe)"', page)
    assert link is not None and "<script>alert" not in page, page
    hub.configure(user)
    assert browser.get(hub.host + link[1], timeout=60).ok
    hub.wait_ready(user)
    assert hub.server(user).overlay("status")["mode"] == "safe"


def test_safe_mode_by_the_hub_s_rest_interface(hub: RunningHub) -> None:
    server = hub.start_server("caller", options={"overlay": "safe", "course": "x"})
    assert server.overlay("status")["mode"] == "safe"
    assert stored(hub, "caller") == {"course": "x"}
    hub.stop_server("caller")
    hub.start_server("caller")
    assert server.overlay("status")["mode"] == "normal"


def test_a_container_that_is_kept_is_replaced_for_safe_mode(hub: RunningHub) -> None:
    user = "keeper"
    hub.configure(user, remove=False)
    hub.start_server(user)
    first = hub.engine.container(user).id
    hub.stop_server(user)
    server = hub.start_server(user, options={"overlay": "safe"})
    assert server.overlay("status")["mode"] == "safe"
    second = hub.engine.container(user).id
    assert second != first
    hub.stop_server(user)
    hub.start_server(user)  # the same container: what was asked for is done
    assert hub.engine.container(user).id == second
    assert server.overlay("status")["mode"] == "normal"


@pytest.mark.parametrize("what", ["safe", "reset"])
def test_a_container_that_can_t_be_replaced_is_started_as_it_is(hub: RunningHub, what: str) -> None:
    """What the user has in the container itself counts more than what was asked for this start."""
    user = f"hoarder{what}"
    hub.configure(user, remove=False)
    hub.start_server(user).install("tinyleaf")
    first = hub.engine.container(user)
    assert first.exec_run(["touch", "/opt/conda/mine"], user="0").exit_code == 0
    hub.stop_server(user)
    if what == "safe":
        hub.start_server(user, options={"overlay": "safe"}, wait=False)
    else:
        submit(hub, hub.login(user), overlay="reset")
    events = hub.wait_ready(user)
    (told,) = [e["message"] for e in events if "can't be replaced" in str(e.get("message"))]
    assert "/opt/conda/mine was changed in it" in told
    server = hub.server(user)
    assert hub.engine.container(user).id == first.id
    assert server.overlay("status")["mode"] == "normal"
    assert "tinyleaf" in server.packages()
    assert not folders(hub, user)
    # the way that was named instead works
    (command,) = re.findall(r"`(overlay [a-z -]+)`", told)
    answer = "--yes" if what == "reset" else ""  # it asks
    (said,) = server.terminal(f"{command} {answer}; echo it ended with $?")
    assert "it ended with 0" in said, said
    if what == "reset":
        assert folders(hub, user)
    else:
        hub.stop_server(user)
        hub.start_server(user)
        assert server.overlay("status")["mode"] == "safe"


def test_a_server_that_never_answers_offers_safe_mode(hub: RunningHub) -> None:
    hub.configure("silent", cmd=["/bin/sh", "-c", "exec sleep 100"], http_timeout=2)
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server("silent")
    told = [str(event.get("message")) for event in failed.value.events]
    assert [text for text in told if "/hub/spawn/silent?overlay=safe" in text], told
