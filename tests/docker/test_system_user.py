"""Users of this machine on a real engine: their own home and uid, and nothing in it that is root's.

The users are made with ``useradd``, with names of their own, and removed afterwards: needs root.
"""

from __future__ import annotations

import contextlib
import html
import os
import pwd
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayspawner.hub.system_user import home_as_mount
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [
    pytest.mark.engine,
    pytest.mark.beside,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes users of this machine: needs root"),
]

WHO = "import os; print(os.getuid(), os.getgid(), sorted(os.getgroups()), os.path.expanduser('~'))"
USES = "import tinyleaf; print(tinyleaf.__version__, tinyleaf.__file__)"
MakeUser = Callable[..., pwd.struct_passwd]


@pytest.fixture(scope="module")
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    """One hub for all tests, with named servers."""
    config = (
        "c.JupyterHub.allow_named_servers = True\nc.Spawner.http_timeout = 120\nc.Spawner.start_timeout = 180"
    )
    with RunningHub(config, spawner="overlay-system-user", image=image("stacks"), index=index) as running:
        yield running


@pytest.fixture(scope="module")
def make_user() -> Iterator[MakeUser]:
    """Make users of this machine, each with a group of their own."""
    made: list[pwd.struct_passwd] = []

    def make(ending: str, *, mode: int = 0o700, home: bool = True) -> pwd.struct_passwd:
        name = f"ovl{uuid.uuid4().hex[:6]}{ending}"
        with_home = "--create-home" if home else "--no-create-home"
        subprocess.run(
            ["useradd", "--badname", with_home, "--user-group", "--shell", "/bin/sh", name], check=True
        )
        made.append(pwd.getpwnam(name))
        if home:
            os.chmod(made[-1].pw_dir, mode)
        return made[-1]

    yield make
    for user in made:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "--lazy", user.pw_dir], stderr=subprocess.DEVNULL)
        with contextlib.suppress(FileNotFoundError):  # userdel removes no home that is another's
            now = pwd.getpwnam(user.pw_name)  # a test may have renumbered the user
            os.chown(now.pw_dir, now.pw_uid, now.pw_gid)
        subprocess.run(["userdel", "--remove", user.pw_name], check=True, stderr=subprocess.DEVNULL)


def not_theirs(user: pwd.struct_passwd) -> list[str]:
    """Return what lies in a user's home and belongs to another user or group."""
    ids = ["!", "-uid", str(user.pw_uid), "-o", "!", "-gid", str(user.pw_gid)]
    done = subprocess.run(["find", user.pw_dir, *ids], capture_output=True, text=True, check=True)
    return done.stdout.split()


def works(server: Server, user: pwd.struct_passwd) -> None:
    """Check that packages come into the overlay in the host's home, and that all in it is the user's."""
    assert server.overlay("status")["path"] == f"{user.pw_dir}/.overlay/default"
    server.install("tinyleaf")
    cell = server.run_cell(USES)
    assert cell.text.startswith(f"2.0 {user.pw_dir}/.overlay/default/"), cell
    assert "tinyleaf" in Path(user.pw_dir, ".overlay/default/requirements.txt").read_text()
    assert not_theirs(user) == []


def fails(hub: RunningHub, user: str) -> str:
    """Start a server that can't start; return what the spawn page says."""
    hub.add_user(user)
    answer = hub.call("POST", f"users/{user}/server", json={})
    assert answer.status_code == 202, answer.text  # it may be over before anybody could follow its progress
    while hub.model(user)["servers"].get("", {}).get("pending"):
        time.sleep(0.1)
    assert not hub.model(user)["servers"].get("", {}).get("ready")
    page = hub.login(user).get(f"{hub.host}/hub/spawn-pending/{user}", timeout=60).text
    return html.unescape(page)


