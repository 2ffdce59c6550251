"""Where an overlay's files are, and the creation of its env by hand.

An env is a real venv (PEP 405) at a path that does not change. Made by hand it takes a few milliseconds;
``python -m venv`` takes hundreds of times that. On the start path: nothing but ``os`` and ``files`` here.
"""

from __future__ import annotations

import os

from overlayspawner.payload import files, jsontext
from overlayspawner.payload.probe import Base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION = 1
"""Version of the files in an overlay (``overlay.json``)."""

_README = """This folder belongs to overlayspawner: it holds the Python packages you installed on top of the
packages of your server's image.

  requirements.txt   what you asked for; you may edit it (then run: overlay sync)
  revisions/         one file for each change
  locks/             the exact versions of each environment, kept to build it again
  envs/              the installed packages, one environment for each kind of image; they can be
                     deleted and are built again from requirements.txt

To see what is wrong, run `overlay doctor`. To start over, rename this folder and restart your server.
"""

LOCAL_PREFIX = "overlayspawner-env-"

BASE_PTH = "zzz-overlayspawner-base.pth"
"""Adds a base that is itself a venv; sorts last, so that the overlay's own ``.pth`` files come first."""


class Env:
    """The venv that realises an overlay on one base key.

    Parameters
    ----------
    path:
        The venv's directory.
    version:
        ``X.Y`` of its Python.
    """

    def __init__(self, path: str, version: str) -> None:
        self.path = path
        self.version = version

    @property
    def python(self) -> str:
        """The env's interpreter (a symbolic link to the base's)."""
        return os.path.join(self.path, "bin", "python")

    @property
    def bin(self) -> str:
        """The directory of its scripts."""
        return os.path.join(self.path, "bin")

    @property
    def site_packages(self) -> str:
        """The directory of its distributions."""
        return os.path.join(self.path, "lib", "python" + self.version, "site-packages")

    @property
    def state(self) -> str:
        """Our own files of this env: journal, set-aside, lease, stage, lock."""
        return os.path.join(self.path, ".overlay")

    @property
    def lock_file(self) -> str:
        """``pylock.toml`` of this env."""
        return os.path.join(self.path, "pylock.toml")

    def damage(self, *, venv_base: bool = False) -> str:
        """Return the file that keeps Python from starting in this env, or ``""``; nothing is run.

        A crash of the machine leaves empty files or zeros. Without ``pyvenv.cfg`` this would be the base's
        Python; text that can't be decoded, in that file or in a ``.pth``, ends Python at its start.

        Parameters
        ----------
        venv_base:
            Whether the env needs our ``.pth`` to see its base.
        """
        settings = os.path.join(self.path, "pyvenv.cfg")
        if "home" not in _text(settings):
            return settings
        # always a link when it is ours; a shell would run a file that is no program
        if not (
            os.path.islink(self.python) and os.path.isfile(self.python) and os.access(self.python, os.X_OK)
        ):
            return self.python
        if not (os.path.isdir(self.site_packages) and os.access(self.site_packages, os.R_OK | os.X_OK)):
            return self.site_packages
        pth = os.path.join(self.site_packages, BASE_PTH)
        if (venv_base or os.path.lexists(pth)) and not _text(pth).endswith("))\n"):
            return pth
        return ""

    def usable(self) -> bool:
        """Whether the env can start a Python."""
        return not self.damage()


def _text(path: str) -> str:
    """Return the text of a small file, ``""`` where it has none."""
    try:
        if not os.path.isfile(path):
            return ""  # a pipe would never end
        with open(path, encoding="utf-8") as f:
            text = f.read(65_536)
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text


