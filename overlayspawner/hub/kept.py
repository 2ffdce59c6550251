"""Containers that are kept from one start to the next (``remove = False``): replaced when out of date."""

from __future__ import annotations

from typing import Any

from docker.errors import NotFound

from overlayspawner.hub import progress
from overlayspawner.hub.compose import SPEC_LABEL
from overlayspawner.hub.image_facts import parse_env
from overlayspawner.hub.output import secrets_of
from overlayspawner.hub.resume import reason_to_keep
from overlayspawner.payload.contract import CODES


async def resume(spawner: Any) -> None:
    """Remove an existing container that is out of date, if nothing is lost with it.

    Parameters
    ----------
    spawner:
        The ``OverlayDockerSpawner`` that is about to start it.

    Raises
    ------
    docker.errors.APIError
        The engine does not answer as expected.
    """
    engine = await spawner._overlay_connect()
    try:
        obj = await engine.run(engine.client.inspect_container, spawner.object_name)
    except NotFound:
        return
    config = obj.get("Config") or {}
    spawner._overlay_secrets |= secrets_of(parse_env(config.get("Env")))
    label = (config.get("Labels") or {}).get(SPEC_LABEL)
    if label is None:
        _tell_old(spawner, "it was created without an overlay")
        return
    await spawner._overlay_create("plan")
    plan = spawner._overlay_plan
    assert plan is not None
    if plan.hash == label and spawner._overlay_choice is None:
        return
    diff = await engine.run(engine.client.diff, obj["Id"])
    keep = reason_to_keep(obj, plan, diff)
    if keep:
        _tell_old(spawner, keep)
        return
    why = "its settings have changed" if plan.hash != label else "this start is a different one"
    spawner.log.info("Recreating %s: %s", spawner.object_name, why)
    spawner._overlay_say(progress.CREATE, f"Replacing the container: {why}")
    spawner.object_id = obj["Id"]
    await spawner.stop_object()
    await spawner.remove_object()


def _tell_old(spawner: Any, why: str) -> None:
    sentence = f"{CODES['old-container']} It is started as it is, because {why}."
    if spawner._overlay_choice is not None:
        sentence = (
            f"This container can't be replaced, because {why}: it is started as it is. In a terminal, "
            f"`overlay {spawner._overlay_choice.what}` does what you asked for."
        )
    spawner.log.warning("%s: [old-container] %s", spawner._log_name, sentence)
    spawner._overlay_say(progress.CREATE, sentence)
