"""Home volumes: whose they are, making them, and deleting them with their user.

Several hubs may share an engine and have users of the same name, so a volume says in its labels which user it
was made for, and for which hub. All functions block: call them in a thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound

from overlayspawner.hub.compose import SPEC_LABEL
from overlayspawner.payload.contract import notice

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

HOME_LABEL = "overlayspawner.home"
"""The user that a volume was made for."""

OWNER_LABEL = "overlayspawner.home.owner"
"""User and hub: the name of the container of the user's unnamed server. Older volumes don't have it."""

_STOPPED = ("created", "exited", "dead", "stopped", "configured")  # the last two are Podman's


def labels_of(spawner: Any) -> dict[str, str]:
    """Return the labels of a DockerSpawner's home volume; all servers of a user have the same."""
    # The image may change without the home, and named servers share it. An unnamed server's container has
    # separators at the end where a template names the server, and none with DockerSpawner's default.
    fields = {**spawner.template_namespace(), "servername": "", "raw_servername": "", "imagename": ""}
    owner = str(spawner._render_templates(spawner.name_template, fields)).rstrip("-_.")
    return {HOME_LABEL: spawner.escaped_name, OWNER_LABEL: owner}


def look(client: Any, volume: str, labels: Mapping[str, str]) -> dict[str, str] | None:
    """Return why a volume may not be mounted, as a notice; ``None`` when it may, or does not exist yet."""
    try:
        found = client.inspect_volume(volume)
    except NotFound:
        return None
    except APIError as e:
        return _refused(e)
    return _anothers(found, labels)


def make(client: Any, volume: str, labels: Mapping[str, str]) -> dict[str, str] | None:
    """Make a volume unless it exists; return why it may not be mounted, as a notice, or ``None``.

    Raises
    ------
    docker.errors.APIError
        The engine failed. It did not refuse: then there is a notice.
    """
    try:
        made = client.create_volume(volume, labels=dict(labels))
    except APIError as e:
        refused = _refused(e)
        if refused is None:
            raise
        return refused
    return _anothers(made, labels)  # it may have been made since look()


def made_by_us(client: Any, volume: str, labels: Mapping[str, str]) -> bool:
    """Whether a volume exists and was made for this user of this hub.

    Raises
    ------
    docker.errors.APIError
        The engine refuses to tell.
    """
    try:
        found = client.inspect_volume(volume)
    except NotFound:
        return False
    return _label(found, HOME_LABEL) == labels[HOME_LABEL] and _anothers(found, labels) is None


def delete(client: Any, volume: str, labels: Mapping[str, str], container: str) -> bool:
    """Delete a user's home volume; return whether there was one to delete.

    Only a volume that was made for this user of this hub is deleted. Stopped containers that we made hold
    it, and go with it.

    Parameters
    ----------
    container:
        Name of the server's container, which may have been made without an overlay.

    Raises
    ------
    docker.errors.APIError
        The engine refuses, for example because the volume is in use.
    """
    if not made_by_us(client, volume, labels):
        log.info("The volume %s does not exist, or was not made by us: nothing is deleted.", volume)
        return False
    for found in client.containers(all=True, filters={"volume": volume}):
        ours = SPEC_LABEL in (found.get("Labels") or {}) or f"/{container}" in (found.get("Names") or ())
        mounted = {mount.get("Name") for mount in found.get("Mounts") or []}
        if ours and volume in mounted and str(found.get("State", "")).lower() in _STOPPED:
            client.remove_container(found["Id"], v=True)
    client.remove_volume(volume)
    return True


def _label(volume: Mapping[str, Any], name: str) -> str:
    return str((volume.get("Labels") or {}).get(name, ""))


def _anothers(volume: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, str] | None:
    # Another user's name is no mistake: an administrator may have left {username} out of home_volume.
    owner = _label(volume, OWNER_LABEL)
    if not owner or owner == labels[OWNER_LABEL] or _label(volume, HOME_LABEL) != labels[HOME_LABEL]:
        return None
    name = volume.get("Name", "")
    log.warning("The volume %s belongs to %s, not to %s.", name, owner, labels[OWNER_LABEL])
    return notice(
        "not-persistent",
        f"The volume {name} belongs to another JupyterHub: nothing is mounted at your home.",
        "Ask your administrator to give this hub a home_volume of its own.",
    )


def _refused(error: APIError) -> dict[str, str] | None:
    """Return a notice for what is a refusal; a fault of the engine may be over the next time."""
    if not error.is_client_error() and error.status_code != 501:
        return None
    log.warning("The engine refuses volumes: %s", error)
    return notice(
        "not-persistent",
        "The container engine refuses volumes: nothing is mounted at your home.",
        "Ask your administrator to allow volumes, or to mount something at the home.",
    )
