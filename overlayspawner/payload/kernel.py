"""The kernel launcher: runs inside each kernel of the overlay before the kernel itself.

It imports the modules a kernel is made of (its *stack*) with the overlay and the user site first and, when
that fails, from the base, so that no version of ``traitlets`` or ``jupyter_client`` that a user installed
can keep a kernel from starting. Everything else is imported overlay first, as always.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from overlayspawner.payload.context import Context

STACK = ("traitlets", "tornado", "zmq", "jupyter_client", "IPython", "comm", "ipykernel.kernelapp")
"""Imported in this order, so that the cause is named by the first that fails."""

_VERSIONS = {
    "traitlets": "traitlets",
    "tornado": "tornado",
    "pyzmq": "zmq",
    "jupyter-client": "jupyter_client",
    "ipython": "IPython",
    "comm": "comm",
}


def main(argv: list[str]) -> int:
    """Run ``overlay.pyz kernel --runtime DIR [--mark FILE | --base WHY] -- -m MODULE ARGS``."""
    split = argv.index("--")
    options = dict(zip(argv[:split:2], argv[1:split:2]))
    command = argv[split + 1 :]
    runtime = options["--runtime"]
    context = _context(runtime)
    own = sys.path.pop(0)  # the zip, put there by the interpreter
    why = options.get("--base", "")
    if context is not None:
        if why:
            _note_base(context, why)
        else:
            _environment(context)
            _import_stack(context, options.get("--mark", ""), command)
    _watch_ready(options.get("--mark", ""))
    for name in [n for n in sys.modules if n.split(".")[0] == "overlayspawner"]:
        del sys.modules[name]  # a user's notebook may import a pip-installed one
    sys.path_importer_cache.pop(own, None)
    import runpy

    module, arguments = command[1], command[2:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _context(runtime: str) -> Context | None:
    from overlayspawner.payload.context import Context

    try:
        return Context.load(runtime)
    except Exception:
        return None  # the runtime dir was swept or damaged: a plain kernel is better than none


def _environment(context: Context) -> None:
    """Set what the notebook's ``!pip``, ``%pip`` and subprocesses need; take away what beats a venv."""
    from overlayspawner.payload.runtime import search_path

    os.environ["PATH"] = search_path(context, os.environ.get("PATH", os.defpath))
    if context.env is None:
        return
    os.environ["VIRTUAL_ENV"] = context.env.path
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "UV_SYSTEM_PYTHON"):
        os.environ.pop(name, None)


def base_path(context: Context, path: list[str]) -> list[str]:
    """Return the entries of a ``sys.path`` that belong to the standard library and to the base."""
    stdlib = os.path.dirname(os.__file__)
    keep = {stdlib, os.path.join(stdlib, "lib-dynload"), *context.base.site_dirs}
    return [p for p in path if p in keep or p.endswith(".zip")] + [
        d for d in context.base.site_dirs if d not in path
    ]


def _run_base(context: Context, culprit: str, reason: str, mark: str, command: list[str]) -> None:
    """Become the image's own kernel, in the same process as the system counts them."""
    write_notice(
        context.runtime,
        "kernel-base",
        f"The kernel was started with the image's packages only, because {culprit or 'an installed package'}"
        f" can't be used by it ({reason}).",
        "Uninstall or upgrade that package, then restart the kernel.",
    )
    if mark:
        os.unlink(mark)  # its task is done: this kernel did not die
    python = context.base.executable
    os.execv(python, [python, "-s", *command])  # noqa: S606


def _import_stack(context: Context, mark: str, command: list[str]) -> None:
    before = set(sys.modules)
    path = list(sys.path)
    try:
        misfit = _try_stack(context)
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # an overlay's module may raise SystemExit, or worse
        culprit = _culprit(context, e) or _first_foreign(context)
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
    except BaseException as e:
        # The base's own kernel does not import: run it all the same, its traceback says why.
        print(f"overlayspawner: the image's kernel does not import: {e!r}", file=sys.stderr)
    finally:
        sys.path[:] = path
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


def _first_foreign(context: Context) -> str:
    """The first module of the stack that is not found in the base: what has no traceback of its own."""
    from importlib.machinery import PathFinder

    for name in STACK:
        spec = PathFinder.find_spec(name.split(".")[0])
        if spec is not None and spec.origin and _is_foreign(context, spec.origin):
            return spec.origin
    return ""


def _watch_ready(mark: str) -> None:
    """Take the mark away when the kernel begins to serve."""
    if not mark:
        return

    def ready() -> None:
        try:
            os.unlink(mark)
        except OSError:
            pass

    app = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    original = getattr(app, "start", None)
    if original is None:
        ready()  # not an ipykernel: nothing to watch
        return

    def start(self: object) -> object:
        ready()
        return original(self)

    app.start = start  # type: ignore[union-attr]


def _note_base(context: Context, why: str) -> None:
    if why == "missing":
        message = "The overlay's environment is gone or damaged; this kernel sees the image's packages only."
        hint = "Run `overlay doctor` in a terminal, or restart your server."
    else:
        suspects = ", ".join(_suspects(context)) or "a package in your overlay or in ~/.local"
        message = (
            "The kernel died before it was ready; it was started again with the image's packages only. "
            f"What runs at every start of Python: {suspects}."
        )
        hint = "Uninstall or remove what causes this, then restart the kernel to try again."
    write_notice(context.runtime, "kernel-base", message, hint)


def _suspects(context: Context) -> list[str]:
    """The ``.pth`` files with code, in the overlay and the user site."""
    version = context.base.version
    directories = [os.path.join(context.home, ".local", "lib", f"python{version}", "site-packages")]
    if context.env is not None:
        directories.insert(0, context.env.site_packages)
    found = []
    for directory in directories:
        try:
            names = sorted(n for n in os.listdir(directory) if n.endswith(".pth"))
        except OSError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    code = any(line.startswith(("import ", "import\t")) for line in f)
            except OSError:
                continue
            if code and "overlayspawner" not in name:
                found.append(path)
    return found


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
