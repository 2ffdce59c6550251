"""The kernels of a server: the overlay's ``python3``, derived from the image's.

Derived, because the image's specification may carry an environment, metadata, a provisioner or a wrapper
command that its notebooks rely on; it stays reachable as ``python3-base``. On the start path.
"""

from __future__ import annotations

import os

from overlayspawner.payload import files, jsontext
from overlayspawner.payload.contract import notice
from overlayspawner.payload.overlay import BASE_PTH, shell_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from overlayspawner.payload.context import Context
    from overlayspawner.payload.probe import Base

NATIVE = "python3"
BASE = "python3-base"
ADDED = "python3-overlay"
USER = "python3-user"

SOURCES = "kernels.json"
"""In the runtime dir: what the kernelspecs are made from."""

KERNEL_MODULE = "ipykernel_launcher.py"
"""The file by which an isolated env has a kernel."""

PYTHON_TIMEOUT = 15
"""Seconds that Python may take to start, where files of the user's take part in it."""

MAX_RESOURCE = 1 << 18
"""Bytes of a kernelspec's other files (logos are a few kB) above which they are left out."""


def user_kernel(home: str) -> dict[str, Any] | None:
    """Return the user's own ``python3`` specification, where it is valid, with its directory.

    A dangling one (its interpreter is gone) is ``None``: it must not hide anything. Reads the user's
    storage.
    """
    directory = os.path.join(home, ".local", "share", "jupyter", "kernels", NATIVE)
    spec = _read(directory)
    if spec is None:
        return None
    argv = spec["argv"]
    if os.path.isabs(argv[0]) and not os.access(argv[0], os.X_OK):
        return None
    return {"spec": spec, "directory": directory}


def image_kernel(base: Base, environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the image's ``python3`` specification and its directory (``""`` where it has none)."""
    roots = [p for p in environ.get("JUPYTER_PATH", "").split(os.pathsep) if p]
    roots += [os.path.join(base.prefix, "share", "jupyter"), "/usr/local/share/jupyter", "/usr/share/jupyter"]
    for root in roots:
        directory = os.path.join(root, "kernels", NATIVE)
        spec = _read(directory)
        if spec is not None:
            return spec, directory
    # What jupyter_client does with an installed ipykernel that has no specification.
    native = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "metadata": {"debugger": True},
    }
    return native, ""


def _read(directory: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(directory, "kernel.json"), encoding="utf-8") as f:
            spec = jsontext.loads(f.read())
    except (OSError, ValueError):
        return None
    if not isinstance(spec, dict):
        return None
    argv = spec.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
        return None
    return spec


def is_python(word: str) -> bool:
    """Whether a word of a command names a Python interpreter: ``python``, ``/usr/bin/python3.11``."""
    name = os.path.basename(word)
    return name.rstrip("0123456789.") in ("python", "pypy")


def derive(argv: list[str], launcher: list[str]) -> list[str] | None:
    """Put the overlay's launcher in the place of the interpreter of a kernel's command.

    Parameters
    ----------
    argv:
        The image's command, for example ``["conda", "run", "python", "-Xdev", "-m", "ipykernel_launcher",
        "-f", "{connection_file}"]``.
    launcher:
        What replaces the interpreter word.

    Returns
    -------
    The new command; ``None`` when no interpreter is run as ``python [options] -m MODULE``.
    """
    for i, word in enumerate(argv):
        if not is_python(word):
            continue
        rest = argv[i + 1 :]
        if "-m" in rest and all(w.startswith("-") for w in rest[: rest.index("-m")]):
            return [*argv[:i], *launcher, *rest]
        return None
    return None


def absolute(argv: list[str], python: str) -> list[str]:
    """Name the base's interpreter by its path.

    jupyter_client replaces a plain ``python`` by the *server's* interpreter; a terminal's jupyter would take
    the first on ``PATH``, the overlay's.
    """
    if is_python(argv[0]) and not os.path.isabs(argv[0]):
        return [python, *argv[1:]]
    return argv


