"""Kernels: derived specifications, and real kernels that start whatever the user installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from overlayspawner.payload import kernelspec
from overlayspawner.payload.context import Context

# The development environment is a venv that does not see the Python below it, and so no user site either;
# an image's Python does.
SEES_USER_SITE = {"overlay": {}, "user site": {"system_site": True}}
LAUNCHER = ["/bin/sh", "kernel.sh", "{connection_file}"]
TAIL = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]


@pytest.mark.parametrize(
    ("argv", "derived"),
    [
        (["python", *TAIL], [*LAUNCHER, *TAIL]),
        (["/opt/conda/bin/python3.11", *TAIL], [*LAUNCHER, *TAIL]),
        (["python3", "-Xfrozen_modules=off", *TAIL], [*LAUNCHER, "-Xfrozen_modules=off", *TAIL]),
        (["conda", "run", "-n", "x", "python", *TAIL], ["conda", "run", "-n", "x", *LAUNCHER, *TAIL]),
        (["/usr/bin/env", "A=b", "python", *TAIL], ["/usr/bin/env", "A=b", *LAUNCHER, *TAIL]),
        (["xpython", "-f", "{connection_file}"], None),
        (["python", "kernel.py", "-m", "x"], None),
        (["python"], None),
    ],
)
def test_derive(argv: list[str], derived: list[str] | None) -> None:
    assert kernelspec.derive(argv, LAUNCHER) == derived


def test_a_plain_python_becomes_a_path() -> None:
    assert kernelspec.absolute(["python3", "-m", "x"], "/p/python3.11") == ["/p/python3.11", "-m", "x"]
    assert kernelspec.absolute(["/q/python", "-m", "x"], "/p/python3.11") == ["/q/python", "-m", "x"]
    assert kernelspec.absolute(["env", "python"], "/p/python3.11") == ["env", "python"]


def specs(context: Context) -> dict[str, dict[str, Any]]:
    root = Path(context.runtime) / "share" / "jupyter" / "kernels"
    return {p.name: json.loads((p / "kernel.json").read_text()) for p in root.iterdir()}


def image_spec(root: Path, spec: object) -> str:
    directory = root / "kernels" / "python3"
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
    (directory / "logo-64x64.png").write_bytes(b"png")
    return str(root)


def test_everything_of_the_image_s_kernel_is_kept(open_overlay, tmp_path: Path) -> None:
    spec = {
        "argv": ["python", *TAIL],
        "display_name": "Science",
        "language": "python",
        "env": {"OMP_NUM_THREADS": "2"},
        "metadata": {"kernel_provisioner": {"provisioner_name": "local-provisioner"}},
        "interrupt_mode": "message",
    }
    context = open_overlay({"JUPYTER_PATH": image_spec(tmp_path / "image", spec)})
    made = specs(context)
    assert set(made) == {"python3", "python3-base"}
    for kept in ("env", "metadata", "interrupt_mode", "language"):
        assert made["python3"][kept] == made["python3-base"][kept] == spec[kept]
    assert made["python3"]["display_name"] == "Science"
    assert made["python3-base"]["argv"] == [context.base.executable, *TAIL]
    logo = Path(context.runtime) / "share/jupyter/kernels/python3/logo-64x64.png"
    assert logo.read_bytes() == b"png"
    assert not logo.is_symlink(), "a server may refuse to serve a link"


def test_add_leaves_the_image_s_kernel_alone(open_overlay) -> None:
    assert set(specs(open_overlay(kernel="add"))) == {"python3-overlay"}


def test_a_kernel_that_can_t_be_derived_is_left_alone(open_overlay, tmp_path: Path) -> None:
    root = image_spec(
        tmp_path / "image", {"argv": ["xpython", "-f", "{connection_file}"], "display_name": "X"}
    )
    context = open_overlay({"JUPYTER_PATH": root})
    assert specs(context) == {}
    assert [n["code"] for n in context.notices] == ["kernel-not-replaced"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"argv": []}', '{"argv": "python"}', '{"argv": [1]}'])
def test_a_damaged_specification_hides_nothing(open_overlay, tmp_path: Path, text: str) -> None:
    context = open_overlay({"JUPYTER_PATH": image_spec(tmp_path / "image", text)})
    assert specs(context)["python3"]["argv"][-2:] == ["-f", "{connection_file}"]


def test_the_user_s_own_python3_stays_reachable(open_overlay, home: Path) -> None:
    directory = home / ".local/share/jupyter/kernels/python3"
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/sh", "-c", "x"], "display_name": "Mine"})
    )
    assert specs(open_overlay())["python3-user"]["argv"] == ["/bin/sh", "-c", "x"]
    (directory / "kernel.json").write_text(
        json.dumps({"argv": ["/gone/python", *TAIL], "display_name": "Mine"})
    )
    assert set(specs(open_overlay())) == {"python3", "python3-base"}


def test_without_an_overlay_the_user_s_own_python3_comes_first(open_overlay, home: Path) -> None:
    directory = home / ".local/share/jupyter/kernels/python3"
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/sh", "-c", "x"], "display_name": "Mine"})
    )
    assert specs(open_overlay(safe=True)) == {}
    assert set(specs(open_overlay(kernel="add"))) == {"python3-overlay"}


def test_a_command_in_the_kernel_s_own_folder(open_overlay, tmp_path: Path) -> None:
    spec = {
        "argv": ["{resource_dir}/wrap.sh", "python", *TAIL],
        "display_name": "Wrapped",
        "language": "python",
    }
    root = image_spec(tmp_path / "image", spec)
    made = specs(open_overlay({"JUPYTER_PATH": root}))
    wrapper = f"{root}/kernels/python3/wrap.sh"
    assert made["python3"]["argv"][:2] == [wrapper, "/bin/sh"]
    assert made["python3-base"]["argv"][0] == wrapper


slow = pytest.mark.slow  # each starts real kernels; one of them is in the quick subset too


class Kernel:
    """A real kernel of an overlay's runtime dir, started as Jupyter Server starts it."""

    def __init__(self, context: Context, home: Path, name: str = "python3", **env: str) -> None:
        manager = KernelSpecManager(kernel_dirs=[context.runtime + "/share/jupyter/kernels"])
        # a port that is free while a kernel restarts may be taken by the test beside this one
        self.sockets = Path(tempfile.mkdtemp(prefix="kernel-"))
        where = {"transport": "ipc", "ip": str(self.sockets / "k")}
        self.manager = KernelManager(kernel_name=name, kernel_spec_manager=manager, **where)
        # what a server has that our bootstrap started
        self.env = {**os.environ, "HOME": str(home), "PYTHONNOUSERSITE": "1", **env}

    def start(self) -> None:
        self.manager.start_kernel(env=self.env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "client"):
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        shutil.rmtree(self.sockets)

    def run(self, code: str) -> str:
        out: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                out.append(message["content"]["text"])

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(out)


