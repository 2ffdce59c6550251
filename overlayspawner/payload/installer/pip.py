"""pip, made to leave the env alone: a dry run tells which files are missing, then exactly those are staged.

``pip install --prefix STAGE`` by itself won't do: it uninstalls from the live env while it goes along.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, Optional

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, image_dists, needs, overlay_dists
from overlayspawner.payload.installer import OnLine, pip_log
from overlayspawner.payload.installer.errors import failure
from overlayspawner.payload.installer.index import limits_of, pip_env
from overlayspawner.payload.installer.pip_progress import RAW, PipProgress
from overlayspawner.payload.installer.preview import Planned, hashes_of, other_file
from overlayspawner.payload.installer.progress import OnPackages
from overlayspawner.payload.installer.traces import temporary
from overlayspawner.payload.limits import Limits
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.procs import Cancel, redact, run
from overlayspawner.payload.requirements import normalise, numbers, parse
from overlayspawner.payload.stage import Stage

OLDEST = (22, 2)
"""The first pip with ``--dry-run --report``."""

OLDEST_TEXT = "22.2"

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", re.ASCII)

OLDEST_OTHER = (22, 3)
"""The first pip with ``--python``: it acts on an environment that has none."""

READS_FILE_REPOSITORIES = (24, 1)
"""The first that takes ``name @ git+file:///…``: its packaging no longer wants such a URL to name a host."""

_EGG = re.compile(r"^([A-Za-z0-9._-]+(?:\[[^\]]*\])?)\s*@\s*((?:git|hg|svn|bzr)\+file:///\S+)$")


def _egg(match: re.Match[str]) -> str:
    """Write a repository of this machine as it was written before PEP 508."""
    return f"{match[2]}{'&' if '#' in match[2] else '#'}egg={match[1]}"


