"""Part of the wheel's build: the panel also where JupyterLab looks for it.

A checkout in which nobody has run ``make labextension`` builds and installs as well, without the panel; hatch
by itself refuses to take along a directory that is not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "overlayspawner/labextension"
TARGET = "share/jupyter/labextensions/overlayspawner"


class PanelHook(BuildHookInterface):
    """Adds the built front end to the wheel's data, where there is one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Take it along, but for an editable install: there, what is built later is found otherwise."""
        source = Path(self.root) / SOURCE
        if version == "editable" or not (source / "package.json").is_file():
            return
        data = f"{self.metadata.core.raw_name.replace('-', '_')}-{self.metadata.version}.data/data"
        build_data["force_include"][str(source)] = f"{data}/{TARGET}"
