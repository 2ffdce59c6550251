"""From what DockerSpawner is about to create to what we have it create. Pure.

It works on the final arguments of ``create_container``, behind all that an administrator may have set or
overridden (``extra_create_kwargs``, ``extra_host_config``, ``mounts``, a subclass): nothing is replaced, and
what is mounted is known for certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overlayspawner.hub import boot
from overlayspawner.hub.config import Mount, Settings, build_spec, home_volume_problem, spec_hash
from overlayspawner.hub.delivery import NO_COPY
from overlayspawner.hub.image_facts import parse_env
from overlayspawner.payload.contract import PAYLOAD_DIR, SPEC_ENV, Spec, notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlayspawner.hub.choice import Choice
    from overlayspawner.hub.delivery import Bundle
    from overlayspawner.hub.image_facts import ImageFacts

SPEC_LABEL = "overlayspawner.spec"
"""Hash of the settings that a container was created with."""


@dataclass
class Plan:
    """How a container is to be created.

    Parameters
    ----------
    kwargs:
        The arguments of ``create_container``.
    spec:
        The spec in it.
    hash:
        The value of :data:`SPEC_LABEL`.
    environment:
        What the container is given, besides the image's own environment.
    mounts:
        All that is mounted for the user, our home volume included.
    home:
        The home directory, ``""`` when unknown.
    home_volume:
        Name of the home volume that is mounted, or ``""``.
    home_problem:
        Why it is not, in a few words.
    tty:
        Whether the container has a terminal.
    notices:
        What the user should know.
    """

    kwargs: dict[str, Any]
    spec: Spec
    hash: str
    environment: dict[str, str]
    mounts: list[Mount]
    home: str
    home_volume: str = ""
    home_problem: str = ""
    tty: bool = False
    notices: list[dict[str, str]] = field(default_factory=list)

    @property
    def restarts(self) -> bool:
        """Whether the engine starts the container again when it dies (``restart_policy``)."""
        policy = self.kwargs["host_config"].get("RestartPolicy") or {}
        return policy.get("Name") not in (None, "", "no")

    @property
    def home_persistent(self) -> bool:
        """Whether the home is on storage that outlives the container."""
        if not self.home:
            return False
        return any(
            m.persistent and not m.ro and (self.home + "/").startswith(m.path.rstrip("/") + "/")
            for m in self.mounts
        )


def mounts_of(host_config: Mapping[str, Any], volumes: object = ()) -> list[Mount]:
    """Return what a host configuration (the engine's words) mounts.

    Parameters
    ----------
    host_config:
        ``Binds``, ``Mounts`` and ``Tmpfs`` of it are read.
    volumes:
        The container's own list of volumes: what is not bound becomes an anonymous one.
    """
    out = []
    for bind in host_config.get("Binds") or []:
        source, target, mode = _split_bind(str(bind))
        if target:
            out.append(Mount(target, "ro" in mode.split(","), source))
    for mount in host_config.get("Mounts") or []:
        kind, source = mount.get("Type") or "volume", mount.get("Source") or ""
        persistent = kind in ("bind", "volume", "cluster") and bool(source)
        out.append(Mount(str(mount.get("Target", "")), bool(mount.get("ReadOnly")), source, persistent))
    tmpfs = host_config.get("Tmpfs") or {}
    out.extend(Mount(str(path), False, "", False) for path in tmpfs)
    known = {m.path.rstrip("/") for m in out}
    if isinstance(volumes, dict):
        volumes = list(volumes)
    for path in volumes if isinstance(volumes, (list, tuple)) else ():
        if str(path).rstrip("/") not in known:
            out.append(Mount(str(path), False, "", False))
    return out


def _split_bind(bind: str) -> tuple[str, str, str]:
    """Return source, target and mode of ``source:target[:mode]``."""
    parts = bind.split(":")
    if len(parts) == 1:
        return "", parts[0], ""  # an anonymous volume
    if len(parts) == 2:
        return parts[0], parts[1], ""
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def compose(
    kwargs: Mapping[str, Any],
    *,
    facts: ImageFacts,
    settings: Settings,
    bundles: list[Bundle],
    payload_id: str,
    directory: str = PAYLOAD_DIR,
    home_volume: str = "",
    home_refused: dict[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    choice: Choice | None = None,
    start_timeout: float = 60.0,
    owner: int = -1,
) -> Plan:
    """Return how to create a container with the overlay in it.

    Parameters
    ----------
    kwargs:
        The arguments of ``create_container`` that DockerSpawner made.
    facts:
        The image's.
    settings:
        The overlay's.
    bundles:
        What is delivered.
    payload_id:
        The payload's.
    directory:
        Where the payload is in the container.
    home_volume:
        Name of the home volume, or ``""`` for none.
    home_refused:
        A notice that says why this volume may not be mounted, should it be wanted.
    fields:
        What ``overlay_path`` may name.
    choice:
        What is different in this start.
    start_timeout:
        Seconds the hub waits for the server.
    owner:
        Id of the user to whom the home belongs, -1 where it is not known.

    Raises
    ------
    OverlayError
        ``bad-spec``: the spec is too large, or ``overlay_path`` can't be read.
    """
    out = dict(kwargs)
    notices: list[dict[str, str]] = []
    environment = parse_env(out.get("environment"))
    home, problem = find_home(out, environment, facts, home_volume)
    if home_volume and not home:
        notices.append(
            notice(
                "home-unknown",
                "The home directory of this image could not be found: nothing is mounted there.",
                "Ask your administrator to set HOME in the server's environment.",
            )
        )
    if home_refused is not None and home_volume and not problem:
        notices.append(home_refused)
        problem = home_refused["message"]
    if home_volume and not problem:
        out = with_home(out, home_volume, home)
    host_config = dict(out.get("host_config") or {})
    mounts = mounts_of(host_config, out.get("volumes"))
    binds = list(host_config.get("Binds") or [])
    binds += [f"{bundle.volume}:{bundle.directory}:ro,{NO_COPY}" for bundle in bundles]
    host_config["Binds"] = binds
    out["host_config"] = host_config

    wrapped = boot.wrap_container(
        _words(out["entrypoint"]) if out.get("entrypoint") is not None else list(facts.entrypoint),
        _words(out.get("command")),
        shell=facts.shell,
        directory=directory,
    )
    if wrapped.notice:
        notices.append(
            notice(wrapped.notice, hint="Set Spawner.cmd, or use an image with a shell, to have the overlay.")
        )
    else:
        out["command"] = wrapped.command
        if wrapped.entrypoint is not None:
            out["entrypoint"] = wrapped.entrypoint
    spec = build_spec(
        settings,
        fields=fields,
        mounts=mounts,
        choice=choice,
        start_timeout=start_timeout,
        image=facts.public_name(str(out.get("image") or "")),
        owner=owner,
        notices=notices,
    )
    if not wrapped.notice:
        out["environment"] = _with_variable(out.get("environment"), SPEC_ENV, spec.to_json())
    digest = spec_hash(spec, payload_id)
    out["labels"] = {**_labels(out.get("labels")), SPEC_LABEL: digest}
    return Plan(
        kwargs=out,
        spec=spec,
        hash=digest,
        environment=environment,
        mounts=mounts,
        home=home,
        home_volume="" if problem else home_volume,
        home_problem=problem,
        tty=bool(out.get("tty")),
        notices=notices,
    )


def find_home(
    kwargs: Mapping[str, Any], environment: Mapping[str, str], facts: ImageFacts, home_volume: str
) -> tuple[str, str]:
    """Return the home directory in the container, and why no home volume is mounted there (or ``""``)."""
    home = facts.home(environment)
    if not home_volume:
        return home, ""
    return home, home_volume_problem(
        home_volume,
        home=home,
        mounts=mounts_of(kwargs.get("host_config") or {}, kwargs.get("volumes")),
        user_overridden=_user_overridden(kwargs, environment, facts),
        base_under_home=bool(home) and facts.base_under(home),
        home_in_image=facts.paths.get(home, False),
    )


def with_home(kwargs: Mapping[str, Any], home_volume: str, home: str) -> dict[str, Any]:
    """Return the arguments of ``create_container`` with the home volume mounted."""
    host_config = dict(kwargs.get("host_config") or {})
    host_config["Binds"] = [*(host_config.get("Binds") or []), f"{home_volume}:{home}:rw"]
    return {**kwargs, "host_config": host_config}


def _user_overridden(kwargs: Mapping[str, Any], environment: Mapping[str, str], facts: ImageFacts) -> bool:
    user = kwargs.get("user")
    if user not in (None, "") and str(user) != facts.user:
        return True
    return environment.get("NB_USER", facts.env.get("NB_USER")) != facts.env.get("NB_USER")


def _with_variable(environment: object, name: str, value: str) -> dict[str, Any]:
    """Add a variable; ``None``, and a name alone in a list, mean "unset" and stay so."""
    variables: dict[str, Any] = dict(environment) if isinstance(environment, dict) else {}
    for line in environment if isinstance(environment, (list, tuple)) else ():
        key, given, rest = str(line).partition("=")
        variables[key] = rest if given else None
    return {**variables, name: value}


def _words(command: object) -> list[str]:
    if isinstance(command, str):
        import shlex

        return shlex.split(command)  # as docker-py does
    return [str(word) for word in command] if isinstance(command, (list, tuple)) else []


def _labels(labels: object) -> dict[str, str]:
    if isinstance(labels, dict):
        return labels
    return {str(name): "" for name in labels} if isinstance(labels, (list, tuple)) else {}