class Pip:
    """pip behind the :class:`~overlayspawner.payload.installer.Installer` protocol.

    Parameters
    ----------
    version:
        Of the pip that the env's Python finds.
    host:
        The Python that finds it instead, where an isolated env has none; else ``""``.
    """

    name = "pip"

    def __init__(self, version: str, host: str = "") -> None:
        self.version = version
        self.host = host

    def stage(
        self,
        ctx: Context,
        requirements: Sequence[str],
        stage: Stage,
        *,
        visible: Sequence[Dist],
        upgrade: Sequence[str] = (),
        constraints: Sequence[str] = (),
        rebuild: Sequence[str] = (),
        build: bool = True,
        dry: bool = False,
        offline: bool = False,
        on_line: Optional[OnLine] = None,
        on_packages: Optional[OnPackages] = None,
        cancel: Optional[Cancel] = None,
    ) -> None:
        """See :meth:`Installer.stage <overlayspawner.payload.installer.Installer.stage>`."""
        if offline:
            # its cache holds files, but not what the index says of them
            raise OverlayError("index-unreachable", "pip can't install without its index.", status=502)
        # its cache of wheels built here can't be left out for some names
        more = {"PIP_NO_CACHE_DIR": "1"} if rebuild else {}
        shown = PipProgress(on_line, on_packages)
        items = self.report(
            ctx,
            requirements,
            stage,
            visible=visible,
            upgrade=upgrade,
            constraints=constraints,
            build=build,
            more=more,
            shown=shown,
            cancel=cancel,
        )
        if dry:
            return
        limits = limits_of(ctx)
        shown.planned(items)
        stage.origins.update(origins(items))
        hashed, other = wanted(items, requirements)
        exactly = ["--no-deps", "--ignore-installed", "--no-compile", "--prefix", stage.prefix]
        # constraints have been met; here they could only refuse a hash or a URL
        env = {key: value for key, value in {**pip_env(ctx), **more}.items() if key != "PIP_CONSTRAINT"}
        for name, lines in (("hashed.txt", hashed), ("other.txt", other)):
            if lines:
                path = stage.write(name, self._text(lines))
                exact = ["--require-hashes"] if lines is hashed else []
                self._run(stage, env, [*exactly, *exact, "-r", path], limits, shown, cancel)

    def env(self, ctx: Context) -> dict[str, str]:
        """Return the environment that it runs in."""
        return pip_env(ctx)

    def preview(self, ctx: Context, requirements: Sequence[str], stage: Stage, **how: Any) -> list[Planned]:
        """See :meth:`Installer.preview <overlayspawner.payload.installer.Installer.preview>`."""
        from overlayspawner.payload.installer.pip_preview import preview

        return preview(self, ctx, requirements, stage, **how)

    def _text(self, lines: Sequence[str]) -> str:
        """Return a file of requirements that this pip can read."""
        if numbers(self.version) < READS_FILE_REPOSITORIES:
            lines = [_EGG.sub(_egg, line) for line in lines]
        return "".join(line + "\n" for line in lines)

    def _run(
        self,
        stage: Stage,
        env: dict[str, str],
        arguments: Sequence[str],
        limits: Limits,
        shown: PipProgress,
        cancel: Optional[Cancel],
    ) -> None:
        # -I: neither the current directory nor ~/.local decide what is installed
        log = os.path.join(stage.path, "pip.log")
        argv = [stage.env.python, "-I", "-m", "pip"]
        if self.host:
            argv = [self.host, *argv[1:], "--python", stage.env.python]
        # the last word: these limits stand after all that is set or given otherwise
        argv += ["install", "--log", log, *arguments, *limits.for_pip(self.version)]
        argv += ["--progress-bar", "raw"] if numbers(self.version) >= RAW else []
        how: dict[str, Any] = {"on_line": shown.line, "drawn": shown.drawn, "terminal": False}
        with temporary(env) as environ:
            result = run(argv, env=environ, cwd=stage.path, cancel=cancel, **how)
        shown.packages.finish()
        if result.rc != 0 or result.cancelled:
            raise failure(result, stage.path, "pip", pip_log.told(log))

    def report(
        self,
        ctx: Context,
        requirements: Sequence[str],
        stage: Stage,
        *,
        visible: Sequence[Dist],
        upgrade: Sequence[str] = (),
        constraints: Sequence[str] = (),
        build: bool,
        more: dict[str, str],
        on_line: Optional[OnLine] = None,
        shown: Optional[PipProgress] = None,
        cancel: Optional[Cancel] = None,
    ) -> list[dict[str, Any]]:
        """Return the ``install`` list of pip's report, for the arguments of :meth:`stage`.

        Parameters
        ----------
        more:
            Variables for pip besides its usual ones; places to look in come on top of those that are set.
        shown:
            Reads pip's lines, instead of ``on_line``.

        Raises
        ------
        OverlayError
            As :meth:`stage`.
        """
        shown = shown or PipProgress(on_line, None)
        env = pip_env(ctx)
        limits = limits_of(ctx)
        places = " ".join(filter(None, [env.get("PIP_FIND_LINKS"), more.get("PIP_FIND_LINKS")]))
        env = {**env, **more, **({"PIP_FIND_LINKS": places} if places else {})}
        # with a hash in one line pip wants hashes in all
        bounds = [line.partition(" --hash=")[0] for line in constraints]
        if upgrade:
            # --upgrade means every line; those that were not meant stay where they are
            bounds += _pins(requirements, visible, upgrade)
        listed = stage.write("requirements.txt", self._text(requirements))
        report = os.path.join(stage.path, "report.json")
        arguments = ["--dry-run", "--report", report, "-r", listed]
        if bounds:
            arguments += ["-c", stage.write("constraints.txt", "".join(line + "\n" for line in bounds))]
        arguments += [] if build else ["--only-binary", ":all:"]
        self._run(stage, env, [*arguments, *(["--upgrade"] if upgrade else [])], limits, shown, cancel)
        items = _read_report(report)
        again = hidden(stage.env, requirements, visible, {normalise(i["metadata"]["name"]) for i in items})
        if again:
            # pip looks at the env itself, and is content with what shall not count
            arguments = ["--dry-run", "--report", report, "--no-deps", "--ignore-installed"]
            arguments += ["-r", stage.write("again.txt", self._text(again))]
            arguments += [] if build else ["--only-binary", ":all:"]
            arguments += ["-c", os.path.join(stage.path, "constraints.txt")] if bounds else []
            self._run(stage, env, arguments, limits, shown, cancel)
            items += _read_report(report)
        check_hashes(items, constraints)
        return items


def find(ctx: Context) -> Optional[Pip]:
    """Return the pip that acts on the env if it is new enough, or ``None``. Nothing is run."""
    found = overlay_dists(ctx.env).get("pip") if ctx.env is not None else None
    isolated = found is None and ctx.overlay is not None and ctx.overlay.kind == "isolated"
    found = found or image_dists(ctx.base).get("pip")
    if found is None:
        return None
    if numbers(found.version) < (OLDEST_OTHER if isolated else OLDEST):
        return None
    return Pip(found.version, ctx.base.executable if isolated else "")


def _pins(requirements: Sequence[str], visible: Sequence[Dist], upgrade: Sequence[str]) -> list[str]:
    versions = {dist.name: dist.version for dist in visible}
    out = []
    for line in requirements:
        requirement = parse(line, trusted=True)
        if requirement.name in versions and requirement.name not in upgrade and not requirement.url:
            out.append(f"{requirement.name}=={versions[requirement.name]}")
    return out


