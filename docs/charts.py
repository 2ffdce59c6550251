"""The reference of the Helm chart's values, out of their schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from overlayspawner.hub import chart

SCHEMA = Path(__file__).resolve().parent.parent / "helm" / "overlayspawner" / "values.schema.yaml"

_HEAD = "# Made by docs/generate.py out of the settings of OverlayKubeSpawner. Do not edit.\n"

_PAGE = """# Values of the Helm chart

See [Kubernetes](../how-to/kubernetes.md) for how to use them. The chart refuses other names and types. `null`
stands for the default everywhere. What a setting does in full is in [Settings](settings.md), under the
name in the last column.

## `global.overlayspawner`

| value | type | what | setting |
|---|---|---|---|
{settings}

## Others

| value | type | what |
|---|---|---|
| `podLogs.enabled` | boolean | {logs} Adds a Role with `get` on `pods/log`. |
| `jupyterhub` | object | {theirs} |
"""


def schema_text() -> str:
    """Return the schema as the file that the chart is made with."""
    return _HEAD + yaml.safe_dump(chart.schema(), sort_keys=False, width=110, allow_unicode=True)


def page() -> str:
    """Return the page of the chart's values."""
    found = chart.schema()["properties"]
    ours = found["global"]["properties"]["overlayspawner"]["properties"]
    traits = chart.settings()
    rows = [
        f"| `{name}` | {_kind(value)} | {_cell(value['description'])} | `{traits[name]}` |"
        for name, value in ours.items()
    ]
    return _PAGE.format(
        settings="\n".join(rows),
        logs=found["podLogs"]["properties"]["enabled"]["description"],
        theirs=found["jupyterhub"]["description"],
    )


def _cell(text: str) -> str:
    return text.rstrip(":").replace("``", "`").replace("|", "\\|")


def _kind(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        kinds = [_kind(item) for item in value["anyOf"]]
        return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "null")
    if "enum" in value:
        return ", ".join(f"`{item}`" for item in value["enum"])
    return "list of strings" if value["type"] == "array" else str(value["type"])
