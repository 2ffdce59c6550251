"""A change made by hand that has every kind of move in it, for tests that stop it half-way.

Imports nothing but the payload: the tests run it in processes of their own, many times.
"""

from __future__ import annotations

import os
import sys

from overlayspawner.payload.change import Commit, repair
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.moves import Tree, plan_ops, tree_of
from overlayspawner.payload.overlay import Env, Overlay

SITE = "lib/python3.11/site-packages"

# What is there: (path, content). Marked "theirs": no package owns it.
BEFORE = {
    "bin/tool": "old tool",
    "bin/python": "the interpreter",
    f"{SITE}/whole/__init__.py": "old",
    f"{SITE}/whole/sub/a.py": "old",
    f"{SITE}/whole/__pycache__/__init__.cpython-311.pyc": "old bytecode",
    f"{SITE}/whole-1.dist-info/RECORD": "old",
    f"{SITE}/part/__init__.py": "old",
    f"{SITE}/part/__pycache__/__init__.cpython-311.pyc": "old bytecode",
    f"{SITE}/part/data.txt": "theirs",
    f"{SITE}/single.py": "old",
    f"{SITE}/__pycache__/single.cpython-311.pyc": "old bytecode",
    f"{SITE}/__pycache__/other.cpython-311.pyc": "other bytecode",
    f"{SITE}/other.py": "other",
    f"{SITE}/becomes_dir.py": "old",
    f"{SITE}/becomes_dir": "old file",
    f"{SITE}/becomes_file/inside.py": "old",
    f"{SITE}/becomes_file/theirs.txt": "theirs",
    f"{SITE}/in_the_way.py": "theirs",
    f"{SITE}/ns/kept.py": "kept",
    f"{SITE}/ns/gone.py": "old",
    "share/thing/gone.txt": "old",
}
REMOVED = [
    "bin/tool",
    f"{SITE}/whole/__init__.py",
    f"{SITE}/whole/sub/a.py",
    f"{SITE}/whole-1.dist-info/RECORD",
    f"{SITE}/part/__init__.py",
    f"{SITE}/single.py",
    f"{SITE}/becomes_dir.py",
    f"{SITE}/becomes_dir",
    f"{SITE}/becomes_file/inside.py",
    f"{SITE}/ns/gone.py",
    "share/thing/gone.txt",
]
STAGED = {
    "bin/tool": "new tool",
    f"{SITE}/whole/__init__.py": "new",
    f"{SITE}/whole/sub/b.py": "new",
    f"{SITE}/whole-2.dist-info/RECORD": "new",
    f"{SITE}/part/__init__.py": "new",
    f"{SITE}/becomes_dir/__init__.py": "new",
    f"{SITE}/becomes_file": "new",
    f"{SITE}/in_the_way.py": "new",
    f"{SITE}/ns/new.py": "new",
    "etc/thing/settings.json": "new",
}
AFTER = {
    **{
        path: content
        for path, content in BEFORE.items()
        if path not in REMOVED and "__pycache__" not in path and path != f"{SITE}/becomes_file/theirs.txt"
    },
    **STAGED,
    f"{SITE}/__pycache__/other.cpython-311.pyc": "other bytecode",
}
REQUIREMENTS = ("# mine\nwhole==1\nleaves\n", "# mine\nwhole==2\n")


def write(root: str, contents: dict[str, str]) -> None:
    """Write files below a directory."""
    for path, text in contents.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as f:
            f.write(text)


def read(root: str, *, without: str = ".overlay") -> dict[str, str]:
    """Return what is in the files below a directory; an empty directory is ``path/``."""
    out = {}
    for folder, dirs, names in os.walk(root):
        if without in dirs:
            dirs.remove(without)
        rel = os.path.relpath(folder, root)
        if not dirs and not names:
            out[rel + "/"] = ""
        for name in names:
            with open(os.path.join(folder, name)) as f:
                out[os.path.normpath(os.path.join(rel, name))] = f.read()
    return out


def tree(root: str, paths: list[str]) -> Tree:
    """Arrange files of a stage as the change engine gets them."""
    return tree_of(path for path in paths if os.path.lexists(os.path.join(root, path)))


def placed(stage: str) -> list[tuple[str, int, int]]:
    """Return path, inode and size of the files of a stage."""
    found = [(path, os.lstat(os.path.join(stage, path))) for path in STAGED]
    return [(path, info.st_ino, info.st_size) for path, info in found]


def places(root: str) -> tuple[Overlay, Env]:
    """Return the overlay and env of a scenario."""
    overlay = Overlay(os.path.join(root, "overlay"))
    return overlay, Env(os.path.join(overlay.path, "envs", "key"), "3.11")


def prepare(root: str) -> None:
    """Write what is there before the change."""
    overlay, env = places(root)
    write(env.path, BEFORE)
    os.makedirs(env.state)
    with open(overlay.requirements, "w") as f:
        f.write(REQUIREMENTS[0])


def make(root: str) -> None:
    """Make the change."""
    overlay, env = places(root)
    stage = os.path.join(env.state, "stage-1", "prefix")
    write(stage, STAGED)
    with acquire(env) as lease:
        ops = plan_ops(env, tree(stage, list(STAGED)), tree_of(REMOVED), "000001-x")
        Commit(
            overlay=overlay,
            env=env,
            name="000001-x",
            stage="stage-1/prefix",
            ops=ops,
            add=["whole==2"],
            remove=["leaves"],
            revision={"action": "install"},
            placed=placed(stage),
        ).run(lease)


def mend(root: str) -> str:
    """Do what the next writer does first."""
    overlay, env = places(root)
    with acquire(env) as lease:
        return repair(overlay, env, lease)


if __name__ == "__main__":
    {"make": make, "mend": mend}[sys.argv[1]](sys.argv[2])
