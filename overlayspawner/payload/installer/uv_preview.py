"""What uv would do: a dry run among the stubs of a stage, read with the reasons that uv gives for it.

uv's debug lines tell who needs what, and which file was chosen. They are no contract: where they say nothing,
less is known (sizes, what of the image is used), and the plan stands all the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import unquote, urlsplit

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.installer import OnLine
from overlayspawner.payload.installer.errors import failure
from overlayspawner.payload.installer.index import limits_of
from overlayspawner.payload.installer.preview import (
    ROUNDS,
    Planned,
    StandIns,
    hashes_of,
    other_file,
    source_file,
    too_many,
)
from overlayspawner.payload.limits import Limits
from overlayspawner.payload.procs import TAIL_LINES, Cancel, Result, run
from overlayspawner.payload.requirements import normalise, parse
from overlayspawner.payload.stage import Stage

if TYPE_CHECKING:
    from overlayspawner.payload.installer.uv import Uv

_DEBUG = ("DEBUG ", "TRACE ", "INFO ", "WARN ")
_MORE = re.compile(r"^\s*(?:Installed|Requested): [A-Z]")
"""Further lines of a debug message: uv's own data, with the index's address in it."""
_SAID = re.compile(r"^(?:Resolved|Would|Using|Audited|Checked|warning:|error:| [+~-] )")
"""Lines that are meant for people."""
_COMES = re.compile(r"^ [+~] ([A-Za-z0-9._-]+)==(\S+?)(?: \(from (.+)\))?$")
_COMES_BY_URL = re.compile(r"^ [+~] ([A-Za-z0-9._-]+) @ (\S+)$")
_EDGE = re.compile(
    r"^DEBUG Adding transitive dependency for ([\w.-]+)==([^\s:\[]+)\S*: ([\w.-]+)(\[[^\]]*\])?(.*)$"
)
_CHOSEN = re.compile(r"^DEBUG Selecting: ([\w.-]+)(?:\[[^\]]*\])?==(\S+) \[[^\]]*\] \(([^()]+)\)$")
_CLAUSE = re.compile(r"^(?:==|>=|<=|!=|<|>)[A-Za-z0-9.!]+(?:\+[A-Za-z0-9.]+)?$")
_NO_WHEELS = (
    re.compile(r"\b([A-Za-z0-9][\w.-]*?)(?:[=<>!]=?[\w.!+*]+)? ha(?:s|ve) no (?:usable )?wheels"),
    re.compile(r"Wheels are required for `([\w.-]+)`"),
)
_OF_SOURCE = ("no-matching-version", "conflict", "build-failed")
"""Errors that may come from having no wheel."""


class _Log:
    """uv's lines, and what they tell."""

    def __init__(self, on_line: Optional[OnLine]) -> None:
        self.lines: list[str] = []
        self.comes: dict[str, tuple[str, str]] = {}
        self.edges: dict[tuple[str, str], list[str]] = {}
        self.limits: dict[str, dict[str, str]] = {}
        self.chosen: dict[str, tuple[str, str]] = {}
        self._on_line = on_line

    def line(self, line: str) -> None:
        """Read one."""
        if _MORE.match(line):
            return
        if not line.startswith(_DEBUG):
            self.lines.append(line)
            match = _COMES.match(line)
            if match:
                self.comes[normalise(match[1])] = (match[2], match[3] or "")
            match = _COMES_BY_URL.match(line)
            if match:
                # one that is not in the cache yet; URLs are those of wheels only
                file = unquote(urlsplit(match[2]).path.rpartition("/")[2])
                self.comes[normalise(match[1])] = (file.split("-")[1] if "-" in file else "", match[2])
            if self._on_line is not None and _SAID.match(line):
                self._on_line(line)
            return
        match = _CHOSEN.match(line)
        if match:
            self.chosen[normalise(match[1])] = (match[2], match[3])
            return
        match = _EDGE.match(line)
        if match:
            source, target = normalise(match[1]), normalise(match[3])
            if source != target:
                limit = _limit(match[5])
                self.edges.setdefault((source, match[2]), []).append(f"{target}{match[4] or ''}{limit}")
                self.limits.setdefault(target, {})[source] = limit


