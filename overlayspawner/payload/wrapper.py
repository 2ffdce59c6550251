"""``pip`` and ``uv`` of kernels and terminals: what they change in the overlay is recorded as it was asked.

``RUNTIME/bin/pip`` and ``RUNTIME/bin/uv`` come here for commands that may change an env, with everything else
they run the tool itself. A command that is aimed at the overlay gets its lease, runs in our place (terminal,
signals and exit code are its own), and is adopted afterwards. What fails there is one printed line: the tool
has done its work.

``uv pip install`` does not see the image's packages in an overlay and would fetch copies of them. In its
plain form it is therefore done by our own installer; with options that this does not know, uv runs itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Optional

from overlayspawner.payload import asked, files, procs, wrapper_words
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.runtime import PLAIN, WRAPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.lease import Lease

_LEASE_WAIT = 5.0
"""Seconds to wait for another change, such as one that a page has just begun."""

_OUR_OPTIONS = frozenset({"--requirement", "--upgrade", "--quiet", "--verbose", "--no-progress"})
"""Options of ``uv pip install`` that our own installer knows how to follow."""

_ANEW = frozenset({"--force-reinstall", "--ignore-installed", "--reinstall", "--upgrade"})
"""Options with which what is there is not good enough."""

_OLDEST_REPORT = (23, 0)
"""The first pip that writes a report without calling it experimental."""


def main(argv: Sequence[str]) -> int:
    """Run ``overlay.pyz wrap --runtime DIR pip|uv ARGS…`` and return the tool's exit code."""
    if len(argv) < 3 or argv[0] != "--runtime":
        print("usage: overlay.pyz wrap --runtime DIR pip|uv ...", file=sys.stderr)
        return 2
    runtime, tool, words = argv[1], argv[2], list(argv[3:])
    plain = [os.path.join(runtime, PLAIN, tool), *words]
    ctx = _context(runtime)
    if ctx is None or ctx.env is None:
        return _become(plain)
    command = asked.read([tool, *words])
    if tool == "pip" and command.verb == "install" and asked.ELSEWHERE & set(command.options) == {"--user"}:
        words = wrapper_words.without_user(words)
        plain, command = [plain[0], *words], asked.read([tool, *words])
    if not command.aims_here(os.environ, ctx.env.path):
        # a dry run asks the index that the installation would ask: another may know that name too
        return _become(plain, _index(ctx, tool) if "--dry-run" in command.options else None)
    try:
        _refuse(ctx, command)
    except OverlayError as e:
        return _complain(e)
    if tool == "uv" and _is_ours(command):
        return _install(ctx, command, [tool, *words])
    return _run(ctx, command, plain, [tool, *words])


def _refuse(ctx: Context, command: asked.Command) -> None:
    """Refuse what the hub's rules don't let in, as far as the command names it.

    The tool itself knows no such rules, and what it has done can't be refused any more. What comes along as a
    dependency is told afterwards.

    Raises
    ------
    OverlayError
        ``policy``.
    """
    spec = ctx.spec
    limited = spec.only_binary or spec.exclude_newer
    if command.verb == "uninstall" or not (spec.allow or spec.deny or limited):
        return
    from overlayspawner.payload import gate, wrapper_limits

    if limited:
        wrapper_limits.refuse(ctx, command)
    gate.refuse_asked(ctx, command.requirements(), anew=bool(_ANEW & set(command.options)))


def _context(runtime: str) -> Optional[Context]:
    from overlayspawner.payload.context import Context

    try:
        return Context.load(runtime)
    except Exception:
        return None  # the server that made it is gone: the tool works without us


def _become(argv: Sequence[str], variables: Optional[dict[str, str]] = None) -> int:
    env = {**os.environ, WRAPPED: "1", **(variables or {})}
    try:
        os.execve(argv[0], list(argv), env)  # noqa: S606
    except OSError as e:
        print(f"overlay: {argv[0]} can't be run: {e.strerror}.", file=sys.stderr)
    return 127


# -- the tool itself --------------------------------------------------------------------------------------


