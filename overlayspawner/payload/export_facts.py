"""What an export is made from, read from the overlay and its image."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Optional

from overlayspawner.payload import dists, lockfile
from overlayspawner.payload.context import Context
from overlayspawner.payload.export import Facts
from overlayspawner.payload.installer import index
from overlayspawner.payload.pylock import Locked
from overlayspawner.payload.requirements import Requirements


def read(ctx: Context, environ: Optional[Mapping[str, str]] = None) -> Facts:
    """Return the facts of an overlay as it is now.

    Parameters
    ----------
    environ:
        Where pip's settings are looked for; the process's own when left out.

    Raises
    ------
    OverlayError
        ``no-overlay``.
    """
    overlay, env = ctx.require()
    base, spec = ctx.base, ctx.spec
    lock = lockfile.find(overlay, env)
    known = lock.packages if lock is not None else {}
    mine = dists.overlay_dists(env)
    packages = {}
    for name, dist in mine.items():
        item = known.get(name)
        if item is None or item.version != dist.version:
            item = Locked(name, dist.version, compiled=lockfile.compiled_here(dist))
        packages[name] = item
    image = dists.base_dists(ctx)
    text = Requirements.read(overlay.requirements).to_text()
    there = {**image, **mine}
    roots = [(entry.name, entry.extras) for entry in Requirements(text).entries() if entry.name in there]
    reached = dists.needs([*roots, *((name, ()) for name in mine)], there.get)
    settings = index.settings(ctx, os.environ if environ is None else environ)
    pip = dists.image_dists(base).get("pip")
    return Facts(
        name=overlay.name,
        kind=overlay.kind,
        text=text,
        administrator=list(spec.requirements),
        packages=packages,
        hidden={name: image[name].version for name in mine if name in image},
        image_needs={
            name: image[name].version for name in sorted(reached) if name in image and name not in mine
        },
        missing=_missing([*Requirements(text).lines, *spec.requirements], there),
        image=spec.image,
        python=base.full_version,
        machine=base.machine,
        executable=base.executable,
        sites=[d for d in base.site_dirs if d.startswith(base.prefix + os.sep)] if base.is_venv else [],
        system_site=base.system_site,
        pip=pip.version if pip is not None else "",
        managed=os.path.exists(os.path.join(os.path.dirname(os.__file__), "EXTERNALLY-MANAGED"))
        and sys.prefix == sys.base_prefix,
        user=str(os.geteuid()),
        writable=bool(base.site_dirs) and os.access(base.site_dirs[-1], os.W_OK),
        index_url=settings.get("index-url", ""),
        extra_index_urls=settings.get("extra-index-url", "").split(),
        trusted_hosts=settings.get("trusted-host", "").split(),
    )


def _missing(lines: list[str], there: Mapping[str, object]) -> list[str]:
    """Return the requirements that apply here and whose package is not there."""
    out = []
    for line in lines:
        for entry in Requirements(line).entries():
            if entry.name and entry.name not in there and not entry.marker:
                out.append(entry.text)
    return out