def notices(context: Context) -> dict[str, dict[str, str]]:
    root = Path(context.runtime) / "notices"
    return {p.stem: json.loads(p.read_text()) for p in root.iterdir()}


def test_a_kernel_runs_in_the_overlay(open_overlay, home: Path) -> None:
    context = open_overlay()
    (Path(context.env.site_packages) / "mine.py").write_text("x = 42\n")
    with Kernel(context, home, PIP_USER="1", PIP_TARGET="/nowhere") as kernel:
        kernel.start()
        assert kernel.run("import sys, mine; print(sys.prefix, mine.x)").split() == [context.env.path, "42"]
        assert kernel.run("import ipykernel, os; print(ipykernel.__file__)").startswith(context.base.prefix)
        assert kernel.run(
            "print([k for k in os.environ if k.startswith('PIP_') and k[4:] in ('USER', 'TARGET')])"
        )
        path = kernel.run("print(os.environ['PATH'])").strip().split(":")
        assert path[:3] == [context.runtime + "/bin", context.env.bin, context.runtime + "/wrappers"]
        assert kernel.run("!command -v pip").strip() == context.runtime + "/bin/pip"
        assert kernel.run("print('overlayspawner' in sys.modules, sys.argv[0])").split()[0] == "False"
        assert kernel.run("import __main__; print(__main__.__name__)").strip() == "__main__"
        assert ".pyz" not in kernel.run("print(sys.path)")
        assert "PYTHONNOUSERSITE" not in kernel.run("print(list(os.environ))")
    assert notices(context) == {}
    assert os.listdir(context.runtime + "/starting") == []


@slow
def test_pip_in_a_notebook_installs_into_the_overlay(open_overlay, home: Path, tmp_path: Path) -> None:
    from tests.support.wheels import make_wheel

    make_wheel(tmp_path / "wheels", "tiny", "1.0", files={"tiny.py": "x = 1\n"})
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[global]\nuser = true\n")
    context = open_overlay()
    with Kernel(context, home, PIP_USER="1") as kernel:
        kernel.start()
        kernel.run(f"%pip install --no-index --find-links {tmp_path / 'wheels'} tiny")
        assert kernel.run("import tiny; print(tiny.__file__)").startswith(context.env.site_packages)
        requirements = Path(context.overlay.requirements)
        assert requirements.read_text() == "tiny\n"
        assert "tiny" in kernel.run("!pip list")
        kernel.run("!pip uninstall -y tiny")
        assert requirements.read_text() == ""
    assert os.listdir(context.env.site_packages) == ["zzz-overlayspawner-base.pth"]
    assert not (home / ".local").exists()


