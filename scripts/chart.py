#!/usr/bin/env python3
"""Package the Helm chart, with the wheel of the same sources in it.

    python scripts/chart.py [--out dist] [--dependency FILE]

Writes ``OUT/overlayspawner-VERSION.tgz``, to be installed with ``helm install``. The wheel is repacked: it
has only what a hub needs, is stored and then compressed as a whole, because Helm keeps a chart and what it
renders in one Secret of a megabyte at most. Chart and wheel can't differ: both have the version of
``pyproject.toml``.

``--dependency`` is zero-to-jupyterhub's chart as a file. Without it, the file is taken from
``$OVERLAY_TEST_ASSETS/charts`` or ``../shared/charts`` where there is one, else from its public repository.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import tomllib
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from overlayspawner.hub.payload_zip import lean  # noqa: E402

SOURCE = ROOT / "helm" / "overlayspawner"
SCHEMA = SOURCE / "values.schema.yaml"
HELM = ROOT / ".cache" / "helm" / "helm"
_UNCHANGING = (1980, 1, 1, 0, 0, 0)

MAX_RELEASE = 1_000_000
"""Bytes of what Helm stores of a release; a Secret holds 1,048,576."""


def fail(text: str) -> None:
    """End, saying why."""
    sys.exit(f"chart: {text}")


def version() -> str:
    """Return the version of this project."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def program() -> str:
    """Return Helm's program; it is fetched where there is none."""
    found = shutil.which("helm")
    if found is None and not HELM.exists():
        subprocess.run([str(ROOT / "scripts" / "tools.sh"), "helm"], check=True)
    return found or str(HELM)


def helm(*arguments: str) -> str:
    """Run Helm, and return what it prints."""
    done = subprocess.run([program(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def make_wheel() -> bytes:
    """Build the wheel and return it repacked: stored, the same bytes for the same sources."""
    with tempfile.TemporaryDirectory() as scratch:
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", scratch, str(ROOT)]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fail(f"the wheel could not be built:\n{done.stdout}{done.stderr}")
        (path,) = Path(scratch).glob("*.whl")
        out = io.BytesIO()
        with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
            for name in sorted(wheel.namelist()):
                # for images it is installed into; and it lists what was in the other wheel
                if ".data/" in name or name.endswith("/RECORD"):
                    continue
                data = wheel.read(name)
                # what is delivered to users' servers is made in this way out of it, too: it stays the same
                data = lean(data) if name.endswith(".py") else data
                packed.writestr(zipfile.ZipInfo(name, _UNCHANGING), data)
    return out.getvalue()


def dependency() -> Path | None:
    """Return zero-to-jupyterhub's chart where this machine has it as a file."""
    places = [os.environ.get("OVERLAY_TEST_ASSETS", ""), str(ROOT.parent / "shared")]
    found = [
        path for place in places if place for path in sorted(Path(place, "charts").glob("jupyterhub-*.tgz"))
    ]
    return found[0] if found else None


def write_chart(target: Path, chart: Path | None) -> None:
    """Write the chart, complete but not packed.

    Parameters
    ----------
    target:
        A directory that does not exist yet.
    chart:
        zero-to-jupyterhub's, as a file; ``None`` to fetch it.
    """
    shutil.copytree(SOURCE, target)
    wheel = lzma.compress(make_wheel(), preset=9 | lzma.PRESET_EXTREME)
    (target / "files").mkdir()
    (target / "files" / "overlayspawner.whl.xz").write_bytes(wheel)
    for name, old, new in (
        ("Chart.yaml", "0.0.0", version()),
        ("values.yaml", "@WHEEL@", hashlib.sha256(wheel).hexdigest()[:12]),
    ):
        path = target / name
        text = path.read_text()
        assert old in text, f"{name} has no {old}"
        path.write_text(text.replace(old, new))
    (target / "values.schema.yaml").unlink()
    schema = yaml.safe_load(SCHEMA.read_text())
    (target / "values.schema.json").write_text(json.dumps(schema, indent=1) + "\n")
    if chart is None:
        helm("dependency", "update", str(target))
    else:
        (target / "charts").mkdir()
        shutil.copy(chart, target / "charts")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--dependency", type=Path, default=dependency())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "overlayspawner"
        write_chart(target, options.dependency)
        options.out.mkdir(parents=True, exist_ok=True)
        print(helm("package", str(target), "--destination", str(options.out)).strip())


if __name__ == "__main__":
    main()