def _limit(text: str) -> str:
    """Return uv's way of writing a range as specifiers; ``""`` for what has no such form."""
    clauses = [clause.strip() for clause in text.split(",")]
    if len(clauses) == 2 and clauses[0][:2] == ">=" and clauses[1] == f"<{clauses[0][2:]}+":
        return "==" + clauses[0][2:]
    return ",".join(clauses) if all(_CLAUSE.match(clause) for clause in clauses) else ""


def preview(
    uv: Uv,
    ctx: Context,
    requirements: Sequence[str],
    stage: Stage,
    *,
    visible: Sequence[Dist],
    upgrade: Sequence[str] = (),
    constraints: Sequence[str] = (),
    on_line: Optional[OnLine] = None,
    cancel: Optional[Cancel] = None,
) -> list[Planned]:
    """See :meth:`Installer.preview <overlayspawner.payload.installer.Installer.preview>`."""
    stage.add_stubs(visible)
    stand_ins = StandIns(os.path.join(stage.path, "stand-ins"))
    limits = limits_of(ctx)
    command = uv.install(stage, requirements, upgrade, constraints, limits, uv.env(ctx))
    argv = [*command, "--dry-run", "-v"]
    argv += [] if "--no-build" in argv else ["--no-build"]
    own: dict[str, list[str]] = {}
    for line in [*requirements, *constraints]:
        bare = line.partition(" --hash=")[0]
        entry = parse(bare, trusted=True)
        if not entry.url:
            own.setdefault(entry.name, []).append(bare)

    def ask(log: _Log, names: Iterable[str], *, offline: bool) -> dict[str, dict[str, Any]]:
        """Which file of each uv would take, were it allowed to build."""
        lines = []
        for name in names:
            lines += own.get(name, [])
            lines += [f"{name}{limit}" for limit in log.limits.get(name, {"": ""}).values()]
        return _files(uv, ctx, stage, lines, limits, offline=offline, cancel=cancel)

    for _ in range(ROUNDS):
        log = _Log(on_line)
        env = uv.env(ctx)
        if stand_ins.known:
            env["UV_FIND_LINKS"] = ",".join(filter(None, [env.get("UV_FIND_LINKS"), stand_ins.folder]))
        result = run(argv, env=env, cwd=stage.path, on_line=log.line, cancel=cancel)
        if result.rc != 0 or result.cancelled:
            error = _failure(result, log, stage)
            names = _without_wheels(log) if error.code in _OF_SOURCE else set()
            names = {name for name in names if not limits.wheel_only(name)}
            if not names or not stand_ins.add(_sources(ask(log, names, offline=False))):
                raise error
            continue
        comes = [n for n, (_, url) in log.comes.items() if not url]
        told = ask(log, dict.fromkeys([*comes, *upgrade]), offline=True)
        if not stand_ins.add(_sources(told) - {(n, v) for n, (v, _) in log.comes.items()}):
            # others than the newest, which something holds back
            pins = {n: log.comes[n][0] for n in comes if told.get(n, {}).get("version") != log.comes[n][0]}
            lines = [f"{name}=={version}" for name, version in pins.items()]
            told.update(_files(uv, ctx, stage, lines, limits, offline=True, cancel=cancel))
            _check_hashes(log, told, constraints)
            return _result(log, told, stand_ins)
    raise too_many()


def _result(log: _Log, told: dict[str, dict[str, Any]], stand_ins: StandIns) -> list[Planned]:
    out = []
    for name, (version, url) in log.comes.items():
        build = (name, version) in stand_ins.known
        file = told.get(name, {})
        requires = tuple(dict.fromkeys(log.edges.get((name, version), ())))
        size = file.get("size") if file.get("version") == version else None
        out.append(Planned(name, version, requires, url, size, build))
    return out