def _run(ctx: Context, command: asked.Command, plain: Sequence[str], argv: Sequence[str]) -> int:
    from overlayspawner.payload import adopt
    from overlayspawner.payload.change import repair
    from overlayspawner.payload.lease import acquire

    overlay, env = ctx.require()
    who = f"{command.tool} command"
    try:
        lease = acquire(env, who=who, wait=_LEASE_WAIT)
    except OverlayError as e:
        if e.code == "read-only":
            return _become(plain)  # it says so itself, and in its own words
        return _complain(e)
    with lease:
        try:
            repair(overlay, env, lease)
            adopt.settle(ctx, lease)  # what came before this command is not its doing
        except (OverlayError, OSError) as e:
            return _complain(e)
        before = overlay_dists(env)
        report = os.path.join(ctx.runtime, f"pip-report-{os.getpid()}.json")
        environ = _environ(ctx, command, report)
        if ctx.spec.only_binary and command.verb != "uninstall":
            from overlayspawner.payload import wrapper_limits

            plain = wrapper_limits.arguments(ctx, command, plain)
        try:
            rc = procs.foreground(plain, environ, keep_open=lease.descriptors())
        except OSError as e:
            print(f"overlay: {plain[0]} can't be run: {e.strerror}.", file=sys.stderr)
            return 127
        finally:
            told = _read_report(report)
            files.discard(report)
        _record(ctx, lease, argv if rc == 0 else (), told if rc == 0 else None, who)
        if rc == 0:
            words = wrapper_words.after_uninstall(ctx, command.names(), before)
            wrapper_words.say(words or wrapper_words.hidden(ctx, command, before))
    return rc


def _environ(ctx: Context, command: asked.Command, report: str) -> dict[str, str]:
    environ = {**os.environ, WRAPPED: "1"}
    if command.tool == "pip":
        if command.verb == "install" and "--report" not in command.options and _pip_reports(ctx):
            environ.setdefault("PIP_REPORT", report)
    else:
        constraint = _constraint(ctx)
        if constraint:
            environ.setdefault("UV_CONSTRAINT", constraint)
    if command.verb != "uninstall":
        environ.update(_index(ctx, command.tool))
    if command.verb != "uninstall" and (ctx.spec.only_binary or ctx.spec.exclude_newer):
        from overlayspawner.payload import wrapper_limits

        environ.update(wrapper_limits.variables(ctx, command))
    return environ


def _index(ctx: Context, tool: str) -> dict[str, str]:
    """Return variables for the hub's index instead of the image's files of settings.

    A user's variable or option goes before.
    """
    first, more = (
        ("UV_DEFAULT_INDEX", "UV_INDEX") if tool == "uv" else ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
    )
    wanted = {}
    if ctx.spec.index_url and not (tool == "uv" and "UV_INDEX_URL" in os.environ):
        wanted[first] = ctx.spec.index_url
    if ctx.spec.extra_index_urls:
        wanted[more] = " ".join(ctx.spec.extra_index_urls)
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _pip_reports(ctx: Context) -> bool:
    from overlayspawner.payload.installer import pip

    found = pip.find(ctx)
    if found is None:
        return False
    numbers = tuple(int(part) if part.isdigit() else 0 for part in found.version.split(".")[:2])
    return numbers >= _OLDEST_REPORT


def _constraint(ctx: Context) -> str:
    """Return the constraints that ``ENV/pip.conf`` names: uv does not read it."""
    import configparser

    _, env = ctx.require()
    parser = configparser.RawConfigParser()
    try:
        parser.read(os.path.join(env.path, "pip.conf"), encoding="utf-8")
        path = parser.get("global", "constraint", fallback="")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return ""
    return path if os.path.isfile(path) else ""


def _read_report(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError, RecursionError):
        return None


