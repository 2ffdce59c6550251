"""The base that benchmarks of real packages stand on: a venv as scientific images have it, made from PyPI."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from overlayspawner.payload.probe import Base
from tests.support.envs import ROOT, describe, make_base

HOLDS = [
    "altair<6",
    "beautifulsoup4",
    "bokeh<3.8",
    "cloudpickle",
    "dask[dataframe]<2026",
    "dill",
    "h5py",
    "ipykernel",
    "ipywidgets",
    "jupyterhub<6",
    "jupyterlab",
    "matplotlib<3.10.8",
    "notebook",
    "numexpr",
    "numpy<2.4",
    "openpyxl",
    "pandas<3",
    "pip",
    "protobuf<7",
    "requests",
    "scikit-image<0.26",
    "scipy<1.17",
    "sqlalchemy",
    "sympy",
]
"""As ``scipy-notebook`` has it, some months old: what is asked for meets older versions than the newest."""

FOLDER = ROOT / ".cache" / "scientific"


def scientific_base() -> Base:
    """Make the venv where it is missing (some minutes); return its description."""
    key = hashlib.sha256(f"{sys.version}\n{HOLDS}".encode()).hexdigest()[:12]
    made = FOLDER / key
    if (made / "complete").exists():
        return describe(made)
    shutil.rmtree(made, ignore_errors=True)
    print(f"making {made.relative_to(ROOT)} from PyPI", file=sys.stderr, flush=True)
    base = make_base(made)
    uv = Path(sys.executable).parent / "uv"
    environ = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", made / "bin" / "python", *HOLDS],
        check=True,
        env=environ,
    )
    (made / "complete").touch()
    return base
