"""An overlay as a Dockerfile, or as one line that starts its image and rebuilds it there. Pure.

Everything that is not ours goes through :func:`word` into the inner script and through ``shlex.quote`` around
it: what a user, an index or an administrator wrote stays one word of the ``printf`` that writes the list of
packages, whatever it holds. There is no here-document: BuildKit alone knows them.
"""

from __future__ import annotations

import re
import shlex

from overlayspawner.payload.export import VARIABLE, Facts, about, bare, pins, sources, told, variables
from overlayspawner.payload.requirements import numbers

LONGEST = 131_071
"""Bytes that one word of a command may have on Linux."""

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_LIST = '"%s\\n"'
_VENV = "/opt/overlay"


def word(text: str) -> str:
    """Return a text as one word of a shell, in double quotes where these do."""
    quoted = shlex.quote(text)
    if quoted == text or re.search(r'["$`\\!]', text):
        return quoted
    return f'"{text}"'


def _qualified(image: str) -> str:
    """Return the name with Docker's own registry, which other engines don't take for granted.

    Only what has a digest is certainly in a registry; another may have been built on the machine.
    """
    first, slash, _ = image.partition("/")
    if "@" not in image or (slash and (set(".:") & set(first) or first == "localhost")):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def image_of(facts: Facts, notes: list[str]) -> str:
    """Return the name of the image, ``""`` where it is not known."""
    if _IMAGE.fullmatch(facts.image):
        if "@" not in facts.image:
            notes.append(f"The image {facts.image} may be another one by then: its name has no digest.")
        return facts.image
    notes.append(
        f"The name of this server's image is not known: give one with Python {facts.short} as IMAGE."
    )
    return ""


def _packages(facts: Facts, notes: list[str], *, known: bool) -> list[str]:
    """Return what is to be installed: on another image, what this one gives as well."""
    told(facts, notes, same_image=True)
    found = pins(facts, notes)
    return found if known else [*found, *(f"{name}=={v}" for name, v in sorted(facts.image_needs.items()))]


# -- one line ---------------------------------------------------------------------------------------------


def line(facts: Facts, engine: str, notes: list[str]) -> str:
    """Return one line that starts the image and rebuilds the overlay there, in an environment of its own.

    It ends in a shell, or in the command that follows the line.

    Parameters
    ----------
    engine:
        ``docker``, ``podman`` or ``apptainer``.
    """
    image = image_of(facts, notes)
    packages = _packages(facts, notes, known=bool(image))
    first, more = sources(facts, notes)
    options = _options(facts, engine, packages, first, more)
    script = shlex.quote(_script(facts, packages, known=bool(image), keep=engine != "apptainer"))
    name = (
        word(_qualified(image) if engine == "podman" else image)
        if image
        else '"${IMAGE:?the name of an image}"'
    )
    if engine == "apptainer":
        words = ["apptainer", "exec", *options, f"docker://{name}", "sh"]
        notes.append("Apptainer shows your home directory to the container, with what is in ~/.local.")
    else:
        words = [engine, "run", "--rm", "-it", *options, "--entrypoint", "sh", name]
        notes.append("Without a terminal, leave out -it.")
    if len(script.encode()) > LONGEST:
        notes.append("This line is longer than Linux takes: use the Dockerfile.")
    notes.append("Write a command behind the line to run it instead of a shell.")
    return " ".join([*words, "-c", script, "overlay"]) + "\n"


def _options(facts: Facts, engine: str, packages: list[str], first: str, more: list[str]) -> list[str]:
    flag = "--env" if engine == "apptainer" else "-e"
    out = []
    if first:
        out += [flag, "PIP_INDEX_URL=" + expanded(first)]
    if more and not (engine == "apptainer" and any("," in url for url in more)):
        out += [flag, "PIP_EXTRA_INDEX_URL=" + expanded(" ".join(more))]
    if facts.trusted_hosts:
        out += [flag, "PIP_TRUSTED_HOST=" + word(" ".join(facts.trusted_hosts))]
    if engine != "apptainer":  # which hands the whole environment on
        for name in variables(packages):
            out += ["-e", name]
    return out


def expanded(text: str) -> str:
    """Return a text as one word of a shell in which ``${VARIABLE}`` is replaced, and nothing else."""
    parts = re.split(r"(\$\{[A-Z][A-Z0-9_]*\})", text)
    return "".join(f'"{part}"' if VARIABLE.fullmatch(part) else word(part) for part in parts if part)


