"""Requirement strings and request bodies that nobody should send: the same ones for the same seed."""

from __future__ import annotations

import random
from typing import Any

from overlayspawner.payload.server import body

NAMES = ("tinyleaf", "tinytree", "Tiny_Leaf", "no-such-thing", "a", "zope.interface", "tinyleaf[extra]")
VERSIONS = ("==1.0", ">=1", "~=1.0", "<2,>=1", "!=1.*", "===x", "==", ">", "=1.0", "(>=1)", "==1.0+local")
MARKERS = (
    "; python_version>'3'",
    ";extra=='x'",
    "; os_name == '-r {canary}'",
    ";",
    "; __import__('os').system('x')",
    "; python_version > '3' --pre",
)
ENDS = ("\n", "\r", "\r\n", "\t", "\v", "\f", "\0", "\x1b", "\x85", "\u2028", "\u2029", "\x7f", "\\\n", " \\")
ODD = (
    "\u00a0",
    "\u200b",
    "\ufeff",
    "\u202e",
    "\uff0d",
    "\u2010",
    "\u2212",
    "\ud800",
    "\udcff",
    "\U0001f600",
    "é",
)
LOOKALIKE = (
    # letters, digits and hyphens of other scripts
    "tin\u0443leaf",
    "\uff54\uff49\uff4e\uff59",
    "tiny\u2010leaf",
    "\ufb01le",
    "\u2167",
    "\u0661",
    "tinyleaf\u0301",
    "--\uff50\uff52\uff45",
    "\u2010r {canary}",
)
OPTIONS = (
    "-r {canary}",
    "-r{canary}",
    "--requirement={canary}",
    "-c {canary}",
    "--constraint {canary}",
    "-e {canary}",
    "-e .",
    "--editable=/etc",
    "--index-url=http://127.0.0.1:9/",
    "--index-url http://127.0.0.1:9/",
    "-i http://127.0.0.1:9/",
    "--extra-index-url=http://127.0.0.1:9/",
    "-f {canary}",
    "--find-links={canary}",
    "--trusted-host=x",
    "--no-index",
    "--pre",
    "--hash=sha256:00",
    "--config-settings=x=y",
    "--global-option=x",
    "--target=/etc",
    "--prefix=/",
    "--python={canary}",
    "-t /",
    "--",
    "-",
    "---",
    "-h",
    "--json",
    "--runtime=/etc",
)
PLACES = (
    "{canary}",
    "./{canary}",
    "file://{canary}",
    "@{canary}",
    "../../../../etc/passwd",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    ".",
    "..",
    "/",
    "~",
    "{canary}/x.tar.gz",
    "javascript:alert(1)",
    "data:text/plain,x",
    "ftp://h/x.whl",
    "https:///x.whl",
    "https://user:secret@127.0.0.1:9/x.whl",
    "https://${SECRET}@127.0.0.1:9/",
    "git+ssh://-oProxyCommand=x/y",
    "git+https://127.0.0.1:9/r@--upload-pack=x",
    "https://[::1",
    "https://h:99999999/x.whl",
    "file:///%00/%2e%2e/x-1-py3-none-any.whl",
)
VARIABLES = ("${SECRET}", "$SECRET", "${HOME}", "$(id)", "`id`", "%SECRET%", "{{SECRET}}", "~")


def requirement(rng: random.Random, canary: str) -> str:
    """Return a text that may stand where a requirement belongs; a few are proper ones."""
    name, version = rng.choice(NAMES), rng.choice((*VERSIONS, ""))
    kind = rng.randrange(12)
    if kind == 0:
        out = rng.choice(OPTIONS)
    elif kind == 1:
        out = f"{name}{version}{rng.choice(ENDS)}{rng.choice(OPTIONS)}"
    elif kind == 2:
        out = f"{name}{version} {rng.choice(OPTIONS)}"
    elif kind == 3:
        out = f"{name} @ {rng.choice(PLACES)}"
    elif kind == 4:
        out = rng.choice(PLACES)
    elif kind == 5:
        out = f"{name}{version}{rng.choice(MARKERS)}"
    elif kind == 6:
        out = f"{rng.choice((name, ''))}{rng.choice(VARIABLES)}{version}"
    elif kind == 7:
        out = f"{rng.choice(LOOKALIKE)}{version}"
    elif kind == 8:
        out = rng.choice((name, version, "[", "(", "a,", "1.")) * rng.choice((50, 500, 5_000))
    elif kind == 9:
        out = "".join(
            rng.choice((*NAMES, *VERSIONS, *ENDS, *ODD, *OPTIONS, " ", "#", ";", "@")) for _ in range(4)
        )
    elif kind == 10:
        out = "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(rng.randrange(30))
        )
    else:
        out = f"{name}{version}"
        at = rng.randrange(len(out) + 1)
        out = out[:at] + rng.choice((*ENDS, *ODD, *VARIABLES)) + out[at:]
    return out.replace("{canary}", canary)


def value(rng: random.Random, canary: str, depth: int = 0) -> Any:
    """Return something that JSON can say."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return requirement(rng, canary)
    if kind == 2:
        return rng.choice((None, True, False, 0, -1, 1 << 70, 1e308, float("nan"), ""))
    if kind == 3:
        return rng.randrange(-5, 5)
    if kind in (4, 5):
        return [requirement(rng, canary) for _ in range(rng.choice((0, 1, 2, 201)))]
    if kind == 6:
        return [value(rng, canary, depth + 1) for _ in range(3)]
    return {requirement(rng, canary): value(rng, canary, depth + 1)}


FIELDS = ("action", "install", "uninstall", "upgrade", "revision", "source", "mode", "force", "expect")


def data(rng: random.Random, canary: str) -> Any:
    """Return the body of a request, as data."""
    if rng.random() < 0.05:
        return value(rng, canary)
    out: dict[str, Any] = {}
    if rng.random() < 0.7:
        out["action"] = rng.choice((*body.ACTIONS, value(rng, canary)))
    for _ in range(rng.randrange(3)):
        field = rng.choice((*FIELDS, requirement(rng, canary)))
        out[field] = [requirement(rng, canary)] if rng.random() < 0.6 else value(rng, canary)
    return out


def raw(rng: random.Random, text: bytes) -> bytes:
    """Return what a body's bytes may become on their way: cut off, doubled keys, deep, not UTF-8."""
    kind = rng.randrange(12)
    if kind == 0:
        return text[: rng.randrange(len(text) + 1)]
    if kind == 1:
        return text.replace(b"{", b'{"action": "install", ', 1)
    if kind == 2:
        return b'{"install": ' + b"[" * rng.choice((10, 2_000, 50_000)) + text
    if kind == 3:
        at = rng.randrange(len(text) + 1)
        return text[:at] + bytes([rng.randrange(256)]) + text[at:]
    if kind == 4:
        return text.decode().encode("utf-16")
    return text