class Overlay:
    """A named overlay in the user's storage.

    Parameters
    ----------
    path:
        The overlay's directory, for example ``/home/jovyan/.overlay/default``.
    name, kind, lifetime:
        See the vocabulary.
    local:
        A private directory of the container (see :func:`make_local`) for the env of an ephemeral overlay;
        ``""`` for a persistent one.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str = "default",
        kind: str = "overlay",
        lifetime: str = "persistent",
        local: str = "",
    ) -> None:
        self.path = path
        self.name = name
        self.kind = kind
        self.lifetime = lifetime
        self.local = local

    @property
    def requirements(self) -> str:
        """``requirements.txt``: what the user asked for."""
        return os.path.join(self.path, "requirements.txt")

    @property
    def revisions(self) -> str:
        """The directory of revisions."""
        return os.path.join(self.path, "revisions")

    @property
    def metadata(self) -> str:
        """``overlay.json``."""
        return os.path.join(self.path, "overlay.json")

    @property
    def ephemeral(self) -> bool:
        """Whether the env vanishes with the container; requirements and revisions never do."""
        return bool(self.local) and self.lifetime == "ephemeral"

    @property
    def envs(self) -> str:
        """The directory of the envs: in the user's storage, or in the container."""
        return os.path.join(self.local if self.ephemeral else self.path, "envs")

    def env(self, base: Base) -> Env:
        """The env of this overlay on a base, whether or not it exists.

        Each kind has its own, so that changing the kind and back keeps both.
        """
        suffix = "" if self.kind == "overlay" else "-" + self.kind
        return Env(os.path.join(self.envs, base.key + suffix), base.version)

    def create(self, base: Base) -> Env:
        """Make the overlay and its env where they are missing; return the env.

        Safe beside another server that does the same on the same storage: whoever renames first wins.
        An env that exists is never touched.

        Raises
        ------
        OSError
            The storage can't be written to.
        """
        env = self.env(base)
        if os.path.lexists(env.path):
            return env
        fresh = makedirs(self.path)
        envs = os.path.dirname(env.path)
        files.mkdir(envs)
        files.mkdir(self.revisions)
        if fresh or not os.path.lexists(self.metadata):
            self.describe()
        new = os.path.join(envs, f".new-{os.path.basename(env.path)}-{os.urandom(4).hex()}")
        try:
            make_env(new, env.path, base, kind=self.kind)
            files.rename(new, env.path)
        except OSError:
            files.remove_tree(new)
            # When another server was first, theirs is as good as ours.
            if not os.path.lexists(env.path):
                raise
        return env

    def describe(self) -> None:
        """Write the files of an overlay that holds nothing yet; its directory exists."""
        data = {"schema": SCHEMA_VERSION, "name": self.name, "kind": self.kind, "lifetime": self.lifetime}
        for path, text in ((os.path.join(self.path, "README.md"), _README), (self.requirements, "")):
            if not os.path.lexists(path):  # an administrator's or a user's path may hold files of theirs
                files.write_atomic(path, text, sync=False)
        files.write_atomic(self.metadata, jsontext.dumps(data) + "\n", sync=False)


def makedirs(path: str) -> bool:
    """Make a directory with its parents; return whether it is new."""
    parent = os.path.dirname(path)
    if parent and not os.path.isdir(parent):
        makedirs(parent)
    return files.mkdir(path)


def make_local(environ: Mapping[str, str], home: str) -> str:
    """Make a new private directory for the env of an ephemeral overlay and return its path.

    On a disk rather than in memory where there is a choice: packages are large. A place from which no
    program can be run would refuse compiled modules too. The name is random, as that of a runtime dir.

    Raises
    ------
    OSError
        There is no writable place outside the home.
    """
    parents = [environ.get("TMPDIR", ""), "/var/tmp", "/tmp", "/dev/shm"]  # noqa: S108
    parents = [p for p in parents if os.path.isabs(p) and not is_under(p, home)]
    error = OSError(2, "no writable place for temporary files")
    for parent in sorted(parents, key=_no_programs):  # stable: the order counts among equals
        path = os.path.join(parent, LOCAL_PREFIX + os.urandom(8).hex())
        try:
            if files.mkdir(path, 0o700):
                return path
        except OSError as e:
            error = e
    raise error


