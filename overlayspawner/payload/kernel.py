"""The kernel launcher: runs inside each kernel of the overlay before the kernel itself.

It imports the modules a kernel is made of (its *stack*) with the overlay and the user site first and, when
that fails, from the base, so that no version of ``traitlets`` or ``jupyter_client`` that a user installed
can keep a kernel from starting. Everything else is imported overlay first, as always.
"""

from __future__ import annotations

import os
import sys

LITTLE = 16_000_000
"""Free bytes below which no bytecode is written, or a twentieth of a small volume."""

_CHANGES = {"install", "uninstall", "remove", "update", "upgrade", "sync"}
"""Words of pip, uv and conda that change something."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from overlayspawner.payload.context import Context


def main(argv: list[str]) -> int:
    """Run ``overlay.pyz kernel --runtime DIR [--mark FILE | --base WHY] -- -m MODULE ARGS``."""
    split = argv.index("--")
    options = dict(zip(argv[:split:2], argv[1:split:2]))
    command = argv[split + 1 :]
    runtime = options["--runtime"]
    mark = options.get("--mark", "")
    served = _watch_end(mark)
    context = _context(runtime)
    own = sys.path.pop(0)  # the zip, put there by the interpreter
    why = options.get("--base", "")
    if context is not None:
        if why:
            _note_base(context, why)
        else:
            from overlayspawner.payload.kernelstack import import_stack

            _environment(context)
            import_stack(context, mark, command)
            _magics(context)
    _watch_ready(mark, served)
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
    if _is_short(context.env.path):
        # on a full disk Python leaves half a file, and fails at it for ever
        sys.dont_write_bytecode = True
        os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "UV_SYSTEM_PYTHON"):
        os.environ.pop(name, None)


def _is_short(path: str) -> bool:
    """Whether space is short there, as ``space.is_short`` has it; imports nothing."""
    try:
        info = os.statvfs(path)
    except OSError:
        return False
    return info.f_bavail * info.f_frsize < min(LITTLE, info.f_blocks * info.f_frsize // 20)


def _magics(context: Context) -> None:
    """Let ``%pip`` and ``%uv`` run our commands, which record what they change; ``%conda`` explains."""
    if context.env is None:
        return
    from overlayspawner.payload.runtime import CONDA, CONDA_NOTE

    try:
        import functools
        import shlex

        from IPython.core.magics.packaging import PackagingMagics
    except Exception:
        return  # another kernel, or an old IPython: what its pip installs is found all the same

    def magic(program: str, original: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
        @functools.wraps(original)
        def run(self: Any, line: str) -> None:
            if not os.access(program, os.X_OK):
                original(self, line)
                return
            self.shell.system(f"{shlex.quote(program)} {line}")
            if _CHANGES & set(line.split()):
                print(
                    "Packages go into your overlay. Restart the kernel if one that it has loaded was changed."
                )

        return run

    for name in ("pip", "uv"):
        original = getattr(PackagingMagics, name, None)
        program = os.path.join(context.runtime, "bin", name)
        if callable(original) and os.access(program, os.X_OK):
            setattr(PackagingMagics, name, magic(program, original))
    note = os.path.join(context.runtime, CONDA_NOTE)
    for name in CONDA:
        original = getattr(PackagingMagics, name, None)
        if callable(original):
            setattr(PackagingMagics, name, _conda_magic(name, note, original))


def _conda_magic(name: str, note: str, original: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    """Let ``%conda`` explain itself: in an overlay IPython refuses it, in words that lead nowhere."""
    import functools
    import shlex

    @functools.wraps(original)
    def run(self: Any, line: str) -> None:
        if _CHANGES & set(line.split()) and os.access(note, os.X_OK):
            self.shell.system(f"{shlex.quote(note)} {name} {line}")
            print("Nothing was changed. In a terminal the command would be run.")
        else:
            original(self, line)

    return run


def _watch_end(mark: str) -> Callable[[], None]:
    """Take the mark away where somebody ends a kernel that is starting: that is no death.

    Returns
    -------
    What puts the signal back. (An interrupt does nothing to a kernel that is starting: see ``kernel.sh``.)
    """
    if not mark:
        return lambda: None
    import signal

    before = signal.getsignal(signal.SIGTERM)

    def ended(number: int, frame: object) -> None:
        _remove(mark)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def put_back() -> None:
        if signal.getsignal(signal.SIGTERM) is ended:
            signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, ended)
    return put_back


def _remove(mark: str) -> None:
    try:
        os.unlink(mark)
    except OSError:
        pass


def _watch_ready(mark: str, served: Callable[[], None]) -> None:
    """Take the mark away when the kernel begins to serve, and call ``served``."""
    if not mark:
        return

    def ready() -> None:
        _remove(mark)
        served()

    app = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    original = getattr(app, "start", None)
    if original is None:
        ready()  # not an ipykernel: nothing to watch
        import signal

        # ipykernel ignores it too, but for what a cell runs; another module expects it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return

    def start(self: object) -> object:
        ready()
        return original(self)

    app.start = start  # type: ignore[union-attr]


def _note_base(context: Context, why: str) -> None:
    from overlayspawner.payload.kernelstack import write_notice

    damage = context.env.damage() if context.env is not None else ""
    if damage:
        message = (
            f"The overlay's environment is damaged ({damage}); this kernel sees the image's packages only."
        )
        hint = "Run `overlay doctor` in a terminal, or restart your server."
    elif why == "missing":
        message = "The overlay's environment is gone or damaged; this kernel sees the image's packages only."
        hint = "Run `overlay doctor` in a terminal, or restart your server."
    else:
        what = (
            "Python does not start with your packages; the kernel was started with the image's only."
            if why == "python"
            else "The kernel died before it was ready; it was started again with the image's packages only."
        )
        suspects = ", ".join(_suspects(context)) or "a package in your overlay or in ~/.local"
        message = f"{what} What runs at every start of Python: {suspects}."
        hint = "Uninstall or remove what causes this, then restart the kernel to try again."
    write_notice(context.runtime, "kernel-base", message, hint)


def _suspects(context: Context) -> list[str]:
    """What Python runs at its own start, in the overlay and the user site."""
    version = context.base.version
    directories = [os.path.join(context.home, ".local", "lib", f"python{version}", "site-packages")]
    if context.env is not None:
        directories.insert(0, context.env.site_packages)
    found = []
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            if name.startswith(("sitecustomize", "usercustomize")):
                found.append(path)
            if not name.endswith(".pth"):
                continue
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    code = any(line.startswith(("import ", "import\t")) for line in f)
            except OSError:
                continue
            if code and "overlayspawner" not in name:
                found.append(path)
    return found
