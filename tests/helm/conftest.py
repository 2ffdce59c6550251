"""The chart, packaged once; and what Helm makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import chart as packaging  # noqa: E402  (of scripts)

Objects = dict[tuple[str, str], dict[str, Any]]


class Helm:
    """Renders the chart as ``helm install`` would.

    Parameters
    ----------
    chart:
        The packaged chart.
    plain:
        zero-to-jupyterhub's own.
    """

    def __init__(self, chart: Path, plain: Path) -> None:
        self.chart, self.plain = chart, plain

    def run(self, *arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Helm; nothing is raised when it fails."""
        more = ["--values", "-"] if values is not None else []
        return subprocess.run(
            [packaging.program(), *arguments, *more],
            input=json.dumps(values or {}),
            capture_output=True,
            text=True,
            check=False,
        )

    def objects(
        self, values: dict[str, Any] | None = None, *, plain: bool = False, version: str = "1.34.0"
    ) -> Objects:
        """Return what would be created: kind and name → object.

        Parameters
        ----------
        plain:
            By zero-to-jupyterhub's own chart.
        version:
            Of Kubernetes.
        """
        chart = self.plain if plain else self.chart
        done = self.run("template", "rel", str(chart), "--kube-version", version, values=values or {})
        assert done.returncode == 0, done.stderr
        found = [item for item in yaml.safe_load_all(done.stdout) if item]
        return {(item["kind"], item["metadata"]["name"]): item for item in found}

    def refusal(self, values: dict[str, Any]) -> str:
        """Return what Helm says to values that it refuses."""
        done = self.run("template", "rel", str(self.chart), "--kube-version", "1.34.0", values=values)
        assert done.returncode != 0, "it was taken"
        return done.stderr


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The chart of this checkout, packaged as for a release."""
    folder = tmp_path_factory.mktemp("chart")
    plain = packaging.dependency()
    if plain is None:
        packaging.helm(
            "pull",
            "jupyterhub",
            "--repo",
            "https://hub.jupyter.org/helm-chart/",
            "--destination",
            str(folder),
        )
        (plain,) = folder.glob("jupyterhub-*.tgz")
    packaging.write_chart(folder / "overlayspawner", plain)
    packaging.helm("package", str(folder / "overlayspawner"), "--destination", str(folder))
    (chart,) = folder.glob("overlayspawner-*.tgz")
    return Helm(chart, plain)
