"""What runs inside the containers of :mod:`tests.support.boxes`, sent there as text.

The standard library alone, and nothing of ours but the delivered zip. Called with a verb and its arguments in
JSON; prints one JSON document a line.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from typing import Any

ZIP = "/opt/overlayspawner/overlay.pyz"


def say(**what: Any) -> None:
    """Print one line for the test."""
    print(json.dumps(what), flush=True)


def overlay(*words: str, fault: str = "", timeout: float = 240.0) -> tuple[int, dict[str, Any]]:
    """Run the command line in a process of its own; return its exit code and what it printed.

    Parameters
    ----------
    fault:
        Where it is to fail or die, as ``files.step`` reads it.
    timeout:
        Seconds.
    """
    environ = {**os.environ, "OVERLAYSPAWNER_FAULT": fault}
    argv = [sys.executable, "-I", ZIP, "cli", words[0], "--json", *words[1:]]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=timeout, check=False)
    try:
        data = json.loads(done.stdout)
    except ValueError:
        data = {"code": "no-answer", "message": (done.stdout + done.stderr)[-3000:]}
    return done.returncode, data


def patient(*words: str, tries: int = 100) -> tuple[int, dict[str, Any]]:
    """Like :func:`overlay`, again for as long as another one is busy."""
    for _ in range(tries):
        rc, data = overlay(*words)
        if data.get("code") != "busy":
            break
        time.sleep(random.uniform(0.02, 0.3))
    return rc, data


def pip(*words: str, tries: int = 100) -> tuple[int, str]:
    """Run ``pip`` as a terminal of the server finds it; again for as long as another one is busy."""
    program = os.path.join(os.environ["OVERLAYSPAWNER_RUNTIME"], "bin", "pip")
    environ = {**os.environ, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for _ in range(tries):
        done = subprocess.run(
            [program, *words], env=environ, capture_output=True, text=True, timeout=240, check=False
        )
        said = done.stdout + done.stderr
        if done.returncode == 0 or "is changing this overlay" not in said:
            break
        time.sleep(random.uniform(0.02, 0.3))
    return done.returncode, said[-3000:]


def one(words: list[str], fault: str = "") -> None:
    """Run one command of the command line."""
    rc, data = overlay(*words, fault=fault)
    say(rc=rc, **data)


def patiently(words: list[str]) -> None:
    """Run one command, again for as long as another one is busy."""
    say(up=True)
    began = time.monotonic()
    rc, data = patient(*words, tries=300)
    say(took=time.monotonic() - began, rc=rc, **data)


def halting(words: list[str], fault: str) -> None:
    """Run one command that halts by itself somewhere; tell when it has, and what it answers in the end.

    It goes on when its container's process with the zip in its command line gets SIGCONT.
    """
    environ = {**os.environ, "OVERLAYSPAWNER_FAULT": fault}
    argv = [sys.executable, "-I", ZIP, "cli", words[0], "--json", *words[1:]]
    child = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True)
    pid, status = os.waitpid(child.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        say(rc=os.waitstatus_to_exitcode(status), code="never-halted", message="")
        return
    say(halted=pid)
    out, _ = child.communicate()
    say(rc=child.returncode, **json.loads(out))


def start() -> None:
    """Say that the container is up, and do nothing until it is killed."""
    say(up=True)
    time.sleep(3600)


def storm(who: int, rounds: int, own: list[str], shared: list[str], pips: list[str]) -> None:
    """Install and uninstall in turns with others, and tell what came of it.

    Parameters
    ----------
    who:
        Seeds the choice of what comes next.
    own, pips:
        Packages that no other container touches, by the command line and by pip.
    shared:
        Packages that all of them want to install or uninstall.
    """
    choose = random.Random(who)
    there: set[str] = set()
    say(up=True)
    for number in range(rounds):
        kind = choose.choice(["own", "own", "shared", "pips"] if pips else ["own", "own", "shared"])
        name = choose.choice({"own": own, "shared": shared, "pips": pips}[kind])
        if kind == "shared":
            action = choose.choice(["install", "install", "uninstall", "upgrade"])
        else:
            action = "uninstall" if name in there else "install"
        if kind == "pips":
            rc, said = pip(*([action, "-y", name] if action == "uninstall" else [action, name]))
            data: dict[str, Any] = {"code": "" if rc == 0 else "pip", "message": said}
        else:
            rc, data = patient(action, name)
        if rc == 0 and kind != "shared":
            (there.discard if action == "uninstall" else there.add)(name)
        say(
            number=number,
            kind=kind,
            action=action,
            name=name,
            rc=rc,
            code=data.get("code", ""),
            message=data.get("message", ""),
            revision=(data.get("revision") or {}).get("id"),
        )
    say(there=sorted(there))


def look(modules: list[str]) -> None:
    """Tell everything about the overlay that a test may want to know.

    Parameters
    ----------
    modules:
        Modules to import in the overlay's Python: each is told with its ``__version__``, or why not.
    """
    _, status = overlay("status")
    _, doctor = overlay("doctor")
    _, listed = overlay("list")
    path = status.get("path") or ""
    env = os.path.join(path, "envs", (status.get("base") or {}).get("key") or "")
    code = (
        "import importlib, json, sys\n"
        "out = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: out[name] = str(getattr(importlib.import_module(name), '__version__', ''))\n"
        "    except BaseException as e: out[name] = 'failed: %r' % e\n"
        "print(json.dumps(out))\n"
    )
    imports: dict[str, str] = {}
    if modules and os.path.isdir(env):
        argv = [os.path.join(env, "bin", "python"), "-I", "-B", "-c", code, *modules]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        imports = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-2000:]}
    try:
        with open(os.path.join(path, "requirements.txt"), encoding="utf-8") as f:
            lines = f.read().split("\n")
    except OSError:
        lines = []
    say(
        path=path,
        notices=[n.get("code") for n in status.get("notices", [])],
        mode=status.get("mode"),
        complaints={c["name"]: c["message"] for c in doctor.get("checks", []) if not c["ok"]},
        doctor_answered="checks" in doctor,
        packages={p["name"]: p["version"] for p in listed.get("packages", [])},
        requirements=[line for line in lines if line],
        revisions=revisions(path),
        imports=imports,
        leftovers=leftovers(path),
        pending=pending(env),
    )


def pending(env: str) -> bool:
    """Whether a change is half done, with its journal open."""
    sys.path.insert(0, ZIP)
    from overlayspawner.payload import change
    from overlayspawner.payload.overlay import Env

    return os.path.isdir(env) and change.pending(Env(env, "{}.{}".format(*sys.version_info)))


def revisions(path: str) -> list[dict[str, Any]]:
    """Return all revisions, oldest first, without lists of files; damaged ones as ``{"damaged": name}``."""
    folder = os.path.join(path, "revisions")
    out = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".json"):
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    data = json.load(f)
                out.append({k: v for k, v in data.items() if k not in ("files", "aside")})
            except ValueError:
                out.append({"damaged": name})
    return out


def leftovers(path: str) -> list[str]:
    """Return what no finished operation leaves in an overlay."""
    found = []
    for folder, folders, names in os.walk(path):
        inside = os.path.relpath(folder, path)
        for name in [*folders, *names]:
            ours = inside in (".", "revisions", "envs") or os.path.basename(folder) == ".overlay"
            if ours and (name.endswith(".tmp") or name.startswith(("stage-", ".new-", ".doctor-"))):
                found.append(os.path.normpath(os.path.join(inside, name)))
        folders[:] = [name for name in folders if name not in ("lib", "bin", "set-aside", "kept")]
    return sorted(found)


if __name__ == "__main__":
    verbs: dict[str, Any] = {
        "one": one,
        "patiently": patiently,
        "halting": halting,
        "start": start,
        "storm": storm,
        "look": look,
    }
    verbs[sys.argv[1]](**json.loads(sys.argv[2]))
