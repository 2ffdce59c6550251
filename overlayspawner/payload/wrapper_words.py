"""What is said besides what pip and uv print: where their words leave a user of an overlay helpless."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from overlayspawner.payload.dists import base_dists, by_name, listing, overlay_dists, user_site

if TYPE_CHECKING:
    from overlayspawner.payload.asked import Command
    from overlayspawner.payload.context import Context


def without_user(words: Sequence[str]) -> list[str]:
    """Return a command of pip without ``--user``, and say why.

    In an overlay pip either refuses it or installs into ``~/.local``, where another image's Python may see
    it. Who types it wants what an overlay is: packages of one's own.
    """
    end = words.index("--") if "--" in words else len(words)
    say(["--user is left out: packages go into your overlay, which is yours alone."])
    return [word for n, word in enumerate(words) if word != "--user" or n > end]


def after_uninstall(ctx: Context, names: Sequence[str], before: Collection[str]) -> list[str]:
    """Say what became of packages that were to be uninstalled, where the image or ``~/.local`` has them.

    Parameters
    ----------
    names:
        Normalised, as they were asked for.
    before:
        Names of what the overlay held.
    """
    image, own = base_dists(ctx), by_name(listing(user_site(ctx)))
    left = overlay_dists(ctx.require()[1])
    out = []
    for name in names:
        if name in left:
            continue
        if name in before and name in image:
            out.append(f"{name} {image[name].version} of the image is used again.")
        elif name in image:
            version = image[name].version
            out += [
                f"{name} {version} belongs to the image and stays: it can't be removed here.",
                f"Another version of your own would hide it: overlay install {name}==VERSION",
                "An environment without the image's packages: overlay create NAME --kind isolated",
            ]
        elif name in own:
            out.append(
                f"{name} {own[name].version} is in ~/.local, outside of the overlay. To remove it there:"
                f" {ctx.base.executable} -m pip uninstall {name}"
            )
    return out


def hidden(ctx: Context, command: Command, before: Collection[str]) -> list[str]:
    """Say which packages of the image an installation has hidden.

    Parameters
    ----------
    before:
        Names of what the overlay held.
    """
    if command.verb == "uninstall" or "--quiet" in command.options:
        return []
    image = base_dists(ctx)
    return [
        f"{name} {dist.version} hides {image[name].version} of the image."
        for name, dist in sorted(overlay_dists(ctx.require()[1]).items())
        if name in image and name not in before
    ]


def say(lines: Sequence[str]) -> None:
    """Print lines of ours among those of a tool."""
    for line in lines:
        print("overlay: " + "".join(c if c.isprintable() else "?" for c in line), file=sys.stderr)
