"""Small overlays made by hand with a change for each kind of move, for tests that stop it everywhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from overlayspawner.payload import dists, lockfile, plan, probe, removal, revisions, snapshot
from overlayspawner.payload.change import Commit, repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import Spec
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.moves import Tree, plan_ops, tree_of
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.undo import undo
from tests.support.changes import write

BASE = probe.probe()


def places(root: str) -> tuple[Overlay, Env]:
    """Return the overlay and its env in a test's directory."""
    overlay = Overlay(os.path.join(root, "overlay"))
    return overlay, overlay.env(BASE)


def context(root: str) -> Context:
    """Return what a server knows about it."""
    overlay, env = places(root)
    return Context(
        spec=Spec(),
        base=BASE,
        home=root,
        runtime="",
        payload="",
        overlay=overlay,
        env=env,
        base_lock="lock",
    )


def package(name: str, version: str, contents: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a distribution, relative to site-packages, with metadata that fits them."""
    info = f"{name}-{version}.dist-info"
    out = dict(contents)
    out[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    out[f"{info}/INSTALLER"] = "test\n"
    rows = "".join(f"{path},,{len(text)}\n" for path, text in out.items())
    out[f"{info}/RECORD"] = rows + f"{info}/RECORD,,\n"
    return out


# one package for each kind of move: what it is before and after, and what stands there without an owner
OLD: dict[str, dict[str, str]] = {
    "whole": {"whole/__init__.py": "old", "whole/sub/a.py": "old", "../../../bin/tool": "old tool"},
    "part": {"part/__init__.py": "old", "part/same.py": "old"},
    "single": {"single.py": "old"},
    "tofile": {"tofile/inside.py": "old", "tofile/deep/er.py": "old"},
    "todir": {"todir": "old file"},
    "ns_a": {"ns/a.py": "old", "ns/deep/a.py": "old"},
    "ns_b": {"ns/b.py": "stays"},
    "leaves": {"leaves/__init__.py": "old", "../../../share/leaves/x.txt": "old"},
}
NEW: dict[str, dict[str, str]] = {
    "whole": {"whole/__init__.py": "new", "whole/sub/b.py": "new", "../../../bin/tool": "new tool"},
    "part": {"part/__init__.py": "new", "part/more.py": "new"},
    "single": {"single.py": "new"},
    "tofile": {"tofile": "new file"},
    "todir": {"todir/__init__.py": "new"},
    "ns_a": {"ns/new.py": "new"},
    "fresh": {"fresh/__init__.py": "new", "in_the_way.py": "new", "shut/x.py": "new"},
}
THEIRS = {
    "part/data.txt": "theirs",
    "tofile/theirs.txt": "theirs",
    "in_the_way.py": "theirs",
    "shut": "theirs, a file",
    "part/__pycache__/__init__.cpython-311.pyc": "",
    "whole/__pycache__/__init__.cpython-311.pyc": "",
    "__pycache__/single.cpython-311.pyc": "",
}
LINES = ("# mine\nwhole==1\nleaves\nhand  # by hand\n", "# mine\nwhole==2\nhand  # by hand\nfresh\n")


def prepare(root: str) -> None:
    """Make the overlay with the old packages."""
    overlay, _ = places(root)
    os.makedirs(root)
    env = overlay.create(BASE)
    for name, contents in OLD.items():
        write(env.site_packages, package(name, "1", contents))
    write(env.site_packages, THEIRS)
    os.makedirs(env.state, exist_ok=True)
    snapshot.save(env)  # else they would be somebody else's
    with open(overlay.requirements, "w") as f:
        f.write(LINES[0])


def _collect(root: str, rel: str = "") -> Tree:
    tree: Tree = {}
    for name in sorted(os.listdir(os.path.join(root, rel))):
        path = os.path.join(rel, name)
        info = os.lstat(os.path.join(root, path))
        tree[name] = _collect(root, path) if stat.S_ISDIR(info.st_mode) else (info.st_ino, info.st_size)
    return tree


def _flat(tree: Tree, rel: str = "") -> list[tuple[str, int, int]]:
    out: list[tuple[str, int, int]] = []
    for name, node in tree.items():
        path = os.path.join(rel, name)
        out += _flat(node, path) if isinstance(node, dict) else [(path, *node)]
    return out


def change(
    root: str,
    new: Mapping[str, Mapping[str, str]],
    leaving: tuple[str, ...] = (),
    add: tuple[str, ...] = (),
    remove: tuple[str, ...] = (),
    version: str = "2",
) -> dict[str, Any]:
    """Bring packages in and take others out, as :mod:`apply` does it, without an installer."""
    overlay, env = places(root)
    with acquire(env) as lease:
        repair(overlay, env, lease)
        there = dists.overlay_dists(env)
        stage = os.path.join(env.state, "stage-1", "prefix")
        site = os.path.join(stage, os.path.relpath(env.site_packages, env.path))
        if new:
            os.makedirs(stage)
        for name, contents in new.items():
            write(site, package(name, version, contents))
        tree = _collect(stage) if new else {}
        names = {*new, *leaving}
        going = [d for n, d in there.items() if d.name.replace("-", "_") in names]
        gone = removal.owned_files(env, going, [d for d in there.values() if d not in going])
        name = f"{revisions.next_id(overlay):06d}-x"
        return Commit(
            overlay=overlay,
            env=env,
            name=name,
            stage="stage-1/prefix" if new else "",
            ops=plan_ops(env, tree, tree_of(gone), name),
            add=list(add),
            remove=list(remove),
            revision={
                "action": "install",
                "base": {"key": BASE.key, "lock": "lock"},
                "env": os.path.relpath(env.path, overlay.path),
                "plan": plan.build(
                    new={n: plan.Item(version) for n in new},
                    overlay={n: plan.Item(d.version) for n, d in there.items()},
                    base={},
                    uninstalled=leaving,
                ),
            },
            placed=_flat(tree),
        ).run(lease)


def replace_all(root: str) -> None:
    """The change with every kind of move in it."""
    change(root, NEW, ("leaves",), ("whole==2", "fresh"), ("leaves",))


def install(root: str) -> None:
    """A change that only brings something."""
    change(root, {"fresh": {"fresh/__init__.py": "new", "fresh/sub/x.py": "new"}}, add=("fresh",))


def uninstall(root: str) -> None:
    """A change that only takes something away."""
    change(root, {}, ("leaves", "ns_a"), remove=("leaves",))


@contextmanager
def without_lock() -> Iterator[None]:
    """Leave the lock out: it comes after the change, and asking uv for it takes longer than all the rest."""
    with mock.patch.object(lockfile, "write"):
        yield


def take_back(root: str) -> None:
    """Undo the latest change."""
    with without_lock():
        undo(context(root))


def bring_back(root: str) -> None:
    """Undo the undoing that came last."""
    overlay, _ = places(root)
    with without_lock():
        undo(context(root), revisions.ids(overlay)[-1])


def mend(root: str) -> None:
    """What the next writer does first."""
    overlay, env = places(root)
    with acquire(env) as lease:
        repair(overlay, env, lease)


def look(root: str, *, history: bool = True) -> dict[str, str]:
    """Return the env's tree without compiled files, the requirements, and the history.

    The lock is left out: it is written after the change, as well as may be.
    """
    overlay, env = places(root)
    out: dict[str, str] = {}
    for folder, dirs, names in os.walk(env.path):
        dirs[:] = [name for name in dirs if name not in ("__pycache__", ".overlay")]
        rel = os.path.relpath(folder, env.path)
        if not dirs and not names:
            out[rel + "/"] = "an empty directory"
        for name in names:
            full = os.path.join(folder, name)
            if not os.path.islink(full) and name != "pylock.toml":
                with open(full) as f:
                    out[os.path.normpath(os.path.join(rel, name))] = f.read()
    with open(overlay.requirements) as f:
        out["requirements"] = f.read()
    if history:
        out["history"] = str(revisions.ids(overlay))
    return out
