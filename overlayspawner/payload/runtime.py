"""The runtime dir: a private, container-local folder of generated files, one per server.

Laid out as::

    server.json      what the start found (Context)
    config/          on JUPYTER_CONFIG_PATH: brings the server extension in
    share/jupyter/   on JUPYTER_PATH: generated kernelspecs, links to lab extensions
    bin/             pip, uv, overlay: first on the PATH of kernels and terminals
    plain/           pip and uv without the recording of what they change
    wrappers/        the image's own commands, run by the overlay's Python: last of ours on that PATH
    terminal/        rc file of the terminals
    jupyter/         JUPYTER_RUNTIME_DIR
    starting/        marks of kernels that have not said "ready" yet
    notices/         what kernels found out
    stack-tried      which foreign modules of the kernels' own could be imported
    in-use           locked while the server runs

Never in the user's storage. On the start path.
"""

from __future__ import annotations

import os

from overlayspawner.payload import files
from overlayspawner.payload.contract import RUNTIME_LOCK, RUNTIME_PREFIX, UV_DIR, OverlayError, Spec
from overlayspawner.payload.deadline import Child, Late
from overlayspawner.payload.overlay import env_pip, is_under, shell_quote
from overlayspawner.payload.probe import Base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlayspawner.payload.context import Context

PREFIX = RUNTIME_PREFIX
PLAIN = "plain"
"""Folder of a runtime dir with ``pip`` and ``uv`` as they are, without the recording."""
WRAPPED = "OVERLAYSPAWNER_WRAPPED"
"""Set for what a recorded command runs: a build that calls pip again does not wait for itself."""
LOCK = RUNTIME_LOCK
_PLACES = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108
"""Where a runtime dir is made where the environment names no place. Never links into a home."""
_LOOK = 1.0
"""Seconds that a place that the environment names may take to be looked at."""
_FOLDERS = (
    *("bin", PLAIN, "wrappers", "terminal", "jupyter", "starting", "notices"),
    *("share", "share/jupyter", "share/jupyter/kernels", "share/jupyter/labextensions"),
)
CONDA = ("conda", "mamba", "micromamba")
CONDA_NOTE = "terminal/conda-note"
"""Script in a runtime dir that explains what a command of conda would change; only where there is a conda."""
# Commands that must go on acting on the base, or that the overlay has its own of.
_NO_WRAPPER = ("jupyter", "pip", "conda", "mamba", "python", "activate", "deactivate", "overlay", "uv")


def make_dir(environ: Mapping[str, str], home: str, mode: int = 0o700) -> str:
    """Make a new private directory and return its path.

    A predictable path in a shared ``/tmp`` that holds a configuration file would be code execution for
    whoever makes it first; hence a random name, made by us, never reused.

    Raises
    ------
    OverlayError
        ``no-runtime-dir``: no writable place outside the home (a server with ``disable_user_config`` drops
        every configuration path under it, and a home may be full).
    """
    name = PREFIX + os.urandom(8).hex()
    places = [environ.get("XDG_RUNTIME_DIR"), environ.get("TMPDIR"), *_PLACES]
    for parent in places:
        if not parent or not os.path.isabs(parent) or _under(parent, home):
            continue
        path = os.path.join(parent, name)
        try:
            os.mkdir(path, 0o700)
            os.chmod(path, mode)
            for sub in ("config", "config/jupyter_server_config.d"):
                os.mkdir(os.path.join(path, sub), 0o755)
            files.write_test(os.path.join(path, "test"))  # directories can be made where files find no space
        except OSError:
            files.remove_tree(path)
            continue
        return path
    raise OverlayError("no-runtime-dir")


def _under(path: str, home: str) -> bool:
    """Whether a directory is in the home, as far as can be told without waiting for the home's storage.

    Links are followed in a child that is given up soon: what is in doubt is not used.
    """
    if not home or home == "/":
        return False
    if (os.path.normpath(path) + "/").startswith(os.path.normpath(home) + "/"):
        return True
    if os.path.normpath(path) in _PLACES:
        return False
    try:
        return bool(Child(lambda: is_under(path, home)).result(_LOOK))
    except (Late, ValueError, OSError):
        return True


