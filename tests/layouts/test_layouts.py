"""Every layout of an image's Python, with both kinds and lifetimes: the same things work in all of them."""

from __future__ import annotations

import pytest

from tests.layouts.conftest import LAYOUTS, Box, Yard

pytestmark = [pytest.mark.engine, pytest.mark.beside]

KINDS = ("overlay", "isolated")

PATH = "import json, sys; print(json.dumps([p for p in sys.path if not p.endswith('.zip')]))"
FEATURES = (
    "import json, from_pth, base_editable, base_develop, tinyns.base, tinyleaf;"
    "print(json.dumps([from_pth.WHERE, base_editable.WHERE, base_develop.WHERE, tinyns.base.WHERE]))"
)
STACK = (
    "import json, traitlets, tornado, zmq, jupyter_client, IPython, comm, ipykernel;"
    "print(json.dumps(ipykernel.__file__))"
)
WHERE = "import json, {0}; print(json.dumps({0}.__file__))"
SEEN = "import json, importlib.util as u; print(json.dumps(u.find_spec({0!r}) is not None))"


def check_what_is_seen(box: Box, kind: str) -> None:
    """The base's packages in the base's order behind the overlay's, or none of them."""
    base, env = box.base(PATH), box.env(PATH)
    site = f"{box.env_path}/lib/"
    library = box.base("import json, os; print(json.dumps(os.path.dirname(os.__file__)))")
    stdlib = [p for p in base if p in (library, f"{library}/lib-dynload")]
    if kind == "overlay":
        assert [p for p in env if not p.startswith(site)] == base
        assert box.env(FEATURES) == ["pth", "editable", "develop", "base"]
        assert box.env(STACK) == box.base(STACK)
    else:
        assert [p for p in env if not p.startswith(site)] == stdlib
        for module in ("from_pth", "base_editable", "base_develop", "tinyns", "tinyleaf", "ipykernel", "six"):
            assert not box.env(SEEN.format(module)), module


def check_changes(box: Box, kind: str) -> None:
    """Install, uninstall, undo; what the base has is not installed again."""
    new = box.new("install", "tinytree<2", "tinyns-one")
    own = {"tinytree": "1.0", "tinyns-one": "1.0"}
    assert new == (own if kind == "overlay" else {**own, "tinyleaf": "1.1"})
    assert box.env(WHERE.format("tinytree")).startswith(box.env_path)
    leaf = box.env(WHERE.format("tinyleaf"))
    if kind == "overlay":
        assert leaf == box.base(WHERE.format("tinyleaf"))
        # two parts of one namespace, one in each
        assert box.env("import json, tinyns.base, tinyns.one; print(json.dumps(tinyns.base.WHERE))") == "base"
    else:
        assert leaf.startswith(box.env_path)
    assert box.new("install", "tinyscript", "tinyleaf") == {"tinyscript": "1.0"}
    assert box.sh(f"{box.env_path}/bin/tinyscript-hello").strip() == f"hello from {box.env_path}"
    # a newer one than the base's hides it, and goes again
    assert box.new("install", "tinytree>=2") == {"tinytree": "2.0", "tinyleaf": "2.0"}
    assert box.env("import json, tinyleaf; print(json.dumps(tinyleaf.__version__))") == "2.0"
    box.overlay("uninstall", "tinytree")
    assert not box.env(SEEN.format("tinytree"))
    box.overlay("undo")
    assert box.env("import json, tinytree; print(json.dumps(tinytree.__version__))") == "2.0"
    assert box.problems() == []
    # the image is what it was
    assert box.base("import json, tinyleaf; print(json.dumps(tinyleaf.__version__))") == "1.1"


