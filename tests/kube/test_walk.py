"""A user of a real hub with OverlayKubeSpawner: packages outlive the pod.

``pytest -s tests/kube/test_walk.py`` prints what happens.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.support.hub import RunningHub, xsrf
from tests.support.kube import Namespace, notebook, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.kube,
    pytest.mark.timeout(300),
]

HOME = "/home/jovyan"


class Transcript:
    """Prints what is done and what comes of it, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, *words: Any) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s ", *words)


def test_packages_outlive_the_pod(hub: RunningHub, namespace: Namespace) -> None:
    tell = Transcript()
    session = hub.login("walker")
    tell("POST /hub/login as walker:", "logged in")
    page = session.get(f"{hub.host}/hub/spawn/walker", timeout=30).text
    profiles = re.findall(r'name="profile"[^>]*value="([^"]+)"', page)
    tell("GET /hub/spawn: profiles", ", ".join(profiles[:3]), "…, and safe mode:", "overlay" in page)
    assert "companion" in profiles
    answer = session.post(
        f"{hub.host}/hub/spawn/walker",
        data={"profile": "companion", "_xsrf": xsrf(session, "/hub/")},
        allow_redirects=False,
        timeout=60,
    )
    assert answer.status_code == 302 and "/spawn-pending/" in answer.headers["Location"], answer.text[-2000:]
    tell("POST /hub/spawn profile=companion:", answer.status_code, answer.headers["Location"].split("?")[0])
    hub.add_user("walker")
    events = hub.wait_ready("walker")
    messages = [str(event.get("message")) for event in events]
    for message in messages:
        tell("  spawn page:", message[:90])
    # Kubernetes' own words, for pages of the administrator's in their raw form too
    assert "Started container notebook" in messages, messages
    assert any("raw_event" in event for event in events)
    numbers = [event["progress"] for event in events]
    assert numbers == sorted(numbers) and events[-1]["ready"], events

    server = hub.server("walker")
    status = server.overlay("status")
    tell("GET overlay/v1/status:", f"mode {status['mode']}, path {status['path']}")
    assert status["mode"] == "normal", status
    assert status["path"] == f"{HOME}/.overlay/default"
    job = server.job("install", install=["tinytree"])
    tell("POST overlay/v1/jobs install tinytree:", job["state"])
    assert job["state"] == "done", job
    code = "import tinytree, os; print(tinytree.__file__, 'OVERLAYSPAWNER_SPEC' in os.environ)"
    cell = server.run_cell(code)
    tell("kernel: import tinytree:", cell.text.split()[0])
    assert f"{HOME}/.overlay/default/envs/" in cell.text and cell.text.endswith("False\n"), cell

    pod = namespace.pod("walker")
    assert notebook(pod).args[-2:] == ["start-notebook.py", "--debug"]
    secrets = namespace.secrets()
    assert [name for name in secrets if name.startswith("overlayspawner-payload-")] == list(secrets)
    assert len(secrets) == 1 and next(iter(secrets.values())).immutable
    tell("cluster: pod", pod.metadata.name, pod.metadata.uid[:8], "and the Secret", *secrets)
    namespace.cluster.call("delete_namespaced_pod", pod.metadata.name, namespace.name, grace_period_seconds=0)
    tell("cluster: the pod is deleted by force")
    until(lambda: "" not in hub.model("walker")["servers"], 60, "the hub has not noticed")
    tell("hub: has noticed that the server is gone")
    hub.start_server("walker")
    again = namespace.pod("walker")
    tell("hub: server started again, pod", again.metadata.name, again.metadata.uid[:8])
    assert again.metadata.uid != pod.metadata.uid
    cell = server.run_cell("import tinytree; print(tinytree.__file__)")
    tell("kernel: import tinytree:", cell.text.strip() or cell.error)
    assert not cell.error
    assert server.packages("overlay")["tinytree"]["requested"] is True
    assert namespace.secrets().keys() == secrets.keys()
    hub.stop_server("walker")

    hub.start_server("walker", options={"overlay": "safe"})
    status = server.overlay("status")
    assert status["mode"] == "safe" and "safe-mode" in {n["code"] for n in status["notices"]}
    assert "ModuleNotFoundError" in server.run_cell("import tinytree").error
    hub.stop_server("walker")
    tell("hub: safe mode shows", json.dumps(status["mode"]), "and the package is not there; stopped")
    assert not namespace.pods()