def test_everything(hub: RunningHub, make_user: MakeUser) -> None:
    """A home that only its owner may read, an odd name, a uid without a name in the image."""
    user = make_user(".b-c_d")
    name, home = user.pw_name, Path(user.pw_dir)
    hub.configure(name, extra_host_config={"group_add": ["4242"]})
    server = hub.start_server(name)
    text = server.run_cell(WHO).text
    assert text.split() == [str(user.pw_uid), str(user.pw_gid), f"[{user.pw_gid},", "4242]", user.pw_dir]
    assert "KeyError" in server.run_cell("import os, pwd; pwd.getpwuid(os.getuid())").error, "it has a name"
    assert server.run_cell("import getpass; print(getpass.getuser())").text == f"{name}\n"
    works(server, user)
    said = server.terminal(
        "pip install tinydata", "overlay list", "overlay doctor", "umask 077; pip install tinytree"
    )
    assert "tinydata" in said[1] and "Traceback" not in "".join(said), said
    assert {"tinyleaf", "tinydata", "tinytree"} <= set(server.packages())
    assert not_theirs(user) == []
    # a second server on the same home, on another image: what was asked for is installed again there
    hub.configure(name, image=image("venv"))
    second = hub.start_server(name, "second")
    assert second.overlay("status")["path"] == f"{user.pw_dir}/.overlay/default"
    hub.stop_server(name)
    server = hub.start_server(name, options={"overlay": "safe"})
    assert server.overlay("status")["mode"] == "safe"
    assert "KeyError" in server.run_cell("import os, pwd; pwd.getpwuid(os.getuid())").error, "it has a name"
    hub.stop_server(name)
    server = hub.start_server(name, options={"overlay": "reset"})
    assert "reset-done" in server.notices()
    assert server.packages() == {}
    hub.stop_server(name)
    hub.stop_server(name, "second")
    assert not_theirs(user) == []
    # no volume of ours, and the host's home stays when the hub's user goes
    assert not any("home" in volume for volume in hub.engine.volumes())
    (home / "thesis.txt").write_text("mine")
    assert hub.call("DELETE", f"users/{name}").status_code == 204
    assert (home / "thesis.txt").read_text() == "mine"


AS_ROOT = {"run_as_root": True}
# older docker-stacks: not the entrypoint but the command changes the user, so that our first stage is root
COMMAND_CHANGES = {
    **AS_ROOT,
    "extra_create_kwargs": {"entrypoint": ["tini", "-g", "--"]},
    "cmd": ["start.sh", "jupyterhub-singleuser"],
}


@pytest.mark.parametrize("settings", [AS_ROOT, COMMAND_CHANGES], ids=["entrypoint", "command"])
def test_run_as_root(hub: RunningHub, make_user: MakeUser, settings: dict[str, object]) -> None:
    user = make_user("rooted")
    hub.configure(user.pw_name, **settings)
    server = hub.start_server(user.pw_name)
    uid, gid, *_ = server.run_cell(WHO).text.split()
    assert (int(uid), int(gid)) == (user.pw_uid, user.pw_gid)
    works(server, user)
    assert server.run_cell("import os, pwd; print(pwd.getpwuid(os.getuid())[0])").text == f"{user.pw_name}\n"
    hub.stop_server(user.pw_name)
    assert not_theirs(user) == []


def test_image_that_stays_root(hub: RunningHub, make_user: MakeUser) -> None:
    """``run_as_root`` with an image that knows nothing of NB_UID: the overlay is left alone."""
    user = make_user("stays")
    hub.configure(
        user.pw_name,
        run_as_root=True,
        extra_create_kwargs={"entrypoint": ["tini", "-g", "--"]},
        cmd=["jupyterhub-singleuser"],
        args=["--allow-root"],
    )
    server = hub.start_server(user.pw_name)
    assert server.run_cell("import os; print(os.getuid())").text == "0\n"
    assert "root-start" in server.notices()
    answer = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "no-overlay")
    assert not Path(user.pw_dir, ".overlay").exists()
    hub.stop_server(user.pw_name)


def test_link_out_of_the_home(hub: RunningHub, make_user: MakeUser) -> None:
    """Started as root, with a link to what only root may write to."""
    user = make_user("link")
    Path(user.pw_dir, ".overlay").symlink_to("/etc")
    hub.configure(user.pw_name, **COMMAND_CHANGES)
    server = hub.start_server(user.pw_name)
    assert server.overlay("status")["mode"] == "degraded"
    assert server.run_cell("import os; print(os.path.lexists('/etc/default/overlay.json'))").text == "False\n"
    hub.stop_server(user.pw_name)


