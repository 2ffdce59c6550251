"""The modules a kernel is made of: imported from the overlay or the user site, else from the base.

Runs in the kernel's process, before the kernel.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlayspawner.payload.context import Context

STACK = ("traitlets", "tornado", "zmq", "jupyter_client", "IPython", "comm", "ipykernel.kernelapp")
"""Imported in this order, so that the cause is named by the first that fails."""

_NEEDED = (
    *(name.split(".")[0] for name in STACK),
    *("asttokens", "dateutil", "debugpy", "decorator", "executing", "jedi", "jupyter_core"),
    *("matplotlib_inline", "nest_asyncio", "packaging", "parso", "pexpect", "platformdirs"),
    *("prompt_toolkit", "psutil", "ptyprocess", "pure_eval", "pygments", "six", "stack_data"),
    *("typing_extensions", "wcwidth"),
)
"""The stack and what it imports, some of it late."""

TRIAL_TIMEOUT = 30.0
"""Seconds that the import of the stack may take when it is tried."""

_SURVIVED = 66

_VERSIONS = {
    "traitlets": "traitlets",
    "tornado": "tornado",
    "pyzmq": "zmq",
    "jupyter-client": "jupyter_client",
    "ipython": "IPython",
    "comm": "comm",
}


def base_path(context: Context, path: list[str]) -> list[str]:
    """Return the entries of a ``sys.path`` that belong to the standard library and to the base."""
    stdlib = os.path.dirname(os.__file__)
    keep = {stdlib, os.path.join(stdlib, "lib-dynload"), *context.base.site_dirs}
    return [p for p in path if p in keep or p.endswith(".zip")] + [
        d for d in context.base.site_dirs if d not in path
    ]


def _run_base(context: Context, culprit: str, reason: str, mark: str, command: list[str]) -> None:
    """Become the image's own kernel, in the same process as the system counts them."""
    from overlayspawner.payload import files

    write_notice(
        context.runtime,
        "kernel-base",
        f"The kernel was started with the image's packages only, because {culprit or 'an installed package'}"
        f" can't be used by it ({reason}).",
        "Uninstall or upgrade that package, then restart the kernel.",
    )
    if mark:
        files.unlink(mark)  # its task is done: this kernel did not die
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # kernel.sh had it ignored
    python = context.base.executable
    os.execv(python, [python, "-s", *command])  # noqa: S606


def import_stack(context: Context, mark: str, command: list[str]) -> None:
    """Import the stack, from the base where the user's copies can't be used; that is noted for the server.

    Parameters
    ----------
    mark:
        The file that says that this kernel is starting, or ``""``.
    command:
        What the kernel is run as (``-m MODULE ARGS``), for a base that takes its place.
    """
    from overlayspawner.payload.overlay import BASE_PTH

    before = set(sys.modules)
    path = list(sys.path)
    foreign = _foreign(context)
    names = " or ".join(list(foreign.values())[:3])
    reason = _trial(context, foreign) if foreign else ""
    if reason:
        culprit = names
    else:
        try:
            misfit = _try_stack(context)
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # an overlay's module may raise SystemExit, or worse
            culprit = _culprit(context, e) or names
            reason = f"{type(e).__name__}: {e}"
        else:
            if misfit is None:
                return
            culprit, reason = misfit
    if context.spec.kind == "isolated" and context.env is not None and sys.prefix != context.base.prefix:
        # its stack is its own affair, and the image's does not belong into it
        _run_base(context, culprit, reason, mark, command)
    for name in set(sys.modules) - before:
        sys.modules.pop(name, None)
    sys.path[:] = base_path(context, path)
    try:
        _import_all()
        _import_late(foreign)
    except BaseException as e:
        # The base's own kernel does not import: run it all the same, its traceback says why.
        print(f"overlayspawner: the image's kernel does not import: {e!r}", file=sys.stderr)
    finally:
        # what shows the base to the env may be what is broken
        hidden = [d for d in context.base.site_dirs if d not in path]
        sys.path[:] = path + hidden
    if len(hidden) == len(context.base.site_dirs) and context.env is not None:
        culprit = os.path.join(context.env.site_packages, BASE_PTH)
    write_notice(
        context.runtime,
        "kernel-rescued",
        f"The kernel was started with the image's own modules, because {culprit or 'an installed package'}"
        f" can't be used by it ({reason}).",
        "Uninstall or upgrade that package, then restart the kernel.",
    )


def _import_all() -> None:
    import importlib

    for name in STACK:
        importlib.import_module(name)


def _import_late(names: Iterable[str]) -> None:
    """Import what the stack imports only when it is needed; an exception then is its own matter."""
    import importlib

    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: S110
            pass


def _try_stack(context: Context) -> tuple[str, str] | None:
    """Import the stack; return ``(file, reason)`` when what was imported doesn't fit together."""
    _import_all()
    foreign = [n for n in STACK if not _in_base(context, _file(n.split(".")[0]))]
    if not foreign:
        return None
    return _misfit()