BROKEN = {
    "traitlets that raises": ("traitlets/__init__.py", "raise ImportError('old')\n"),
    "tornado that exits": ("tornado.py", "import sys; sys.exit(3)\n"),
    "an empty zmq": ("zmq/__init__.py", ""),
    "an IPython with a syntax error": ("IPython/__init__.py", "def\n"),
    "a jupyter_client of nothing": ("jupyter_client/__init__.py", "__version__ = '6.1.12'\n"),
    "comm that is a file of garbage": ("comm.py", "\x00\x01"),
    "an ipykernel of nothing": ("ipykernel/__init__.py", "__version__ = '5.0'\n"),
    "a zmq that crashes": ("zmq/__init__.py", "import ctypes; ctypes.string_at(0)\n"),
    "a psutil that leaves": ("psutil/__init__.py", "import os; os._exit(0)\n"),
    "a comm without end": ("comm.py", "def f(): f()\nf()\n"),
    "a comm without end or limit": (
        "comm.py",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(*a): return list(map(f, a))\nf(1)\n",
    ),
    "a tornado with NUL bytes": ("tornado.py", "x = 1\0\n"),
}


# In the user site these stop nothing on a base that is a venv, whose own packages come first; the container
# tests have them in the user site of a base that is not.
@slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_module_of_the_kernel_s_own(open_overlay, home: Path, what: str) -> None:
    context = open_overlay()
    root = Path(context.env.site_packages)
    name, text = BROKEN[what]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    (root / "mine.py").write_text("x = 42\n")
    with Kernel(context, home) as kernel:
        kernel.start()
        assert kernel.run("import sys, mine; print(sys.prefix, mine.x)").split() == [context.env.path, "42"]
    found = notices(context)
    assert list(found) == ["kernel-rescued"]
    assert str(root / name).removesuffix("__init__.py") in found["kernel-rescued"]["message"]


@slow
def test_versions_that_do_not_fit_together(open_overlay, home: Path) -> None:
    context = open_overlay()
    old = Path(context.env.site_packages) / "comm"
    old.mkdir()
    import comm

    for file in Path(comm.__file__).parent.glob("*.py"):
        (old / file.name).write_text(file.read_text())
    init = old / "__init__.py"
    init.write_text(init.read_text().replace(f'__version__ = "{comm.__version__}"', '__version__ = "0.0.1"'))
    with Kernel(context, home) as kernel:
        kernel.start()
        assert kernel.run("import comm; print(comm.__version__)").strip() == comm.__version__
    assert "0.0.1 is older than" in notices(context)["kernel-rescued"]["message"]


@slow
@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import sys; sys.exit(0)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
@pytest.mark.parametrize("where", ["overlay", "user site"])
def test_a_pth_that_ends_every_python(open_overlay, home: Path, where: str, code: str) -> None:
    context = open_overlay(base=SEES_USER_SITE[where])
    root = Path(context.env.site_packages)
    if where == "user site":
        root = home / f".local/lib/python{context.base.version}/site-packages"
        root.mkdir(parents=True)
    (root / "killer.pth").write_text(code + "\n")
    with Kernel(context, home) as kernel:
        kernel.start()
        assert kernel.run("import sys; print(sys.prefix)").strip() == context.base.prefix
    found = notices(context)["kernel-base"]
    assert str(root / "killer.pth") in found["message"]


@slow
def test_a_kernel_that_dies_although_python_starts(open_overlay, home: Path) -> None:
    context = open_overlay()
    killer = Path(context.env.site_packages) / "killer.pth"
    killer.write_text("import os, sys; '-m' in sys.orig_argv and os._exit(3)\n")
    with Kernel(context, home) as kernel:
        with pytest.raises(RuntimeError, match="died"):
            kernel.start()
        # What a server's restarter does: the same connection file once more.
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=60)
        assert kernel.run("import sys; print(sys.prefix)").strip() == context.base.prefix
    assert str(killer) in notices(context)["kernel-base"]["message"]


KILLERS = {
    "a .pth that exits": ("killer.pth", "import sys; sys.exit(1)\n"),
    "a .pth that crashes": ("killer.pth", "import ctypes; ctypes.string_at(0)\n"),
    "a sitecustomize that exits": ("sitecustomize.py", "import os; os._exit(0)\n"),
    "a module that crashes": ("traitlets.py", "import ctypes; ctypes.string_at(0)\n"),
}