def _check_hashes(log: _Log, told: dict[str, dict[str, Any]], constraints: Sequence[str]) -> None:
    """Refuse what the installation would refuse: a dry run looks at no file.

    Raises
    ------
    OverlayError
        ``bad-package``: the index has another file than the one whose hash is known.
    """
    allowed = hashes_of(constraints)
    for name, (version, _) in log.comes.items():
        digests = told.get(name, {}).get("digests")
        wanted = allowed.get(f"{name}=={version}")
        if wanted and digests and wanted.isdisjoint(digests):
            raise other_file(f"{name}=={version}")


def _failure(result: Result, log: _Log, stage: Stage) -> OverlayError:
    # debug lines speak of timeouts and connections where nothing is wrong
    tail = "\n".join(log.lines[-TAIL_LINES:])
    plain = Result(result.rc, tail, cancelled=result.cancelled, timed_out=result.timed_out)
    return failure(plain, stage.path, "uv")


def _without_wheels(log: _Log) -> set[str]:
    text = re.sub(r"[\s\u2500-\u25ff\u00d7]+", " ", " ".join(log.lines))
    return {normalise(name) for pattern in _NO_WHEELS for name in pattern.findall(text)}


def _sources(told: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    return {(name, item["version"]) for name, item in told.items() if item["source"]}


def _files(
    uv: Uv,
    ctx: Context,
    stage: Stage,
    lines: Sequence[str],
    limits: Limits,
    *,
    offline: bool,
    cancel: Optional[Cancel],
) -> dict[str, dict[str, Any]]:
    """Return version, size and kind of the file that uv would take for each of some packages.

    Without their dependencies uv looks at no file at all, only at the index's page of each.
    """
    from overlayspawner.payload.pylock import loads

    if not lines:
        return {}
    listed = stage.write("wanted.in", "".join(line + "\n" for line in dict.fromkeys(lines)))
    out = os.path.join(stage.path, "pylock.toml")
    argv = [uv.path, "pip", "compile", "-v", "--no-deps", "--no-header", "--upgrade", "--python"]
    argv += [stage.env.python, listed, *limits.for_uv(), *(["--offline"] if offline else [])]
    log = _Log(None)
    argv_lock = [*argv, "--format", "pylock.toml", "-o", out]
    result = run(argv_lock, env=uv.env(ctx), cwd=stage.path, on_line=log.line, cancel=cancel)
    packages: list[Any] = []
    if result.rc == 0:
        try:
            with open(out, encoding="utf-8") as f:
                packages = loads(f.read()).get("packages") or []
        except (OSError, OverlayError):
            pass  # nothing here can read TOML
    elif any("--format" in line for line in log.lines):
        # an early uv, which knows no such file: its debug lines tell versions at least
        run(argv, env=uv.env(ctx), cwd=stage.path, on_line=log.line, cancel=cancel)
    found: dict[str, dict[str, Any]] = {}
    for name, (version, file) in log.chosen.items():
        found[name] = {
            "version": version,
            "source": source_file(file, name) != "",
            "size": None,
            "file": file,
        }
    for item in packages:
        name = normalise(str(item.get("name")))
        wheels, sdist = item.get("wheels") or [], item.get("sdist")
        known = found.setdefault(
            name,
            {
                "version": str(item.get("version")),
                "source": not wheels and bool(sdist),
                "size": None,
                "file": "",
            },
        )
        tables = [table for table in [*wheels, sdist] if isinstance(table, dict)]
        own = [t for t in tables if known["file"] and str(t.get("url", "")).endswith("/" + known["file"])]
        for table in own or (tables if len(tables) == 1 else []):
            size = table.get("size")
            known["digests"] = {str((t.get("hashes") or {}).get("sha256", "")) for t in tables}
            known["size"] = size if isinstance(size, int) and size > 0 else None
    return found
