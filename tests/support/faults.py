"""Stops an operation at every one of its writes, and looks at what the next writer makes of it.

Each run happens in a fork of the test's process, so that hundreds of them take seconds. An operation is told
by functions that take a directory of its own::

    operation = Operation("undo", prepare, act, mend, look, left)
    tally = sweep(operation, tmp_path)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overlayspawner.payload import change, files
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Env, Overlay

HOWS = ("kill", "ENOSPC", "EIO")

LONG = bool(os.environ.get("OVERLAYSPAWNER_LONG"))
"""Whether each error is given at each step (``make test-all``), and not one of them at each."""

_NEVER = 1 << 30

_OWN = {
    "journal",
    "kept",
    "lease.json",
    "lock",
    "restore.json",
    "set-aside",
    "snapshot.json",
    "spare",
    "stubs",
    "stubs.json",
}
"""What an env's state may hold when nothing is going on."""


@dataclass
class Operation:
    """Something that writes into an overlay.

    Parameters
    ----------
    name:
        Of the operation, for messages.
    prepare:
        Makes what is there before, in a directory that does not exist yet. Must always make the same.
    act:
        The operation. May raise :class:`OverlayError`, and then must have changed nothing.
    mend:
        What the next writer does first.
    look:
        Returns what must be as before or as after: trees, requirements, history; comparable.
    left:
        Returns what should not be there any more, whether the operation was done or not.
    """

    name: str
    prepare: Callable[[str], Any]
    act: Callable[[str], Any]
    mend: Callable[[str], Any]
    look: Callable[[str], Any]
    left: Callable[[str], Iterable[str]]


@dataclass
class Outcome:
    """What became of a child: ``ok``, ``killed``, or an error's code; and how many writes it counted."""

    state: str
    steps: int = 0
    detail: str = ""


def in_child(act: Callable[[str], Any], root: str, fault: str = "") -> Outcome:
    """Run a function in a fork of this process, with a fault injected.

    Parameters
    ----------
    fault:
        As ``OVERLAYSPAWNER_FAULT``.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = {"state": "crashed", "detail": ""}
        try:
            os.close(read_end)
            files.inject(fault)
            act(root)
            answer["state"] = "ok"
        except OverlayError as e:
            answer = {"state": e.code, "detail": e.message}
        except BaseException:
            answer["detail"] = traceback.format_exc()
        finally:
            os.write(write_end, json.dumps({**answer, "steps": files.steps()}).encode()[:60_000])
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        raw = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return Outcome("killed")
    return Outcome(**json.loads(raw))


@contextmanager
def quick_directory(fallback: Path) -> Iterator[Path]:
    """Give a directory in memory where there is one: what is flushed costs nothing there."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(fallback)
    path = tempfile.mkdtemp(prefix="overlayspawner-faults-", dir=base)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(
    operation: Operation,
    where: Path,
    *,
    hows: Sequence[str] = HOWS,
    phase: str = "",
    mend_faults: bool = True,
    each: int = 1,
    repairs: bool = False,
) -> Counter[str]:
    """Stop an operation at each of its writes, mend, and compare.

    Each write is killed once and fails once: with one error after the other in turn, or with each
    (:data:`LONG`): what the operation does about an error is the same for all.

    Parameters
    ----------
    where:
        A directory to work in.
    hows:
        Ways to stop: ``kill``, or an error's name.
    phase:
        Count from this :func:`overlayspawner.payload.files.mark` on.
    mend_faults:
        Stop every other first mend as well, at a step of its own.
    each:
        Only every so many-th step, for operations that take long.
    repairs:
        The operation is a repair itself: after the next one all is as after it, whatever it said.

    Returns
    -------
    Counter
        How often all was as before (``old``) or as after (``new``), and the number of ``runs``.

    Raises
    ------
    AssertionError
        Something was neither, was left over, or said that it failed when it had not.
    """
    at = f"{phase}@" if phase else ""
    root = str(where / "run")  # always the same: paths are written into files
    operation.prepare(root)
    before = operation.look(root)
    dry = in_child(operation.act, root, f"{at}{_NEVER}:kill")
    assert dry.state == "ok", f"{operation.name}: {dry}"
    after = operation.look(root)
    assert before != after, f"{operation.name} changes nothing"
    assert dry.steps > 0
    _mended(operation, root, "after the dry run")
    assert operation.look(root) == after
    shutil.rmtree(root)
    tally: Counter[str] = Counter()
    errors = [how for how in hows if how != "kill"]
    for how in hows:
        every = range(1, dry.steps + 1, each)
        turn = slice(None) if LONG or how == "kill" else slice(errors.index(how), None, len(errors))
        for n in every[turn]:
            label = f"{operation.name}: {how} at step {n} of {dry.steps}"
            operation.prepare(root)
            done = in_child(operation.act, root, f"{at}{n}:{how}")
            assert done.state != "crashed", f"{label}: {done.detail}"
            if how == "kill":
                assert done.state in ("killed", "ok"), f"{label}: {done}"
            if mend_faults and n % 2:
                second = in_child(operation.mend, root, f"{n // 2 % 13 + 1}:{HOWS[n // 2 % 3]}")
                assert second.state != "crashed", f"{label}, and then in mending: {second.detail}"
            _mended(operation, root, label)
            found = operation.look(root)
            assert found in (before, after), (
                f"{label}: neither old nor new\n{differences(found, before, after)}"
            )
            if done.state == "ok" or repairs:
                assert found == after, f"{label}: it said that it was done, and was not"
            elif done.state != "killed":
                assert found == before, f"{label}: it said {done.state}, and was done"
            tally["new" if found == after else "old"] += 1
            tally["runs"] += 1
            shutil.rmtree(root)
    return tally


def _mended(operation: Operation, root: str, label: str) -> None:
    mended = in_child(operation.mend, root)
    assert mended.state == "ok", f"{label}: mending: {mended}"
    left = list(operation.left(root))
    assert not left, f"{label}: left over: {left}"


def differences(found: Any, before: Any, after: Any) -> str:
    """Show how a state that is a dict of texts differs from the nearer of two others."""
    if not (isinstance(found, dict) and isinstance(before, dict) and isinstance(after, dict)):
        return f"found {found}\nold   {before}\nnew   {after}"
    lists = []
    for name, other in (("old", before), ("new", after)):
        keys = [key for key in sorted({*found, *other}) if found.get(key) != other.get(key)]
        lists.append([f"  {key}: found {found.get(key)!r}, {name} {other.get(key)!r}" for key in keys])
    return "\n".join(min(lists, key=len))


def left_over(overlay: Overlay, env: Env) -> list[str]:
    """Return what an interrupted writer left in an overlay."""
    out = []
    if change.pending(env):
        out.append("an open journal")
    out += [n for n in os.listdir(env.state) if n not in _OWN and not n.startswith("reserve-")]
    for folder, dirs, names in os.walk(overlay.path):
        out += [os.path.join(folder, name) for name in names if name.endswith(".tmp")]
        out += [os.path.join(folder, name) for name in dirs if name.startswith((".new-", "stage-"))]
    return out