def check_kernel(box: Box, kind: str) -> None:
    """The kernel runs in the env: an isolated one once it has its own."""
    where = "import sys; print(sys.prefix)"
    if kind == "isolated":
        assert box.kernel(where) == box.base("import json, sys; print(json.dumps(sys.prefix))")
        assert "no-kernel" in box.notices()
        assert "ipykernel" in box.new("install", "ipykernel")
        assert "no-kernel" not in box.notices()
    assert box.kernel(where) == box.env_path
    printed = box.kernel(
        "import tinyscript, subprocess; print(tinyscript.__file__, subprocess.getoutput('command -v pip'))"
    )
    file, pip = printed.split()
    assert file.startswith(box.env_path)
    assert pip == f"{box.runtime}/bin/pip"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_persistent(yard: Yard, name: str, kind: str) -> None:
    layout = LAYOUTS[name]
    home = yard.home(layout)
    box = yard.start(layout, home, kind=kind)
    assert "[overlay-ready]" in box.log()
    assert box.server["notices"] == []
    assert box.env_path.startswith(f"{layout.home}/.overlay/default/envs/")
    check_what_is_seen(box, kind)
    check_changes(box, kind)
    check_kernel(box, kind)
    before = {p["name"]: p["version"] for p in box.overlay("list")["packages"]}
    yard.stop(box)
    # a new container on the same home, with the other installer
    box = yard.start(layout, home, kind=kind, installer="pip")
    try:
        assert {p["name"]: p["version"] for p in box.overlay("list")["packages"]} == before
        assert box.new("install", "tinydata") == {"tinydata": "1.0"}
        assert box.env(WHERE.format("tinydata")).startswith(box.env_path)
        plan = box.overlay("install", "tinyleaf")["plan"]
        assert plan["new"] == []
        # pip, as a user types it
        box.sh(f"PIP_INDEX_URL={yard.index.container_url} {box.runtime}/bin/pip install -q tinypre")
        assert box.env(SEEN.format("tinypre"))
        assert box.kernel("import sys, tinydata, tinypre; print(sys.prefix)") == box.env_path
    finally:
        yard.stop(box)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_ephemeral(yard: Yard, name: str, kind: str) -> None:
    layout = LAYOUTS[name]
    home = yard.home(layout)
    box = yard.start(layout, home, kind=kind, lifetime="ephemeral")
    assert "[overlay-ready]" in box.log()
    assert not box.env_path.startswith(layout.home)
    check_what_is_seen(box, kind)
    assert "tinyscript" in box.new("install", "tinyscript")
    assert box.env(WHERE.format("tinyscript")).startswith(box.env_path)
    # what it takes to build it again, and no package
    kept = {"README.md", "locks", "overlay.json", "requirements.txt", "revisions"}
    assert set(box.sh(f"ls {layout.home}/.overlay/default").split()) == kept
    old = box.env_path
    yard.stop(box)
    box = yard.start(layout, home, kind=kind, lifetime="ephemeral")
    try:
        assert box.env_path != old
        assert not box.env(SEEN.format("tinyscript"))
        box.overlay("restore")
        assert box.env(WHERE.format("tinyscript")).startswith(box.env_path)
    finally:
        yard.stop(box)


@pytest.mark.parametrize(("one", "other"), [("py314", "usrlocal"), ("purevenv", "py314")])
def test_two_images_on_one_home(yard: Yard, one: str, other: str) -> None:
    home = yard.home(LAYOUTS[one])
    first = yard.start(LAYOUTS[one], home)
    second = yard.start(LAYOUTS[other], home)
    try:
        assert first.env_path != second.env_path
        assert first.new("install", "tinyscript") == {"tinyscript": "1.0"}
        assert not second.env(SEEN.format("tinyscript"))
        second.overlay("sync")
        assert second.new("install", "tinydata")["tinydata"] == "1.0"
        for box in (first, second):
            assert box.env(WHERE.format("tinyscript")).startswith(box.env_path)
        assert not first.env(SEEN.format("tinydata"))
        first.overlay("sync")
        assert first.env(SEEN.format("tinydata"))
    finally:
        yard.stop(first)
        yard.stop(second)


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize("name", ["py39", "py313", "py314"])
def test_what_debian_s_packages_have(yard: Yard, name: str, installer: str) -> None:
    """They lie in dist-packages; the oldest have an egg-info, as a file or a directory."""
    layout = LAYOUTS[name]
    box = yard.start(layout, yard.home(layout), installer=installer)
    try:
        assert box.new("install", "six", "pyyaml") == {}
        assert box.base(WHERE.format("six")).startswith("/usr/lib/python3/dist-packages/")
        assert box.env(WHERE.format("six")) == box.base(WHERE.format("six"))
        if name == "py39":
            plan = box.overlay("install", "six>=1.17")["plan"]
            assert [(p["name"], p["hidden"]) for p in plan["shadows"]] == [("six", "1.16.0")]
            assert box.env("import json, six; print(json.dumps(six.__version__))").startswith("1.17")
            box.overlay("uninstall", "six")
            assert box.env("import json, six; print(json.dumps(six.__version__))") == "1.16.0"
        assert box.problems() == []
    finally:
        yard.stop(box)


def test_nobody_s_home(yard: Yard) -> None:
    """A user who is in no list and has no ``HOME``: the engine says ``/``. The command runs all the same."""
    box = yard.start(LAYOUTS["py313"], variable=False)
    try:
        assert box.server["mode"] == "degraded"
        assert "home-unwritable" in [n["code"] for n in box.server["notices"]]
        assert box.kernel("import sys; print(sys.prefix)") == "/usr"
    finally:
        yard.stop(box)


def test_a_home_that_passwd_does_not_know(yard: Yard) -> None:
    """``HOME`` counts, as for every program; what ``/etc/passwd`` says stays empty."""
    layout = LAYOUTS["py39"]
    home = yard.home(layout)
    box = yard.start(layout, home)
    try:
        assert box.sh("getent passwd 1000 | cut -d: -f6").strip() == "/home/user"
        assert box.server["overlay"] == "/data/elsewhere/.overlay/default"
        assert box.sh("ls -A /home/user | grep -c overlay || true").strip() == "0"
    finally:
        yard.stop(box)