def remove(path: str) -> None:
    """Delete a runtime dir."""
    if os.path.basename(path).startswith(PREFIX):
        files.remove_tree(path)


def write_config(directory: str, payload: str) -> None:
    """Write the configuration that brings the server extension in.

    ``jupyter_config.py`` is read by every Jupyter application and also with ``--config=FILE``, where
    ``jupyter_server_config.py`` is not. It is executed more than once per process.
    """
    config = os.path.join(directory, "config")
    _write(
        os.path.join(config, "jupyter_config.py"),
        "import sys\n"
        f"if {payload!r} not in sys.path:\n"
        "    # before a pip-installed overlayspawner of the image\n"
        f"    sys.path.insert(0, {payload!r})\n"
        "c = get_config()\n"
        "# JupyterLab's own extension manager runs pip in the server's Python, which is the image's.\n"
        "# jupyter_lab_config.py and jupyter_server_config.py are read later and may say otherwise.\n"
        'c.LabApp.extension_manager = "readonly"\n',
    )
    _write(
        os.path.join(config, "jupyter_server_config.d", "overlayspawner.json"),
        '{"ServerApp": {"jpserver_extensions": {"overlayspawner": true}}}\n',
    )


def prepend(first: str, rest: str | None) -> str:
    """Put a directory before a search path that may be unset."""
    return first + (os.pathsep + rest if rest else "")


def hide_user_site(spec: Spec, base: Base) -> bool:
    """Whether the server runs without ``~/.local``.

    Not when the single-user application itself lives there: then the image's directories hold no
    ``jupyter_server``.
    """
    if spec.user_site == "server":
        return False
    names = ("jupyter_server", "notebook", "jupyterhub")
    return any(os.path.isdir(os.path.join(d, name)) for d in base.site_dirs for name in names)


def server_environment(
    context: Context, environ: Mapping[str, str], *, bad_home: bool = False
) -> dict[str, str]:
    """Return the variables that the server's environment differs by; the extension takes most back."""
    directory = context.runtime
    variables = {
        "JUPYTER_CONFIG_PATH": prepend(directory + "/config", environ.get("JUPYTER_CONFIG_PATH")),
        "JUPYTER_PATH": prepend(directory + "/share/jupyter", environ.get("JUPYTER_PATH")),
    }
    if not environ.get("JUPYTER_RUNTIME_DIR"):
        # A full or read-only home stops a server at its runtime files.
        variables["JUPYTER_RUNTIME_DIR"] = directory + "/jupyter"
    if bad_home and not environ.get("IPYTHONDIR"):
        # Must not exist yet: Jupyter migrates settings out of an existing one, into the home.
        variables["IPYTHONDIR"] = directory + "/ipython"
    if hide_user_site(context.spec, context.base):
        variables["PYTHONNOUSERSITE"] = "1"
    return variables


def search_path(context: Context, path: str) -> str:
    """Return the ``PATH`` of kernels and terminals: ours, the overlay's, wrappers, then what was there."""
    here = context.runtime
    ours = [here + "/bin"] if here else []
    if context.env is not None:
        ours += [context.env.bin, here + "/wrappers"] if here else [context.env.bin]
    rest = [p for p in path.split(os.pathsep) if p not in ours]
    return os.pathsep.join(ours + rest)


def make_folders(directory: str) -> None:
    """Make the folders of a runtime dir."""
    for name in _FOLDERS:
        try:
            os.mkdir(os.path.join(directory, name), 0o700)
        except FileExistsError:
            pass