def _record(ctx: Context, lease: Lease, argv: Sequence[str], report: Any, who: str) -> None:
    """Adopt what was changed. The tool has done its work: nothing here makes its command fail."""
    from overlayspawner.payload import adopt, kernelspec

    def tell(event: dict[str, Any]) -> None:
        if event["phase"] != "done":
            print(f"overlay: {event['message']}", file=sys.stderr)

    try:
        done = adopt.settle(ctx, lease, argv=argv, report=report, who=who, on_event=tell)
        if done["revision"]["changed"]:
            kernelspec.refresh(ctx)
        if done["missing"]:
            names = ", ".join(done["missing"])
            print(f"overlay: files of {names} are missing; `overlay doctor --fix` helps.", file=sys.stderr)
    except OverlayError as e:
        print(f"overlay: what was changed is not recorded yet. {e.message}", file=sys.stderr)
    except Exception as e:
        print(f"overlay: what was changed is not recorded yet ({type(e).__name__}: {e}).", file=sys.stderr)


def _complain(error: BaseException) -> int:
    if isinstance(error, OverlayError):
        lines = [f"error: {error.message} [{error.code}]", error.hint, *error.log.splitlines()[-15:]]
    else:
        lines = [f"error: The storage reported: {error}"]
    for line in lines:
        if line:
            print("".join(c if c.isprintable() else "?" for c in line), file=sys.stderr)
    return 1


# -- uv pip install, by our own installer -----------------------------------------------------------------


def _is_ours(command: asked.Command) -> bool:
    """Whether a command of uv asks for nothing but requirements."""
    from overlayspawner.payload.requirements import Requirements, parse

    if command.verb != "install" or set(command.options) - _OUR_OPTIONS:
        return False
    try:
        for word in command.operands:
            parse(word)
        for path in command.options.get("--requirement", ()):
            found = Requirements.read(path)
            if found.ignored() or not os.path.isfile(path):
                return False
            for entry in found.entries():
                parse(entry.text)
    except (OverlayError, OSError):
        return False  # a directory, perhaps, or a line that only a user's own file may hold
    return bool(command.operands or command.options.get("--requirement"))


def _install(ctx: Context, command: asked.Command, argv: Sequence[str]) -> int:
    from overlayspawner.payload import kernelspec
    from overlayspawner.payload.apply import apply

    wanted = command.requirements()
    cancel = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: cancel.set())
    began = time.monotonic()
    notes: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        if event.get("phase") == "resolving" and event.get("package") and "packages" not in event:
            notes.append(str(event["message"]))

    try:
        result = apply(
            ctx,
            "install",
            install=[r.text for r in wanted],
            upgrade=[r.name for r in wanted if r.name] if "--upgrade" in command.options else [],
            on_event=tell,
            cancel=cancel,
            who="uv command",
            argv=argv,
        )
    except (OverlayError, OSError) as e:
        return _complain(e)
    finally:
        signal.signal(signal.SIGINT, before)
    if ctx.runtime:
        kernelspec.refresh(ctx)
    if "--quiet" not in command.options:
        _show(result["plan"], time.monotonic() - began)
    return 0


def _show(plan: dict[str, Any], seconds: float) -> None:
    """Say what was done as uv does."""

    def count(items: Sequence[object]) -> str:
        return f"{len(items)} package{'' if len(items) == 1 else 's'}"

    new, there = plan["new"], plan["satisfied_by_base"]
    lines = []
    if new:
        lines.append(f"Installed {count(new)} in {seconds:.2f}s")
    else:
        lines.append(f"Audited {count(there) if there else 'the overlay'} in {seconds:.2f}s")
    for item in new:
        if item["replaces"]:
            lines.append(f" - {item['name']}=={item['replaces']}")
        lines.append(f" + {item['name']}=={item['version']}")
    lines += [f" - {item['name']}=={item['version']}" for item in plan["removes"]]
    lines += [f"   {item['name']}=={item['version']} (image)" for item in there if item["requested"]]
    lines += [
        f"note: {item['name']} {item['version']} hides {item['hidden']} of"
        f" {'the image' if item['where'] == 'base' else '~/.local'}"
        for item in plan["shadows"]
    ]
    for line in lines:
        print("".join(c if c.isprintable() else "?" for c in line), file=sys.stderr)