def _no_programs(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return True


def is_under(path: str, parent: str) -> bool:
    """Whether a path lies in a directory, links resolved; nothing counts as lying in ``/`` or ``""``."""
    if not parent or parent == "/":
        return False
    return (os.path.realpath(path) + "/").startswith(os.path.realpath(parent) + "/")


def make_env(directory: str, final: str, base: Base, *, kind: str = "overlay") -> None:
    """Write a venv into ``directory`` that will live at ``final``.

    Parameters
    ----------
    directory:
        A path that does not exist yet.
    final:
        The path the env gets by the caller's rename; scripts name it.
    base:
        The base it stands on.
    kind:
        ``overlay`` sees the base's packages, ``isolated`` does not.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    env = Env(directory, base.version)
    overlay = kind == "overlay"
    for path in (directory, env.bin, os.path.join(directory, "lib"), os.path.dirname(env.site_packages)):
        files.mkdir(path)
    files.mkdir(env.site_packages)
    files.mkdir(env.state)
    # Mirror the base: a venv made without system packages must not show them to the overlay either.
    system = overlay and base.system_site
    home = os.path.dirname(base.interpreter)
    files.write_atomic(
        os.path.join(directory, "pyvenv.cfg"),
        f"home = {home}\n"
        f"include-system-site-packages = {'true' if system else 'false'}\n"
        f"version = {base.full_version}\n"
        f"executable = {os.path.realpath(base.interpreter)}\n"
        "prompt = overlay\n",
        sync=False,
    )
    files.symlink(base.interpreter, env.python)
    for name in ("python3", "python" + base.version):
        files.symlink("python", os.path.join(env.bin, name))
    if overlay and base.is_venv:
        # Every tool's "system site packages" lands on the Python below the venv. addsitedir, not a plain
        # path line, so that the base's own .pth files work too.
        site_dirs = [d for d in base.site_dirs if d.startswith(base.prefix + os.sep)]
        lines = f"import site; list(map(site.addsitedir, {site_dirs!r}))\n"
        files.write_atomic(os.path.join(env.site_packages, BASE_PTH), lines, sync=False)
    files.write_atomic(os.path.join(directory, "pip.conf"), pip_conf(), sync=False)
    script = env_pip(Env(final, base.version), base, kind)
    for name in ("pip", "pip3"):
        files.write_atomic(os.path.join(env.bin, name), script, 0o755, sync=False)


def pip_conf(constraint: str = "") -> str:
    """Return ``ENV/pip.conf``: it beats ``user = true`` in the user's or the image's configuration."""
    text = "[global]\nuser = false\ndisable-pip-version-check = true\n"
    if constraint:
        text += f"constraint = {constraint}\n"
    return text


def env_pip(env: Env, base: Base, kind: str) -> str:
    """Return the text of the command ``pip`` of an env (:func:`pip_script`)."""
    if kind == "overlay":
        return pip_script(env.python)
    # An isolated env has no pip until one is installed in it. The image's can act on another Python.
    own = shell_quote(os.path.join(env.site_packages, "pip", "__main__.py"))
    return (
        "#!/bin/sh\n"
        "# Made by overlayspawner: pip of this environment.\n"
        "unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT\n"
        f'[ ! -f {own} ] || exec {shell_quote(env.python)} -m pip "$@"\n'
        f'exec {shell_quote(base.executable)} -m pip --python {shell_quote(env.python)} "$@"\n'
    )


def pip_script(python: str) -> str:
    """Return ``ENV/bin/pip``.

    A shell script rather than a Python one: it works when pip itself is only in the base, and can take
    variables away that beat a venv (``PIP_USER`` and friends) from this one call, not from the user's other
    environments.
    """
    return (
        "#!/bin/sh\n"
        "# Made by overlayspawner: pip of this overlay.\n"
        "unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT\n"
        f'exec {shell_quote(python)} -m pip "$@"\n'
    )


def shell_quote(text: str) -> str:
    """Quote for a POSIX shell (``shlex.quote`` without importing it)."""
    return "'" + text.replace("'", "'\\''") + "'"