def write_commands(context: Context, environ: Mapping[str, str]) -> None:
    """Write ``bin/`` and the terminals' rc file."""
    directory = context.runtime
    run_us = f"{shell_quote(context.base.executable)} -I {shell_quote(_runnable(context.payload))}"
    overlay = f'#!/bin/sh\nexec {run_us} cli --runtime {shell_quote(directory)} "$@"\n'
    _write(os.path.join(directory, "bin", "overlay"), overlay, 0o755)
    if context.env is not None:
        # Beside ENV/bin/pip, because `pip install pip` replaces that one.
        _write_tool(context, "pip", env_pip(context.env, context.base, context.spec.kind), ("pip", "pip3"))
        uv = _find_uv(context, environ)
        if uv:
            _write_tool(context, "uv", f'#!/bin/sh\nexec {shell_quote(uv)} "$@"\n', ("uv",))
    _write(os.path.join(directory, "terminal", "bashrc"), _bashrc(context))


def _write_tool(context: Context, tool: str, plain: str, names: tuple[str, ...]) -> None:
    """Write a tool's plain command, and the commands that have its changes recorded.

    Only what may change an env takes the way through Python. What a build or the tool itself runs does not.
    """
    directory = context.runtime
    payload = shell_quote(_runnable(context.payload))
    path = os.path.join(directory, PLAIN, tool)
    _write(path, plain, 0o755)
    text = (
        "#!/bin/sh\n"
        f"# Made by overlayspawner: {tool}; what it changes in this overlay is recorded.\n"
        f'if [ -z "${WRAPPED}" ] && [ -f {payload} ] && [ -s {payload} ] && [ -r {payload} ]; then\n'
        '    for word in "$@"; do\n'
        "        case $word in install|uninstall|sync)\n"
        f"            exec {shell_quote(context.base.executable)} -I {payload} wrap"
        f' --runtime {shell_quote(directory)} {tool} "$@" ;;\n'
        "        esac\n"
        "    done\n"
        "fi\n"
        f'exec {shell_quote(path)} "$@"\n'
    )
    for name in names:
        _write(os.path.join(directory, "bin", name), text, 0o755)


def _find_uv(context: Context, environ: Mapping[str, str]) -> str:
    """Return the uv that a terminal of this image has, else the one that came with us, or ``""``."""
    folders = [d for d in environ.get("PATH", "").split(os.pathsep) if os.path.isabs(d)]
    folders += [UV_DIR, os.path.dirname(context.base.executable)]
    for folder in folders:
        path = os.path.join(folder, "uv")
        if not folder.startswith(context.runtime) and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def _runnable(payload: str) -> str:
    """What ``python`` is given to run us: the zip, or the package's ``__main__`` in a checkout."""
    if os.path.isdir(payload):
        return os.path.join(payload, "overlayspawner", "payload", "__main__.py")
    return payload


def _bashrc(context: Context) -> str:
    # Terminals are login shells, whose /etc/profile resets PATH. bash reads a given rc file only when it is
    # not a login shell: so ours reads what a login shell would, and sets PATH last.
    ours = search_path(context, "")
    text = (
        "[ -r /etc/profile ] && . /etc/profile\n"
        'for _overlay_rc in "$HOME/.bash_profile" "$HOME/.bash_login" "$HOME/.profile"; do\n'
        '    if [ -r "$_overlay_rc" ]; then . "$_overlay_rc"; break; fi\n'
        "done\n"
        "unset _overlay_rc\n"
        f'PATH={shell_quote(ours.rstrip(os.pathsep))}:"$PATH"\n'
        f"export PATH JUPYTER_PATH={shell_quote(context.runtime + '/share/jupyter')}"
        '"${JUPYTER_PATH:+:$JUPYTER_PATH}"\n'
    )
    # the first TAB asks for the rest; `conda init` has made functions, which no PATH can stand before
    note = shell_quote(os.path.join(context.runtime, CONDA_NOTE))
    text += (
        'if [ -n "${BASH_VERSION-}" ]; then\n'
        '    _overlay() { eval "$(overlay completion bash)" && return 124; }\n'
        "    complete -o default -F _overlay overlay\n"
        f"    for _overlay_tool in {' '.join(CONDA)}; do\n"
        '        [ "$(type -t $_overlay_tool)" = function ] || continue\n'
        '        eval "_overlay_$(declare -f $_overlay_tool)"\n'
        f'        eval "$_overlay_tool() {{ [ ! -x {note} ] || {note} $_overlay_tool \\"\\$@\\";'
        ' _overlay_$_overlay_tool \\"\\$@\\"; }"\n'
        "    done\n"
        "    unset _overlay_tool\n"
        "fi\n"
    )
    if context.env is not None:
        text += f"export VIRTUAL_ENV={shell_quote(context.env.path)}\n"
    return text