def _misfit() -> tuple[str, str] | None:
    """Compare versions with what the imported ipykernel requires; imports alone don't tell.

    Only run when a module of the stack does not come from the base.
    """
    import re
    from importlib.metadata import Distribution

    root = os.path.dirname(os.path.dirname(_file("ipykernel")))
    requires: list[str] = []
    for dist in Distribution.discover(name="ipykernel", path=[root]):
        requires = dist.requires or []
        break
    for line in requires:
        found = re.match(r"([A-Za-z0-9._-]+)\s*\(?([^;)]*)\)?\s*(;.*)?$", line)
        if not found or found.group(3):
            continue
        module = _VERSIONS.get(re.sub(r"[-_.]+", "-", found.group(1)).lower())
        least = re.search(r">=\s*([0-9.]+)", found.group(2))
        if module is None or least is None:
            continue
        version = str(
            getattr(sys.modules[module], "__version__", "") or getattr(sys.modules[module], "version", "")
        )
        if version and _numbers(version) < _numbers(least.group(1)):
            return _file(module), f"{found.group(1)} {version} is older than {least.group(1)}"
    return None


def _numbers(version: str) -> list[int]:
    out = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        out.append(int(digits))
    return out


def _file(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", "") or "")


def _in_base(context: Context, file: str) -> bool:
    stdlib = os.path.dirname(os.__file__)
    env = context.env.path + os.sep if context.env else "\0"
    if file.startswith(env):
        return False
    return any(file.startswith(d + os.sep) for d in [*context.base.site_dirs, stdlib])


def _culprit(context: Context, error: BaseException) -> str:
    """The file outside the base that is nearest to where an import failed."""
    names = []
    trace = error.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        names.append(str(error.filename))
    foreign = [n for n in names if _is_foreign(context, n)]
    return foreign[-1] if foreign else ""


def _is_foreign(context: Context, file: str) -> bool:
    return os.path.isabs(file) and not _in_base(context, file) and context.payload not in file


def _foreign(context: Context) -> dict[str, str]:
    """Module to file, of those a kernel needs which are not found in the base; nothing is run."""
    from importlib.machinery import PathFinder

    found = {}
    for name in _NEEDED:
        try:
            spec = PathFinder.find_spec(name)
        except Exception:  # what is wrong there the import will say
            spec = None
        if spec is not None and spec.origin and _is_foreign(context, spec.origin):
            found[name] = spec.origin
    return found


def _trial(context: Context, foreign: dict[str, str]) -> str:
    """Import the stack in a child; say how that ended the interpreter, or return ``""``.

    A segmentation fault or an endless loop in somebody's copy of a module would end this process, and not
    every program starts a kernel twice. An exception is no such end: it comes again, and is reported, where
    the stack is imported in earnest. Files that were tried once are not tried again until they change.
    """
    from overlayspawner.payload import files

    stamp = ""
    for path in sorted(foreign.values()):
        try:
            info = os.stat(path)
        except OSError:
            continue
        stamp += f"{path} {info.st_mtime_ns} {info.st_size} {info.st_ino}\n"
    tried = os.path.join(context.runtime, "stack-tried")
    try:
        with open(tried, encoding="utf-8") as f:
            if f.read() == stamp:
                return ""
    except (OSError, ValueError):
        pass
    import signal

    # where whoever started us ignores it, the system does not keep how a child ended
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        pid = os.fork()
    except OSError:  # no process is left to be had: then without a trial
        signal.signal(signal.SIGCHLD, before)
        return ""
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            try:
                _import_all()
            except BaseException:
                os._exit(_SURVIVED)
            _import_late(foreign)
            os._exit(_SURVIVED)
        finally:
            os._exit(1)
    why = _wait(pid)
    signal.signal(signal.SIGCHLD, before)
    if not why:
        try:
            files.write_atomic(tried, stamp, 0o600, sync=False)
        except OSError:
            pass
    return why


def _wait(pid: int) -> str:
    """Wait for the child of :func:`_trial`; kill it when it takes too long."""
    from time import monotonic, sleep

    end = monotonic() + TRIAL_TIMEOUT
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return f"its import takes more than {TRIAL_TIMEOUT:g} seconds"
        sleep(pause)
        pause = min(pause * 1.5, 0.02)
    if os.WIFSIGNALED(status):
        return f"its import ends Python with signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status) != _SURVIVED:
        return f"its import ends Python with status {os.WEXITSTATUS(status)}"
    return ""


def write_notice(runtime: str, code: str, message: str, hint: str) -> None:
    """Leave a notice for the server extension, which shows the newest of each code."""
    import json

    from overlayspawner.payload import files
    from overlayspawner.payload.contract import notice

    print(f"overlayspawner: [{code}] {message}", file=sys.stderr)
    try:
        text = json.dumps(notice(code, message, hint))
        files.write_atomic(os.path.join(runtime, "notices", code + ".json"), text, 0o600, sync=False)
    except OSError:
        pass