def _script(facts: Facts, packages: list[str], *, known: bool, keep: bool) -> str:
    """Return what the shell in the container does."""
    python = word(facts.executable) if known else "python3"
    isolated = facts.kind == "isolated"
    # pip can act on another environment since 22.3; ensurepip is not in every image that has the module
    elsewhere = isolated and known and numbers(facts.pip) >= (22, 3)
    with_pip = not known or not facts.pip or (isolated and not elsewhere)
    system = not isolated and facts.system_site
    steps = ["set -e", "d=$(mktemp -d)"]
    if not keep:
        # /tmp is the host's there
        steps.append('trap "rm -rf $d" EXIT')
    flags = ("--system-site-packages " if system else "") + ("" if with_pip else "--without-pip ")
    steps.append(f"{python} -m venv {flags}$d")
    if facts.sites and known and not isolated:
        steps.append(
            f"printf {_LIST} {word(_pth(facts))} >$d/lib/python{facts.short}/site-packages/zzz-image.pth"
        )
    if packages:
        steps.append(f"printf {_LIST} {' '.join(map(word, packages))} >$d/overlay.txt")
        alone = "--no-deps " if known else ""
        pip = f"{python} -m pip --python $d" if elsewhere else "$d/bin/python -m pip"
        steps.append(f"PIP_USER=0 {pip} --disable-pip-version-check install -q {alone}-r $d/overlay.txt")
    steps += ["PATH=$d/bin:$PATH", "export PATH", "[ $# -gt 0 ] || set -- $(command -v bash || echo sh)"]
    steps.append('exec "$@"' if keep else '"$@"')
    return "; ".join(steps)


def _pth(facts: Facts) -> str:
    # as in the overlay's own: an environment made from a virtual one does not see its packages
    return f"import site; list(map(site.addsitedir, {facts.sites!r}))"


# -- Dockerfile -------------------------------------------------------------------------------------------


def dockerfile(facts: Facts, notes: list[str]) -> str:
    """Return a Dockerfile that puts the packages into the image."""
    image = image_of(facts, notes)
    packages = _packages(facts, notes, known=bool(image))
    first, more = sources(facts, notes)
    lines = [f"# {text}" for text in about(facts)]
    if image:
        lines.append(f"FROM {image}")
    else:
        lines += [
            "# The image is not known here. Choose one that has the same Python:",
            f"#   docker build --build-arg IMAGE=python:{facts.short}-slim .",
            "ARG IMAGE",
            "FROM ${IMAGE}",
        ]
    if not packages:
        return "\n".join(lines) + "\n"
    lines += _build_arguments(facts, first, more, variables(packages), notes)
    python = word(facts.executable) if image else "python3"
    before = ""
    if image and facts.kind == "isolated":
        elsewhere = numbers(facts.pip) >= (22, 3)
        before = f"{python} -m venv {'--without-pip ' if elsewhere else ''}{_VENV} \\\n && "
        python = f"{python} -m pip --python {_VENV}" if elsewhere else f"{_VENV}/bin/python -m pip"
        notes.append(f"The packages are in an environment of their own: {_VENV}/bin/python.")
    elif image and not facts.pip:
        before = f"{python} -m ensurepip \\\n && "
        python += " -m pip"
        notes.append("The image has no pip: ensurepip brings one, where the image has that.")
    else:
        python += " -m pip"
    root = image and facts.user != "0" and not (facts.writable and facts.kind != "isolated")
    managed = " PIP_BREAK_SYSTEM_PACKAGES=1" if facts.managed and facts.kind != "isolated" else ""
    alone = " --no-deps" if image else ""
    listed = "".join(f"      {word(package)} \\\n" for package in packages)
    lines += ["USER root"] if root else []
    pip = f"PIP_USER=0{managed} {python} install --no-cache-dir{alone}"
    lines.append(
        f"RUN printf {_LIST} \\\n{listed}      >/tmp/overlay.txt \\\n"
        f" && {before}{pip} -r /tmp/overlay.txt \\\n"
        " && rm /tmp/overlay.txt"
    )
    if root:
        lines.append(f"USER {facts.user}")
        notes.append(f"Only root may write there in this image; afterwards its user is {facts.user}.")
    if facts.hidden and facts.kind != "isolated":
        notes.append("In the new image they replace the image's own, for its programs as well.")
    return "\n".join(lines) + "\n"


def _build_arguments(
    facts: Facts, first: str, more: list[str], names: list[str], notes: list[str]
) -> list[str]:
    """Return the instructions that name indexes: build arguments, which are in no later environment."""
    out = []
    given = [("PIP_INDEX_URL", first), ("PIP_EXTRA_INDEX_URL", " ".join(more))]
    given.append(("PIP_TRUSTED_HOST", " ".join(facts.trusted_hosts)))
    for name, value in given:
        if not value:
            continue
        plain = bare(value)
        if plain != value:
            notes.append(f"{name} needs credentials: --build-arg {name}=…")
            names = [*names, name]
        # no variable is left in it, and Docker's own quotes are these
        quoted = plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        out.append(f'ARG {name}="{quoted}"')
    out += [f"ARG {name}" for name in names if not name.startswith("PIP_")]
    if names:
        notes.append("Build arguments can be read in the new image's history: use a token that expires.")
    return out
