#!/usr/bin/env python3
"""How long a server takes to start: stock DockerSpawner and OverlayDockerSpawner, alternately, on one image.

    python benchmarks/spawn.py [--rounds 9] [--image TAG]

Measured from the request to start the server until the hub reports it ready, as its progress stream tells.
Two hubs run side by side, one for each class, and take turns, so that a busy moment of the machine hits
both. "warm" is the next start of a user who has a home; "first" the first one of a new user. Phases are the
engine's own time stamps: of the container's start, and of the line in which the server says that it is up.

Nothing here is asserted: the numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.hub import RunningHub
from tests.support.images import image as test_image

CLASSES = {"stock": "dockerspawner.DockerSpawner", "overlay": "overlay-docker"}
TARGETS = {"warm": 0.80, "first": 0.90}


@dataclass
class Start:
    """One start, in seconds since the request.

    Parameters
    ----------
    running:
        The engine calls the container started.
    listening:
        The server prints that it is up.
    ready:
        The hub reports it ready.
    """

    running: float
    listening: float
    ready: float


def measure(hub: RunningHub, user: str) -> Start:
    """Start one server and stop it again."""
    hub.add_user(user)
    begin = time.time()
    answer = hub.call("POST", f"users/{user}/server", json={})
    assert answer.status_code in (201, 202), answer.text
    # The hub sends the last event when it calls the server ready; reading it costs no polling.
    last: dict[str, Any] = {}
    for last in hub.events(user):
        if last.get("ready") or last.get("failed"):
            break
    ready = time.time() - begin
    assert last.get("ready"), last
    container = hub.engine.container(user)
    started = container.attrs["State"]["StartedAt"]
    lines = container.logs(timestamps=True).decode(errors="replace").splitlines()
    listening = next(line.split()[0] for line in lines if "Jupyter Server" in line and "running at" in line)
    hub.stop_server(user)
    while hub.engine.containers(user):
        time.sleep(0.05)
    return Start(running=_seconds(started) - begin, listening=_seconds(listening) - begin, ready=ready)


def _seconds(stamp: str) -> float:
    # the engine writes nanoseconds, which datetime can't read
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + float(f"0.{fraction or 0}")


def run(rounds: int, image: str) -> dict[tuple[str, str], list[Start]]:
    """Measure all kinds, alternately; return the starts by kind and class."""
    found: dict[tuple[str, str], list[Start]] = {(k, c): [] for k in TARGETS for c in CLASSES}
    # The stock class gets a volume for the home as well: otherwise it would be spared the making of one.
    volumes = f"c.DockerSpawner.volumes = {{harness['prefix'] + '-home-{{username}}': {_home(image)!r}}}"
    stock = RunningHub(volumes, spawner=CLASSES["stock"], image=image)
    with stock, RunningHub(spawner=CLASSES["overlay"], image=image) as overlay:
        hubs = {"stock": stock, "overlay": overlay}
        for hub in hubs.values():
            measure(hub, "warm")  # makes homes, fills the payload's volume, warms the file cache
        for number in range(rounds):
            order = list(hubs) if number % 2 == 0 else list(reversed(hubs))
            for kind in TARGETS:
                for name in order:
                    user = "warm" if kind == "warm" else f"new{number}"
                    found[kind, name].append(measure(hubs[name], user))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def _home(image: str) -> str:
    import docker

    client = docker.from_env()
    config = client.images.get(image).attrs["Config"]
    client.close()
    variables = dict(item.split("=", 1) for item in config["Env"])
    return variables.get("HOME") or config["WorkingDir"] or "/home/jovyan"


def table(found: dict[tuple[str, str], list[Start]]) -> str:
    """Return medians and ratios as a table."""
    lines = [
        "| start | phase | stock (s) | overlay (s) | ratio | target |",
        "|---|---|---|---|---|---|",
    ]
    for kind, target in TARGETS.items():
        phases = {
            "request → container runs": lambda s: s.running,
            "container runs → server listens": lambda s: s.listening - s.running,
            "server listens → ready": lambda s: s.ready - s.listening,
            "request → ready": lambda s: s.ready,
        }
        for phase, value in phases.items():
            middle = {name: statistics.median(map(value, found[kind, name])) for name in CLASSES}
            aim = f"≤ {target:.2f}" if phase == "request → ready" else ""
            ratio = middle["overlay"] / middle["stock"]
            cells = " | ".join(f"{middle[name]:.2f}" for name in CLASSES)
            lines.append(f"| {kind} | {phase} | {cells} | {ratio:.2f} | {aim} |")
        spread = {name: [f(s.ready for s in found[kind, name]) for f in (min, max)] for name in CLASSES}
        cells = " | ".join(f"{low:.2f} to {high:.2f}" for low, high in spread.values())
        lines.append(f"| {kind} | fastest to slowest | {cells} | | |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="starts of each kind and class (default: 9)")
    parser.add_argument("--image", default="", help="default: the docker-stacks-like test image")
    options = parser.parse_args()
    image = options.image or test_image("stacks")
    print(f"{options.rounds} rounds on {image}\n{table(run(options.rounds, image))}")


if __name__ == "__main__":
    main()