def test_homes_that_cannot_be_written(hub: RunningHub, make_user: MakeUser) -> None:
    """A home of root's, as the engine makes one for a bind; one that is read-only on the host."""
    rooted, readonly = make_user("roothome", mode=0o755), make_user("rohome")
    os.chown(rooted.pw_dir, 0, 0)
    subprocess.run(["mount", "--bind", readonly.pw_dir, readonly.pw_dir], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", readonly.pw_dir], check=True)
    before = sorted(os.listdir(rooted.pw_dir))
    for user in (rooted, readonly):
        server = hub.start_server(user.pw_name)
        assert "home-unwritable" in server.notices()
        assert server.run_cell("1+1").result == "2"
        hub.stop_server(user.pw_name)
    assert sorted(os.listdir(rooted.pw_dir)) == before


def test_user_that_the_machine_does_not_know(hub: RunningHub) -> None:
    said = fails(hub, "nobodyhere")
    assert "This machine has no user named nobodyhere." in said
    assert "administrator" in said and "[no-system-user]" in said
    # the home has to be looked up, too
    hub.configure("nobodythere", host_homedir_format_string="", user_id=4711, group_id=4711)
    assert "[no-system-user]" in fails(hub, "nobodythere")
    # an authenticator that knows one half of it
    hub.configure("nobodyelse", user_id=4711)
    assert "set group_id as well" in fails(hub, "nobodyelse")
    assert "Traceback" not in hub.log()
    assert hub.running and hub.engine.containers("nobody") == []


def test_home_that_is_missing(hub: RunningHub, make_user: MakeUser) -> None:
    """The engine would make a directory that belongs to root; and the hub may not be able to look."""
    user = make_user("homeless", home=False)
    said = fails(hub, user.pw_name)
    assert f"There is no directory {user.pw_dir}" in said and "[no-host-home]" in said
    assert not os.path.lexists(user.pw_dir)
    hub.configure("elsewhere", user_id=4711, group_id=4711, host_homedir_format_string="/srv/none/{username}")
    assert "There is no directory /srv/none/elsewhere" in fails(hub, "elsewhere")
    assert not os.path.lexists("/srv/none")
    assert hub.engine.containers("homeless") == []


def test_format_that_can_not_be_filled_in(hub: RunningHub, make_user: MakeUser) -> None:
    user = make_user("format")
    hub.configure(user.pw_name, host_homedir_format_string="/home/{user}")
    assert "host_homedir_format_string" in fails(hub, user.pw_name)


def test_ids_are_looked_up_at_each_start(hub: RunningHub, make_user: MakeUser) -> None:
    """The user gets another uid: SystemUserSpawner would keep the one of the first start."""
    user = make_user("renumbered", mode=0o755)
    server = hub.start_server(user.pw_name)
    assert server.run_cell("import os; print(os.getuid())").text == f"{user.pw_uid}\n"
    hub.stop_server(user.pw_name)
    new = user.pw_uid + 20000
    subprocess.run(["usermod", "--uid", str(new), user.pw_name], check=True)  # the files of the home as well
    server = hub.start_server(user.pw_name)
    assert server.run_cell("import os; print(os.getuid())").text == f"{new}\n"
    hub.stop_server(user.pw_name)


@pytest.mark.parametrize(
    ("mode", "options"),
    [("rw", {}), ("rw,rslave", {"BindOptions": {"Propagation": "rslave"}}), ("z", None)],
)
def test_home_as_mount(mode: str, options: dict[str, object] | None) -> None:
    """What a mount can't say stays a bind; a path may have colons."""
    kwargs = {
        "host_config": {"Binds": ["v:/data:rw", f"/home/a:b:/home/a:b:{mode}"], "Mounts": [{"Target": "/x"}]}
    }
    got = home_as_mount(kwargs, "/home/a:b", "/home/a:b")
    if options is None:
        assert got is kwargs
        return
    mount = {"Type": "bind", "Source": "/home/a:b", "Target": "/home/a:b", "ReadOnly": False, **options}
    assert got == {"host_config": {"Binds": ["v:/data:rw"], "Mounts": [{"Target": "/x"}, mount]}}
