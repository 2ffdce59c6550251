"""From the administrator's settings to the spec of one container. Pure: nothing is read, nothing is run."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overlayspawner.payload.contract import (
    KINDS,
    LIFETIMES,
    OverlayError,
    Spec,
    cutoff,
    split_rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlayspawner.hub.choice import Choice

INSTALLERS = ("auto", "uv", "pip")
KERNELS = ("replace", "add")
RESTORES = ("background", "before-start", "manual")
USER_SITES = ("kernels", "server", "never")
LAB_EXTENSIONS = ("auto", "always", "never")
FORMS = ("auto", "always", "never")

_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

_CHOICES = {
    "kind": KINDS,
    "lifetime": LIFETIMES,
    "installer": INSTALLERS,
    "kernel": KERNELS,
    "restore": RESTORES,
    "user_site": USER_SITES,
    "lab_extensions": LAB_EXTENSIONS,
}
_LISTS = ("requirements", "extra_index_urls", "constraints", "allow", "deny", "only_binary")

# What may differ from start to start without making a container out of date.
_NOT_HASHED = (
    "safe",
    "reset",
    "nonce",
    "notices",
    "deadline",
    "start_timeout",
    "job_timeout",
    "job_silence",
    "image",
)


@dataclass(frozen=True)
class Mount:
    """Something mounted into a container.

    Parameters
    ----------
    path:
        Where, in the container.
    ro:
        Whether it is read-only.
    source:
        The volume's name or the host's path; empty for an anonymous volume.
    persistent:
        Whether what is written there outlives the container: not for tmpfs and anonymous volumes.
    """

    path: str
    ro: bool = False
    source: str = ""
    persistent: bool = True


@dataclass
class Settings:
    """The overlay's settings of one spawn: the ``overlay_*`` traits, evaluated.

    Parameters are those of :class:`overlayspawner.payload.contract.Spec`; ``path`` still has its fields.
    """

    name: str = "default"
    path: str = ".overlay/{name}"
    kind: str = "overlay"
    lifetime: str = "persistent"
    requirements: list[str] = field(default_factory=list)
    installer: str = "auto"
    fetch_uv: bool = True
    index_url: str = ""
    extra_index_urls: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)
    deny: list[str] = field(default_factory=list)
    max_size: int = 0
    only_binary: list[str] = field(default_factory=list)
    exclude_newer: str = ""
    kernel: str = "replace"
    restore: str = "background"
    start_deadline: float = 10.0
    user_site: str = "kernels"
    lab_extensions: str = "auto"
    job_timeout: float = 3600.0
    job_silence: float = 300.0


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Check evaluated settings and return them typed.

    Parameters
    ----------
    values:
        Trait name without ``overlay_`` to value; what is missing or ``None`` has its default.

    Raises
    ------
    OverlayError
        ``bad-spec``, naming the trait and what it may be.
    """
    settings = Settings()
    for key, value in values.items():
        if value is None:
            continue
        setattr(settings, key, _checked(key, value))
    if not _NAME.match(settings.name):
        raise _bad("name", settings.name, "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
    if not settings.path:
        raise _bad("path", settings.path, "a path, absolute or relative to the user's persistent storage")
    if settings.start_deadline <= 0:
        raise _bad("start_deadline", settings.start_deadline, "a number of seconds above 0")
    for key in ("job_timeout", "job_silence"):
        if not 0 <= getattr(settings, key) < float("inf"):
            raise _bad(key, getattr(settings, key), "a number of seconds, 0 for no limit")
    if settings.max_size < 0:
        raise _bad("max_size", settings.max_size, "a number of bytes, 0 for no limit")
    for key in ("allow", "deny"):
        for rule in getattr(settings, key):
            _check_rule(key, rule)
    for name in settings.only_binary:
        if name != ":all:" and not _PACKAGE.match(name):
            raise _bad("only_binary", name, "true, false, or a list of names of packages")
    if settings.exclude_newer:
        try:
            cutoff(settings.exclude_newer)
        except OverlayError:
            wanted = "a date, a timestamp with its zone, or a duration such as '7 days' or 'P7D'"
            raise _bad("exclude_newer", settings.exclude_newer, wanted) from None
    return settings


def _check_rule(key: str, rule: str) -> None:
    """Refuse a rule that a container could not understand: it would let nothing in."""
    from packaging.specifiers import SpecifierSet

    try:
        SpecifierSet(split_rule(rule)[1])
    except (OverlayError, ValueError):
        wanted = "names of packages, perhaps with * in them, perhaps with versions, such as torch<2"
        raise _bad(key, rule, f"a list of {wanted}") from None


def _checked(key: str, value: object) -> object:
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise _bad(key, value, "one of " + ", ".join(_CHOICES[key]))
        return value
    if key == "only_binary" and isinstance(value, bool):
        return [":all:"] if value else []
    if key in _LISTS:
        if isinstance(value, str):
            value = value.splitlines()
        if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(v, str) for v in value):
            raise _bad(key, value, "a list of strings")
        lines = sorted(value) if isinstance(value, (set, frozenset)) else list(value)
        return [line.strip() for line in lines if line.strip()]
    if key == "max_size":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _bad(key, value, "a number of bytes")
        return int(value)
    if key == "fetch_uv":
        if not isinstance(value, bool):
            raise _bad(key, value, "True or False")
        return value
    if key in ("start_deadline", "job_timeout", "job_silence"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _bad(key, value, "a number of seconds")
        return float(value)
    if not isinstance(value, str):
        raise _bad(key, value, "a string")
    return value


def _bad(key: str, value: object, wanted: str) -> OverlayError:
    return OverlayError(
        "bad-spec",
        f"overlay_{key} is {value!r}; it has to be {wanted}.",
        "Correct this setting in the JupyterHub configuration.",
        status=500,
    )


def build_spec(
    settings: Settings,
    *,
    fields: Mapping[str, str] | None = None,
    mounts: Iterable[Mount] | None = None,
    choice: Choice | None = None,
    start_timeout: float = 60.0,
    image: str = "",
    owner: int = -1,
    notices: Iterable[dict[str, str]] = (),
) -> Spec:
    """Return the spec of one container.

    Parameters
    ----------
    settings:
        See :func:`settings_from`.
    fields:
        What ``overlay_path`` may name besides ``{name}``, for example ``{username}``.
    mounts:
        What is mounted for the user (not our own payload), or ``None`` where the engine has no mounts.
    choice:
        What is different in this start.
    start_timeout:
        Seconds the hub waits for the server.
    image:
        What the image is called.
    owner:
        Id of the user to whom the home belongs, -1 where it is not known.
    notices:
        What the hub wants the user to see.

    Raises
    ------
    OverlayError
        ``bad-spec`` when ``overlay_path`` names an unknown field.
    """
    try:
        path = settings.path.format_map({**(fields or {}), "name": settings.name})
    except (KeyError, IndexError, ValueError) as e:
        known = ", ".join("{" + f + "}" for f in ["name", *(fields or {})])
        raise _bad("path", settings.path, f"a path whose fields are among {known} ({e})") from None
    listed: list[dict[str, object]] | None = None
    if mounts is not None:
        listed = [{"path": m.path, "ro": m.ro} for m in mounts if m.persistent]
    return Spec(
        name=settings.name,
        path=posixpath.normpath(path),
        mounts=listed,
        kind=settings.kind,
        lifetime=settings.lifetime,
        requirements=settings.requirements,
        installer=settings.installer,
        fetch_uv=settings.fetch_uv,
        index_url=settings.index_url,
        extra_index_urls=settings.extra_index_urls,
        constraints=settings.constraints,
        allow=settings.allow,
        deny=settings.deny,
        max_size=settings.max_size,
        only_binary=settings.only_binary,
        exclude_newer=settings.exclude_newer,
        kernel=settings.kernel,
        restore=settings.restore,
        deadline=settings.start_deadline,
        user_site=settings.user_site,
        lab_extensions=settings.lab_extensions,
        job_timeout=settings.job_timeout,
        job_silence=settings.job_silence,
        safe=choice is not None and choice.what == "safe",
        reset=choice is not None and choice.what == "reset",
        nonce=choice.nonce if choice is not None else "",
        start_timeout=float(start_timeout),
        image=image,
        owner=owner,
        notices=list(notices),
    )


def spec_hash(spec: Spec, payload_id: str) -> str:
    """Return what a container's label says about the settings it was created with.

    A hash, because a label is readable by more people than a spec may be (index credentials).
    """
    data = {k: v for k, v in spec.to_dict().items() if k not in _NOT_HASHED}
    text = json.dumps([data, payload_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_under(path: str, parent: str) -> bool:
    """Whether ``path`` is ``parent`` or lies under it."""
    path, parent = _norm(path), _norm(parent)
    return path == parent or parent == "/" or path.startswith(parent + "/")


def _norm(path: str) -> str:
    return posixpath.normpath(path) if path else ""


def home_volume_problem(
    volume: str,
    *,
    home: str,
    mounts: Iterable[Mount],
    user_overridden: bool,
    base_under_home: bool,
    home_in_image: bool = True,
) -> str:
    """Say why the home volume can't be mounted, in a few words for the log, or return ``""``.

    Parameters
    ----------
    volume:
        The volume's name.
    home:
        The home directory in the image; ``""`` when unknown.
    mounts:
        All that the administrator mounts, whatever its kind.
    user_overridden:
        Whether the container runs as another user than the image says (``user``, ``NB_USER``): its home is
        then made, moved or chosen by a start script, and a volume would be in the way.
    base_under_home:
        Whether the image's Python lies under the home: a volume would freeze it at its first version.
    home_in_image:
        Whether the directory exists in the image: otherwise the engine would make one that belongs to root.
    """
    if not home or _norm(home) == "/":
        return "the image's home directory is not known"
    for mount in mounts:
        if mount.source and mount.source == volume:
            return f"the name {volume} is already used for {mount.path}"
        if is_under(mount.path, home) or is_under(home, mount.path):
            return f"{mount.path} is mounted already"
    if user_overridden:
        return "the container's user is overridden"
    if base_under_home:
        return "the image's Python lies under the home directory"
    if not home_in_image:
        return f"{home} does not exist in the image"
    return ""
