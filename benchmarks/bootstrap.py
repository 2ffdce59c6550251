#!/usr/bin/env python3
"""What the start of a container costs: our first stage against a Python that does nothing.

    python benchmarks/bootstrap.py [--rounds 60] [--python PATH]...

Measured is the launcher's call of Python, as the image's user, from the payload that a hub delivers: "warm"
for a user who has an overlay, "create" for a new one. In turns with ``python -I -c pass``, so that a busy
moment of the machine hits all. "bytecode" is what a release delivers to a Python of a supported version,
"sources" what it costs where there is no bytecode: on others, and from a checkout.

As root the starts run as an ordinary user, who must be able to read the interpreter: one below /root can't be
measured.

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

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import bytecode  # noqa: E402  (of scripts)

from overlayspawner.hub import payload_zip, start_bin  # noqa: E402
from overlayspawner.payload.contract import PAYLOAD_START, Spec  # noqa: E402

TARGETS = {"warm": 15.0, "create": 20.0}
USER = 65534
"""Who starts, where this runs as root: a start as root opens nothing."""


def program(launcher: str) -> str:
    """Return the program that the launcher gives to Python."""
    begin = launcher.index("-I -c '") + len("-I -c '")
    return launcher[begin : launcher.index('\' "$OVERLAYSPAWNER_PAYLOAD" start', begin)]


def deliver(python: str, root: Path) -> dict[str, Path]:
    """Write the payload twice; return kind → directory.

    Raises
    ------
    bytecode.Unfit
        The interpreter can't compile.
    """
    built = payload_zip.build()
    modules = start_bin.start_modules(payload_zip.payload_sources())
    made = bytecode.compile_with(python, modules)
    compiled = {**start_bin.shipped(modules, start_bin.shipped_dir()), **start_bin.own(modules)}
    starts = {
        "bytecode": start_bin.make_start(modules, len(built.zip), {**compiled, made.magic: made.packed}),
        "sources": start_bin.make_start(modules, len(built.zip), {}),
    }
    out = {}
    for kind, start in starts.items():
        out[kind] = root / kind
        out[kind].mkdir()
        for name, data in {**built.contents(), PAYLOAD_START: start}.items():
            (out[kind] / name).write_bytes(data)
    return out


SAY = """
print("USED", sys.modules["overlayspawner"].__loader__ is None, main.__code__.co_filename.startswith("/"))
"""
"""Added to the program: modules of ``start.bin`` have no loader; compiled ones don't know where they lie."""


def check(command: list[str], kind: str, environ: dict[str, str]) -> None:
    """Make sure that a start does what is to be measured, so that no failure passes for a fast one."""
    user = USER if os.geteuid() == 0 else None
    done = subprocess.run(command, env=environ, user=user, capture_output=True, text=True, check=False)
    expected = f"USED True {kind == 'sources'}"
    if done.returncode != 0 or expected not in done.stdout.splitlines():
        sys.exit(f"{kind}: this is not the start that was to be measured:\n{done.stdout}{done.stderr}")
    if not os.path.exists(os.path.join(environ["HOME"], ".overlay", "default", "overlay.json")):
        sys.exit(f"{kind}: the start made no overlay:\n{done.stdout}{done.stderr}")


def runs(python: str) -> None:
    """Make sure that the user who starts may run an interpreter."""
    user = USER if os.geteuid() == 0 else None
    try:
        subprocess.run([python, "-I", "-c", "pass"], user=user, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as e:
        why = e.stderr.strip() if isinstance(e, subprocess.CalledProcessError) else str(e)
        whose = f"user {USER}, as whom starts are measured here," if user else "this user"
        sys.exit(f"{python} can't be run by {whose}: {why or e}")


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


def empty(*directories: Path) -> None:
    """Give the user who starts directories with nothing in them."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        if os.geteuid() == 0:
            os.chown(directory, USER, USER)


def measure(python: str, rounds: int, root: Path) -> dict[str, list[tuple[float, float]]]:
    """Return name → milliseconds, of the clock and of a processor."""
    runs(python)
    delivered = deliver(python, root)
    text = program(payload_zip.build().launcher.decode())
    home, run = root / "home", root / "run"
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(run),
        "OVERLAYSPAWNER_SPEC": Spec().to_json(),
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for kind, directory in delivered.items():
        empty(home, run)
        check([python, "-I", "-c", text + SAY, str(directory), "start"], kind, environ)
    for number in range(-2, rounds):
        once = {"pass": timed([python, "-I", "-c", "pass"], environ)}
        for kind, directory in delivered.items():
            empty(home, run)
            command = [python, "-I", "-c", text, str(directory), "start"]
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
        except bytecode.Unfit as e:
            sys.exit(f"{python}: {e}")
        finally:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
