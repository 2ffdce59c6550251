#!/usr/bin/env python3
"""Sixty real requests, planned by us and resolved by pip, on a scientific base: are they the same?

    python benchmarks/sixty.py [--only NAME ...] [--installer uv|pip]

Each is planned for an empty overlay; pip resolves it in the same environment (``--dry-run --report``). Both
ask PyPI. Printed is a table in Markdown with names and versions wherever the two differ, whether pip's own
result leaves anything of the image without what it needs, and how long the plans took. A difference counts as
explained where ours leaves more of the image's packages in sight and breaks none of them; see
docs/explanation/resolution.md.

The exit code is 1 where another one is found although pip's result is consistent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scientific import scientific_base
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import base_dists, requires
from overlayspawner.payload.installer.index import pip_env
from overlayspawner.payload.planning import plan
from overlayspawner.payload.requirements import normalise, packaging
from tests.support.envs import make_context

REQUESTS = [
    "humanize",
    "seaborn",
    "scikit-learn",
    "statsmodels",
    "xarray",
    "xarray[accel,io]",
    "polars",
    "pyarrow",
    "numba",
    "networkx",
    "geopandas",
    "shapely",
    "rasterio",
    "cartopy",
    "folium",
    "ipyleaflet",
    "plotly",
    "dash",
    "holoviews",
    "hvplot",
    "panel",
    "datashader",
    "bokeh>=3.8",
    "altair>=6",
    "astropy",
    "sunpy",
    "mne",
    "nilearn",
    "nibabel",
    "pydicom",
    "biopython",
    "scanpy",
    "anndata",
    "zarr",
    "h5netcdf",
    "netcdf4",
    "pynwb",
    "dandi",
    "dask[complete]",
    "distributed",
    "intake",
    "xgboost",
    "lightgbm",
    "optuna",
    "spacy",
    "nltk",
    "gensim",
    "transformers",
    "pandas<2.3",
    "numpy<2",
    "scipy>=1.17",
    "fastapi[standard]",
    "django",
    "flask",
    "sqlalchemy<2",
    "httpx[http2]",
    "boto3",
    "pydantic<2",
    "celery[redis]",
    "scrapy",
]


def ours(ctx: Context, request: str) -> tuple[dict[str, str] | str, float]:
    """Return what our plan brings, or the code of its refusal; and the seconds it took."""
    begin = time.perf_counter()
    try:
        found = plan(ctx, install=[request])
    except OverlayError as e:
        return e.code, time.perf_counter() - begin
    return {item["name"]: item["version"] for item in found["new"]}, time.perf_counter() - begin


def pips(ctx: Context, request: str) -> dict[str, str] | str:
    """Return what pip would bring, or the end of what it says."""
    _, env = ctx.require()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        done = subprocess.run(
            [env.python, "-m", "pip", "install", "--quiet", "--dry-run", "--report", report, request],
            env={**pip_env(ctx), "PATH": os.environ["PATH"], "HOME": ctx.home},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["nothing was said"])[-1][:200]
        items = json.loads(report.read_text())["install"]
    return {normalise(item["metadata"]["name"]): item["metadata"]["version"] for item in items}


def broken(base: dict[str, tuple[str, list[str]]], new: dict[str, str]) -> list[str]:
    """Return what of the image would miss something that it has now."""
    library: Any = packaging()
    out = []
    for name, (_, lines) in base.items():
        if name in new:
            continue
        for line in lines:
            need = library.requirements.Requirement(line)
            target = normalise(need.name)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            if target not in new or target not in base:
                continue
            met, stays = (
                need.specifier.contains(v, prereleases=True) for v in (base[target][0], new[target])
            )
            if met and not stays:
                out.append(f"{name} needs {need.name}{need.specifier}")
    return out


def difference(mine: dict[str, str] | str, theirs: dict[str, str] | str) -> str:
    """Say what differs; ``""`` where nothing does."""
    if isinstance(mine, str) or isinstance(theirs, str):
        if isinstance(mine, str) and isinstance(theirs, str):
            return ""
        return "; ".join(
            f"{who}: {what if isinstance(what, str) else 'a plan'}"
            for who, what in (("ours", mine), ("pip", theirs))
        )
    rows = [
        f"{name} {mine.get(name, '-')} / {theirs.get(name, '-')}"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    return ", ".join(rows)


def kinder(dists: dict[str, tuple[str, list[str]]], mine: object, theirs: object) -> bool:
    """Whether ours hides fewer packages of the image than pip's, and breaks none."""
    if not isinstance(mine, dict) or not isinstance(theirs, dict) or broken(dists, mine):
        return False
    return len(mine.keys() & dists.keys()) < len(theirs.keys() & dists.keys())


def main() -> int:
    """Run it; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=REQUESTS, metavar="REQUIREMENT")
    parser.add_argument("--installer", default="uv")
    options = parser.parse_args()
    base = scientific_base()
    # uv as an image has it
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="sixty-") as folder:
        ctx = make_context(Path(folder, "home"), base, installer=options.installer)
        dists = {name: (dist.version, requires(dist)) for name, dist in base_dists(ctx).items()}
        print(f"The base holds {len(dists)} distributions.\n")
        print("| request | new | plan | ours / pip where they differ | pip's result would break |")
        print("|---|---|---|---|---|", flush=True)
        times, wrong, same = [], 0, 0
        for request in options.only:
            mine, first = ours(ctx, request)
            theirs = pips(ctx, request)
            again, warm = ours(ctx, request)
            differs = difference(mine, theirs)
            breaks = broken(dists, theirs) if isinstance(theirs, dict) else []
            times.append(warm)
            same += not differs
            if differs and kinder(dists, mine, theirs):
                differs += " (ours hides less of the image)"
            elif differs and not breaks:
                wrong += 1
            count = str(len(mine)) if isinstance(mine, dict) else mine
            if again != mine:
                differs += " (and ours came out differently a second time)"
            print(
                f"| `{request}` | {count} | {first:.1f} / {warm:.2f} s | {differs or 'same'} "
                f"| {'; '.join(breaks[:3])} |",
                flush=True,
            )
    print(
        f"\n{same} of {len(options.only)} the same; {wrong} differ otherwise, pip's being consistent."
        f" Plans, warm: median {statistics.median(times):.2f} s, longest {max(times):.2f} s."
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