@slow
@pytest.mark.parametrize("what", KILLERS)
def test_programs_that_start_a_kernel_once(open_overlay, home: Path, what: str) -> None:
    import nbformat.v4
    from nbclient import NotebookClient

    context = open_overlay()
    name, text = KILLERS[what]
    path = Path(context.env.site_packages) / name
    path.write_text(text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    with Kernel(context, home) as kernel:  # a manager of ours is ours to shut down
        NotebookClient(notebook, km=kernel.manager, timeout=60).execute(env=kernel.env)
    assert notebook.cells[0].outputs[0]["text"] == "42\n"
    (found,) = notices(context).values()
    assert str(path) in found["message"]


@slow
def test_a_package_that_hooks_into_python_s_start_keeps_its_kernel(open_overlay, home: Path) -> None:
    import typing_extensions

    context = open_overlay()
    root = Path(context.env.site_packages)
    (root / "hook.pth").write_text("import hooked\n")
    (root / "hooked.py").write_text("x = 42\nprint('hello from a hook')\n")
    (root / "typing_extensions.py").write_text(Path(typing_extensions.__file__).read_text())
    for _ in range(2):
        with Kernel(context, home) as kernel:
            kernel.start()
            said = kernel.run(
                "import sys, hooked, typing_extensions as t; print(sys.prefix, hooked.x, t.__file__)"
            )
            assert said.split() == [context.env.path, "42", str(root / "typing_extensions.py")]
    assert notices(context) == {}
    assert str(root / "typing_extensions.py") in Path(context.runtime, "stack-tried").read_text()


@slow
def test_an_env_that_is_gone(open_overlay, home: Path) -> None:
    context = open_overlay()
    os.rename(context.env.path, context.env.path + ".away")
    with Kernel(context, home) as kernel:
        kernel.start()
        assert kernel.run("import sys; print(sys.prefix)").strip() == context.base.prefix
    assert context.env.path in notices(context)["kernel-base"]["message"]


@slow
def test_a_kernel_without_an_overlay_is_rescued_too(open_overlay, home: Path) -> None:
    context = open_overlay(safe=True)
    assert set(specs(context)) == {"python3"}
    rogue = home / "rogue"
    rogue.mkdir()
    (rogue / "tornado.py").write_text("raise SystemExit\n")
    with Kernel(context, home, PYTHONPATH=str(rogue)) as kernel:
        kernel.start()
        assert kernel.run("import sys; print(sys.prefix)").strip() == context.base.prefix
    assert "tornado.py" in notices(context)["kernel-rescued"]["message"]


@slow
def test_the_base_kernel(open_overlay, home: Path) -> None:
    context = open_overlay()
    with Kernel(context, home, name="python3-base") as kernel:
        kernel.start()
        assert kernel.run("import sys; print(sys.prefix)").strip() == context.base.prefix


@slow
@pytest.mark.parametrize("wait", [0.0, 0.2])
@pytest.mark.parametrize("how", ["interrupted", "restarted", "ended"])
def test_a_kernel_that_somebody_stops_while_it_starts_keeps_the_overlay(
    open_overlay, home: Path, how: str, wait: float
) -> None:
    context = open_overlay()
    with Kernel(context, home) as kernel:
        kernel.manager.start_kernel(env=kernel.env)
        while not os.listdir(context.runtime + "/starting"):
            time.sleep(0.005)
        time.sleep(wait)
        if how == "interrupted":
            kernel.manager.interrupt_kernel()
            time.sleep(0.1)
            if not kernel.manager.is_alive():  # what a server's restarter does
                kernel.manager.restart_kernel(now=True)
        else:
            if how == "ended":
                # once our code runs; before, Python has only begun
                while b"ipykernel_launcher" not in Path(f"/proc/{pid(kernel)}/cmdline").read_bytes():
                    time.sleep(0.005)
                time.sleep(0.2)
                kernel.manager.signal_kernel(signal.SIGTERM)
            kernel.manager.restart_kernel()
        kernel.client = kernel.manager.client()
        kernel.client.start_channels()
        kernel.client.wait_for_ready(timeout=60)
        assert kernel.run("import sys; print(sys.prefix)").strip() == context.env.path
        # and it can be interrupted as ever; not while it prints, where ipykernel may lose an interrupt
        begun = home / "begun"
        ident = kernel.client.execute(
            f"import time\nopen({str(begun)!r}, 'w').close()\nwhile True: time.sleep(0.01)"
        )
        while not begun.exists():
            time.sleep(0.01)
        kernel.manager.interrupt_kernel()
        while (reply := kernel.client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != ident:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert notices(context) == {}


def pid(kernel: Kernel) -> int:
    provisioner = kernel.manager.provisioner
    assert provisioner is not None
    return int(provisioner.pid)
