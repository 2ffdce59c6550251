#!/usr/bin/env python3
"""What the start of a container costs: our first stage against a Python that does nothing.

    python benchmarks/bootstrap.py [--rounds 60] [--python PATH]...

Measured is the launcher's call of Python, as the image's user, from the payload that a hub delivers: "warm"
for a user who has an overlay, "create" for a new one. In turns with ``python -I -c pass``, so that a busy
moment of the machine hits all. "sources" is what it costs on a Python of another version than the hub's, for
which there is no bytecode.

The time of a processor depends less on what else the machine does; two share a part of it at a time.
Nothing here is asserted: the numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from overlayspawner.hub import payload_zip
from overlayspawner.payload.contract import Spec

TARGETS = {"warm": 15.0, "create": 20.0}
USER = 65534
"""Who starts, where this runs as root: a start as root opens nothing."""


def programs(launcher: str) -> dict[str, str]:
    """Return the program that the launcher gives to Python, with and without the use of bytecode."""
    begin = launcher.index("-I -c '") + len("-I -c '")
    text = launcher[begin : launcher.index('\' "$OVERLAYSPAWNER_PAYLOAD" start', begin)]
    without = text.replace("magic == MAGIC_NUMBER", "False")
    assert without != text
    return {"bytecode": text, "sources": without}


def timed(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its milliseconds, and those of a processor that it and its children took."""
    user = USER if os.geteuid() == 0 else None
    null = subprocess.DEVNULL
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environ, user=user, stdout=null, stderr=null)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return took * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def measure(python: str, rounds: int, root: Path) -> dict[str, list[tuple[float, float]]]:
    """Return name → milliseconds, of the clock and of a processor."""
    payload = payload_zip.build()
    for name, data in payload.contents().items():
        (root / name).write_bytes(data)
    home, run = root / "home", root / "run"
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(run),
        "OVERLAYSPAWNER_SPEC": Spec().to_json(),
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(-2, rounds):
        once = {"pass": timed([python, "-I", "-c", "pass"], environ)}
        for kind, program in programs(payload.launcher.decode()).items():
            for directory in (home, run):
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                if os.geteuid() == 0:
                    os.chown(directory, USER, USER)
            command = [python, "-I", "-c", program, str(root), "start"]
            once[f"create, {kind}"] = timed(command, environ)
            once[f"warm, {kind}"] = timed(command, environ)
        if number < 0:
            continue  # warms the file cache
        for name, value in once.items():
            found.setdefault(name, []).append(value)
    return found


def table(python: str, found: dict[str, list[tuple[float, float]]]) -> str:
    """Return medians as a table."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    bare = statistics.median(took for took, _ in found["pass"])
    lines = [
        f"{version} ({python}): `python -I -c pass` takes {bare:.1f} ms",
        "",
        "| start | median (ms) | over `pass` (ms) | processor, over `pass` (ms) | ratio | target (ms) |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in found.items():
        if name == "pass":
            continue
        median = statistics.median(took for took, _ in values)
        over, cpu = (
            statistics.median(value[i] - low[i] for value, low in zip(values, found["pass"])) for i in (0, 1)
        )
        target = f"≤ {TARGETS[name.split(',')[0]]:g}"
        lines.append(f"| {name} | {median:.1f} | {over:.1f} | {cpu:.1f} | {median / bare:.2f} | {target} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--python", action="append", help="an interpreter; may be given more than once")
    arguments = parser.parse_args()
    pythons = arguments.python or [p for p in ("/usr/bin/python3", shutil.which("python3")) if p][:1]
    for python in pythons:
        # not below the home of the user who runs this, which others may not read
        root = Path(tempfile.mkdtemp(prefix="bootstrap-bench-", dir="/tmp"))
        root.chmod(0o755)
        try:
            print(table(python, measure(python, arguments.rounds, root)), flush=True)
        finally:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