def write_wrappers(context: Context) -> int:
    """Write a wrapper for each command of the image that runs on the base's Python; return how many.

    The image's ``ipython``, ``pytest``, ``dask`` name the base's interpreter in their first line and would
    not see the overlay. Reads the first line of each file in the base's ``bin``: not for the start path.
    """
    from overlayspawner.payload.conda import write_conda

    write_conda(context)
    if context.env is None or context.spec.kind == "isolated":
        return 0  # an isolated env does not have the modules that the image's commands are made of
    source = os.path.dirname(context.base.executable)
    real = os.path.realpath(context.base.executable)
    count = 0
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if not _needs_wrapper(path, real):
            continue
        text = f'#!/bin/sh\nexec {shell_quote(context.env.python)} {shell_quote(path)} "$@"\n'
        _write(os.path.join(context.runtime, "wrappers", name), text, 0o755)
        count += 1
    return count


def _needs_wrapper(path: str, interpreter: str) -> bool:
    if os.path.basename(path).startswith(_NO_WRAPPER) or not os.path.isfile(path):
        return False
    return os.access(path, os.X_OK) and _runs_on(path, interpreter)


def runs_on_base(context: Context, path: str) -> bool:
    """Whether a program is a command of the image that needs a wrapper to see the overlay."""
    folder = os.path.dirname(context.base.executable)
    if context.spec.kind == "isolated" or os.path.realpath(os.path.dirname(path)) != os.path.realpath(folder):
        return False
    return _needs_wrapper(path, os.path.realpath(context.base.executable))


def _runs_on(script: str, interpreter: str) -> bool:
    """Whether a script's first lines name this interpreter by path (not by ``env``, which follows PATH)."""
    try:
        with open(script, "rb") as f:
            head = f.read(512)
    except OSError:
        return False
    if not head.startswith(b"#!"):
        return False
    lines = head.split(b"\n")
    words = lines[0][2:].split()
    if len(lines) > 1 and lines[1].startswith(b"'''exec' "):
        words = [lines[1][9:].split(b'"')[1] if lines[1][9:10] == b'"' else lines[1][9:].split()[0]]
    return bool(words) and os.path.realpath(os.fsdecode(words[0])) == interpreter


def hold(directory: str) -> int | None:
    """Mark a runtime dir as in use for the life of this process; return what has to stay open.

    A lock rather than a process id: those mean nothing across containers that share a folder.
    """
    import fcntl

    path = os.path.join(directory, LOCK)
    # under another name until it is locked: another server that starts may be sweeping right now
    fresh = f"{path}.{os.urandom(4).hex()}"
    try:
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(fresh, path)
    except OSError:
        os.close(fd)
        files.discard(fresh)
        return None
    return fd


def sweep(keep: str) -> int:
    """Delete runtime dirs of ours, in the parent of ``keep``, whose server is gone; return how many.

    A container that is kept between starts (``remove = False``) would otherwise gather them. Where locks do
    not work nothing is deleted.
    """
    import fcntl

    parent = os.path.dirname(keep)
    count = 0
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if path == keep or not name.startswith(PREFIX):
            continue
        try:
            if os.path.islink(path) or os.lstat(path).st_uid != os.geteuid():
                continue
            fd = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # another one's, or being made
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # its server lives
        else:
            files.remove_tree(path)
            count += 1
        finally:
            os.close(fd)
    return count


def _write(path: str, text: str, mode: int = 0o644) -> None:
    files.write_atomic(path, text, mode, sync=False)