def _read_report(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as f:
            items = json.load(f)["install"]
        assert isinstance(items, list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise OverlayError(
            "installer-failed", "pip's report could not be read; nothing was changed.", status=500
        ) from None
    for item in items:
        meta = item.get("metadata") or {}
        # An old pip believes an index's metadata. Both are written into a file that pip reads, where
        # a line may be an option.
        if not (
            _PLAIN.fullmatch(str(meta.get("name") or "")) and _PLAIN.fullmatch(str(meta.get("version") or ""))
        ):
            raise OverlayError(
                "bad-package",
                "A package from the index can't be used: its metadata has no proper name or version. "
                "Nothing was changed.",
                "Try another version, or tell the authors of the package.",
                status=502,
            )
    return items


def hidden(env: Env, requirements: Sequence[str], visible: Sequence[Dist], known: set[str]) -> list[str]:
    """Return lines for what the requirements need and only copies have that shall not count (damaged ones).

    Parameters
    ----------
    visible:
        What counts.
    known:
        Names that are installed anew anyway.
    """
    paths = {dist.path for dist in visible}
    there = overlay_dists(env)
    names = {name for name, dist in there.items() if dist.path not in paths} - known
    if not names:
        return []
    lines = [parse(line, trusted=True) for line in requirements]
    everything = {**{dist.name: dist for dist in visible}, **there}
    needed = needs([(line.name, line.extras) for line in lines if line.name], everything.get)
    own = {line.name: line.text for line in lines}
    return [own.get(name, f"{name}=={there[name].version}") for name in sorted(names & needed)]


def _digests(item: dict[str, Any]) -> dict[str, str]:
    archive = (item.get("download_info") or {}).get("archive_info") or {}
    hashes = archive.get("hashes") or dict([archive["hash"].split("=", 1)] if archive.get("hash") else [])
    return {str(kind): str(value) for kind, value in hashes.items()}


def check_hashes(items: Sequence[dict[str, Any]], constraints: Sequence[str]) -> None:
    """Compare the files of pip's report with the hashes that constraints name.

    Raises
    ------
    OverlayError
        ``bad-package`` for a file that is another one.
    """
    allowed = hashes_of(constraints)
    for item in items:
        pin = f"{normalise(item['metadata']['name'])}=={item['metadata']['version']}"
        digest = _digests(item).get("sha256", "")
        if pin in allowed and digest and digest not in allowed[pin]:
            raise other_file(pin)


def origins(items: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return where the files of pip's report come from: tables of PEP 751 by name."""
    out: dict[str, dict[str, Any]] = {}
    for item in items:
        url = str((item.get("download_info") or {}).get("url") or "")
        digest = _digests(item).get("sha256")
        if item.get("is_direct") or not url or not digest:
            continue
        file = {"url": url, "hashes": {"sha256": digest}}
        wheel = url.partition("#")[0].endswith(".whl")
        out[normalise(item["metadata"]["name"])] = {"wheels": [file]} if wheel else {"sdist": file}
    return out


def wanted(items: Sequence[dict[str, Any]], requirements: Sequence[str]) -> tuple[list[str], list[str]]:
    """Turn the ``install`` list of pip's report into lines that name exactly the same files.

    Parameters
    ----------
    requirements:
        The lines that led to the report: a URL is taken from there when the report has it without its
        credentials.

    Returns
    -------
    tuple
        Lines with hashes, and those that can't have one. pip takes them only in separate runs.
    """
    lines = {r.name: r for r in (parse(line, trusted=True) for line in requirements) if r.url}
    hashed: list[str] = []
    other: list[str] = []
    for item in items:
        meta = item["metadata"]
        name, version = normalise(meta["name"]), meta["version"]
        info = item.get("download_info") or {}
        digest = "".join(f" --hash=sha256:{v}" for kind, v in _digests(item).items() if kind == "sha256")
        url = str(info.get("url") or "")
        if not item.get("is_direct"):
            # by name, not by URL: the URL would be recorded as where it comes from
            (hashed if digest else other).append(f"{name}=={version}{digest}")
            continue
        asked = lines.get(name)
        if (info.get("dir_info") or {}).get("editable"):
            other.append(f"-e {url}")
        elif asked is not None and (redact(asked.url) != asked.url or "${" in asked.url):
            other.append(asked.text)
        elif info.get("vcs_info"):
            vcs = info["vcs_info"]
            folder = f"#subdirectory={info['subdirectory']}" if info.get("subdirectory") else ""
            other.append(f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}{folder}")
        elif digest:
            hashed.append(f"{name} @ {url}{digest}")
        else:
            other.append(f"{name} @ {url}")
    return hashed, other
