"""The hub's configuration out of the values of the Helm chart, and what the chart's values may be.

Run in the hub of zero-to-jupyterhub by the chart's ``hub.extraConfig``. Values are named in that chart's way:
``overlay_index_url`` is ``global.overlayspawner.indexUrl``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from jupyterhub.traitlets import ByteSpecification, Command
from traitlets import Bool, Enum, Float, List, TraitType, Unicode, Union

from overlayspawner.hub.kube import OverlayKubeSpawner

if TYPE_CHECKING:
    from collections.abc import Mapping

SPAWNER = "overlayspawner.hub.kube.OverlayKubeSpawner"
_PREFIX = "overlay_"
_CALLABLE = "A value, or a callable that takes the spawner and returns one; it may be async."


def configure(c: Any, values: Mapping[str, Any] | None) -> None:
    """Set the spawner's class and its settings.

    Parameters
    ----------
    c:
        The hub's configuration.
    values:
        ``global.overlayspawner`` of the chart's values. What is ``None`` stays as it is.

    Raises
    ------
    ValueError
        A name is none of a setting. The chart's schema refuses it before, unless it came out of a Secret.
    """
    c.JupyterHub.spawner_class = SPAWNER
    traits = settings()
    for name, value in (values or {}).items():
        if name not in traits:
            raise ValueError(
                f"global.overlayspawner.{name} is no setting; there are {', '.join(sorted(traits))}"
            )
        if value is not None:
            setattr(c.OverlayKubeSpawner, traits[name], value)


def settings() -> dict[str, str]:
    """Return the settings: name in the chart → trait."""
    names = [name for name in OverlayKubeSpawner.class_traits(config=True) if name.startswith(_PREFIX)]
    return {_camel(name): name for name in sorted(names)}


def schema() -> dict[str, Any]:
    """Return the JSON schema of the chart's values."""
    traits = OverlayKubeSpawner.class_traits(config=True)
    ours = {name: _described(traits[trait]) for name, trait in settings().items()}
    logs = "Lets the hub read what pods print, to say more precisely why a server did not start."
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart overlayspawner",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": {
                "type": "object",
                "properties": {
                    "overlayspawner": {
                        "description": "Settings of overlays. Like all values they go into a Secret.",
                        "type": ["object", "null"],
                        "additionalProperties": False,
                        "properties": ours,
                    }
                },
            },
            "podLogs": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"enabled": {"description": logs, "type": "boolean"}},
            },
            "jupyterhub": {
                "description": "Values of zero-to-jupyterhub, which has a schema of its own for them.",
                "type": "object",
            },
        },
    }


def _camel(trait: str) -> str:
    first, *others = trait.removeprefix(_PREFIX).split("_")
    return first + "".join(word.title() for word in others)


def _described(trait: TraitType[Any, Any]) -> dict[str, Any]:
    text = inspect.cleandoc((trait.help or "").removesuffix(_CALLABLE))
    return {"description": text.split("\n\n")[0].replace("\n", " "), **_type(trait)}


def _type(trait: TraitType[Any, Any]) -> dict[str, Any]:
    """Return what a value of a trait looks like in JSON; ``null`` always stands for the default."""
    kinds = trait.trait_types if isinstance(trait, Union) else [trait]
    found = [schema for kind in kinds if (schema := _one(kind))]
    return {"anyOf": [*found, {"type": "null"}]}


def _one(trait: TraitType[Any, Any]) -> dict[str, Any] | None:
    if isinstance(trait, Union):
        return {"anyOf": [schema for kind in trait.trait_types if (schema := _one(kind))]}
    if isinstance(trait, Bool):
        return {"type": "boolean"}
    if isinstance(trait, Enum):
        return {"type": "string", "enum": list(trait.values or [])}
    if isinstance(trait, Command):
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    if isinstance(trait, List):
        return {"type": "array", "items": {"type": "string"}}
    if isinstance(trait, Unicode):
        return {"type": "string"}
    if isinstance(trait, ByteSpecification):
        return {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9.]+[KMGT]?$"}]
        }
    if isinstance(trait, Float):
        return {"type": "number"}
    return None  # a callable