def write(context: Context, user: dict[str, Any] | None, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """Write the generated kernelspecs into the runtime dir; return notices.

    The directories exist also where there is nothing to put in: Jupyter looks only at paths that exist when
    the server starts.
    """
    share = os.path.join(context.runtime, "share", "jupyter")
    for name in ("kernels", "labextensions"):
        os.makedirs(os.path.join(share, name), 0o700, exist_ok=True)
    image, resources = image_kernel(context.base, environ)
    sources: dict[str, Any] = {
        "image": image,
        "resources": resources,
        "user": user,
        "PYTHONNOUSERSITE": environ.get("PYTHONNOUSERSITE", ""),
    }
    # kept, because later the server's environment says something else (and a terminal's yet another thing)
    path = os.path.join(context.runtime, SOURCES)
    files.write_atomic(path, jsontext.dumps(sources), 0o600, sync=False)
    return _generate(context, sources)


def refresh(context: Context) -> None:
    """Rewrite the generated kernelspecs after a change of the overlay; what is right already stays.

    Never raises: what the server lists may be out of date for a while, a change that was made is made.
    """
    try:
        with open(os.path.join(context.runtime, SOURCES), encoding="utf-8") as f:
            _generate(context, jsontext.loads(f.read()))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the runtime dir was swept, or there is no space left in it


def _generate(context: Context, sources: dict[str, Any]) -> list[dict[str, str]]:
    script = os.path.join(context.runtime, "kernel.sh")
    _write_changed(script, kernel_script(context, sources["PYTHONNOUSERSITE"]), 0o700)
    ours = derive(sources["image"]["argv"], ["/bin/sh", script, "{connection_file}"])
    wanted = {} if ours is None else _wanted(context, sources, ours)
    kernels = os.path.join(context.runtime, "share", "jupyter", "kernels")
    for name, (spec, resources) in wanted.items():
        _write(kernels, name, spec, resources)
    for name in (NATIVE, BASE, ADDED, USER):
        if name not in wanted:
            files.remove_tree(os.path.join(kernels, name))
    _note_no_kernel(context)
    if ours is not None:
        return []
    return [
        notice(
            "kernel-not-replaced",
            "The image's Python kernel starts in a way we do not know; it does not see your overlay.",
        )
    ]


def _wanted(
    context: Context, sources: dict[str, Any], ours: list[str]
) -> dict[str, tuple[dict[str, Any], str]]:
    """Return name → (specification, folder of its other files) of the kernels there should be."""
    image, resources, user = sources["image"], sources["resources"], sources["user"]
    if not has_kernel(context):
        # Without an overlay the kernel is the image's, but what is in ~/.local can stop it just as well. A
        # user's own python3 comes before the image's then, as it does without us.
        return {NATIVE: ({**image, "argv": ours}, resources)} if user is None else {}
    if context.spec.kernel != "replace":
        return {ADDED: ({**image, "argv": ours, "display_name": "Python 3 (overlay)"}, resources)}
    shown = image.get("display_name") or "Python 3"
    plain = absolute(image["argv"], context.base.executable)
    wanted = {
        NATIVE: ({**image, "argv": ours}, resources),
        BASE: ({**image, "argv": plain, "display_name": f"{shown}, image only"}, resources),
    }
    if user is not None:
        theirs = dict(user["spec"])
        theirs["display_name"] = f"{theirs.get('display_name') or 'Python 3'}, yours"
        wanted[USER] = (theirs, user["directory"])
    return wanted


def has_kernel(context: Context) -> bool:
    """Whether kernels can run in the env: an isolated one needs an ``ipykernel`` of its own."""
    env = context.env
    if env is None:
        return False
    return not _isolated(context) or os.path.isfile(os.path.join(env.site_packages, KERNEL_MODULE))


def _isolated(context: Context) -> bool:
    return context.overlay is not None and context.overlay.kind == "isolated"


def _note_no_kernel(context: Context) -> None:
    """Say that an isolated env has no kernel, for as long as that is so.

    A file rather than an entry of the context: whichever process installs one takes it away.
    """
    folder = os.path.join(context.runtime, "notices")
    path = os.path.join(folder, "no-kernel.json")
    if context.env is None or has_kernel(context):
        files.unlink(path)
        return
    text = notice(
        "no-kernel",
        "The isolated environment has no kernel of its own yet: notebooks run on the image's packages.",
        "Install ipykernel in it, then start a new kernel.",
    )
    os.makedirs(folder, 0o700, exist_ok=True)
    _write_changed(path, jsontext.dumps(text), 0o600)


def _write(kernels: str, name: str, spec: Mapping[str, Any], resources: str) -> None:
    if resources:
        # what a command names there may be a program of any size, in a folder of any depth
        spec = {**spec, "argv": [word.replace("{resource_dir}", resources) for word in spec["argv"]]}
    directory = os.path.join(kernels, name)
    os.makedirs(directory, 0o700, exist_ok=True)
    written = _write_changed(os.path.join(directory, "kernel.json"), jsontext.dumps(spec) + "\n")
    if resources and written:
        _copy_resources(resources, directory)


def _write_changed(path: str, text: str, mode: int = 0o644) -> bool:
    """Write a file unless it has that content; return whether it was written."""
    try:
        with open(path, encoding="utf-8") as f:
            if f.read() == text:
                return False
    except (OSError, UnicodeDecodeError):
        pass
    files.write_atomic(path, text, mode, sync=False)
    return True


def _copy_resources(source: str, target: str) -> None:
    """Copy logos and what else a page asks for.

    Copies, because tornado 6.5.9 serves no link that leads out of its folder.
    """
    try:
        entries = list(os.scandir(source))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.name == "kernel.json" or not entry.is_file() or entry.stat().st_size > MAX_RESOURCE:
                continue
            with open(entry.path, "rb") as f:
                files.write_atomic(os.path.join(target, entry.name), f.read(), sync=False)
        except OSError:
            continue  # a kernel without its logo is better than none


def kernel_script(context: Context, no_user_site: str) -> str:
    """Return ``kernel.sh``: starts a kernel in the overlay, or in the base when that died at once last time.

    In sh, because what it guards against (a ``.pth`` that exits, a segmentation fault at import) ends a
    Python before the first line of a program. A mark is made before Python starts and taken away by the
    launcher when the kernel is ready: a mark that is still there means that the same connection file was
    tried before and died. It costs a millisecond; the kernel keeps its process id.

    Where nobody starts a kernel a second time (nbclient, papermill), that would be too late. So where there
    is anything that Python runs at its own start, it is tried with an empty program first.

    Parameters
    ----------
    no_user_site:
        The image's ``PYTHONNOUSERSITE``.
    """
    runtime = context.runtime
    python = context.env.python if context.env is not None else context.base.executable
    payload = context.payload
    if os.path.isdir(payload):
        payload = os.path.join(payload, "overlayspawner", "payload", "__main__.py")
    # The server's PYTHONNOUSERSITE is ours, not the image's; kernels get the image's, or the trait's.
    if context.spec.user_site == "never":
        site = "PYTHONNOUSERSITE=1; export PYTHONNOUSERSITE\n"
    elif no_user_site:
        site = f"PYTHONNOUSERSITE={shell_quote(no_user_site)}; export PYTHONNOUSERSITE\n"
    else:
        site = "unset PYTHONNOUSERSITE\n"
    base = shell_quote(context.base.executable)
    own = ""
    if context.env is not None and _isolated(context):
        # Looked at each time: it may have come, or gone, since this file was written.
        module = os.path.join(context.env.site_packages, KERNEL_MODULE)
        own = f"[ -f {shell_quote(module)} ] || python={base}\n"
    tail = f"{shell_quote(payload)} kernel --runtime {shell_quote(runtime)}"
    whole = "whole() {\n"
    # 67: not in a venv, as without its pyvenv.cfg
    trial = "import sys; raise SystemExit(66 + (sys.prefix == sys.base_prefix))"
    if context.env is not None:
        # An env whose files break while the server runs. Only builtins: these are regular files, or are not
        # read, and their first lines tell.
        settings = shell_quote(os.path.join(context.env.path, "pyvenv.cfg"))
        pth = shell_quote(os.path.join(context.env.site_packages, BASE_PTH))
        whole += (
            "    line=\n"
            f"    [ -f {settings} ] && IFS= read -r line 2>/dev/null <{settings}\n"
            "    case $line in home*) ;; *) return 1 ;; esac\n"
            "    line='import site'\n"
            f"    if [ -L {pth} ] || [ -e {pth} ]; then\n"
            f"        line=; [ -f {pth} ] && IFS= read -r line 2>/dev/null <{pth}\n"
            "    fi\n"
            "    case $line in 'import site'*) ;; *) return 1 ;; esac\n"
        )
    whole += "    return 0\n}\n"
    # what Python runs before a program; ours adds a base that is a venv
    hooks = []
    roots = ['"${PYTHONUSERBASE:-$HOME/.local}"' + f"/lib/python{context.base.version}/site-packages"]
    if context.env is not None:
        roots.append(shell_quote(context.env.site_packages))
    for root in roots:
        hooks += [f"{root}/*.pth", f"{root}/sitecustomize*", f"{root}/usercustomize*"]
    return (
        "#!/bin/sh\n"
        "# kernel.sh CONNECTION_FILE PYTHON_ARGUMENTS...: made by overlayspawner\n"
        f"mark={shell_quote(runtime + '/starting')}/${{1##*/}}\n"
        "shift\n"
        "options=\n"
        'while [ $# -gt 0 ] && [ "$1" != -m ]; do options="$options $1"; shift; done\n'
        f"python={shell_quote(python)}\n"
        f"{own}"
        "hooks() {\n"
        f"    for hook in {' '.join(hooks)}; do\n"
        f"        case $hook in */{BASE_PTH}) continue ;; esac\n"
        '        [ -e "$hook" ] && return 0\n'
        "    done\n"
        "    return 1\n"
        "}\n"
        f"{whole}"
        "starts() {\n"
        "    limit=\n"
        f"    timeout -s KILL 9 true 2>/dev/null && limit='timeout -s KILL {PYTHON_TIMEOUT}'\n"
        f'    $limit "$python" $options -c {shell_quote(trial)} </dev/null >/dev/null 2>&1\n'
        f"    case $?$python in 66* | 67{base}) return 0 ;; *) return 1 ;; esac\n"
        "}\n"
        'if [ -e "$mark" ]; then\n'
        '    rm -f "$mark"\n'
        "    why=died\n"
        f'elif [ ! -f "$python" ] || [ ! -x "$python" ] || '
        f'{{ [ "$python" != {base} ] && [ ! -L "$python" ]; }}; then\n'
        "    why=missing\n"
        "else\n"
        f"    {site}"
        "    if { hooks || ! whole; } && ! starts; then\n"
        f'        exec {base} -s $options {tail} --base python -- "$@"\n'
        "    fi\n"
        # Until it is ready there is nothing to interrupt, and a death would be taken for a package's doing.
        "    trap '' INT\n"
        '    : >"$mark" 2>/dev/null\n'
        f'    exec "$python" $options {tail} --mark "$mark" -- "$@"\n'
        "fi\n"
        # -s: what killed the kernel may as well be in the user site
        f'exec {base} -s $options {tail} --base $why -- "$@"\n'
    )
