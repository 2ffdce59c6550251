"""Exports: what they say, that no secret leaves, and that nothing in them becomes a command."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomllib
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.export import FILES, Facts, export
from overlayspawner.payload.pylock import Locked
from overlayspawner.payload.requirements import parse

SHA = "0123456789abcdef" * 4
DIGEST = "quay.io/jupyter/base-notebook@sha256:" + SHA
WHEEL = {
    "wheels": [{"url": "https://files.pythonhosted.org/a-1.0-py3-none-any.whl", "hashes": {"sha256": SHA}}]
}


def facts(**more: Any) -> Facts:
    given_ = {
        "text": "# mine\nhumanize>=4  # nice\nrich[jupyter] ; python_version > '3'\n",
        "packages": {"humanize": Locked("humanize", "4.9.0", WHEEL), "rich": Locked("rich", "13.7", WHEEL)},
        "image": DIGEST,
        "python": "3.11.8",
        "machine": "x86_64",
        "executable": "/opt/conda/bin/python3.11",
    }
    return Facts(**{**given_, **more})


def made(form: str, *, pinned: bool = False, **more: Any) -> tuple[str, str]:
    out = export(facts(**more), form, pinned=pinned)
    assert (out["format"], out["filename"]) == (form, FILES[form])
    notes = out["notes"]
    assert isinstance(notes, list) and len(set(notes)) == len(notes)
    return str(out["content"]), " ".join(notes)


def test_the_plain_list() -> None:
    content, notes = made("requirements", administrator=["tqdm"], missing=["tqdm"])
    assert content.splitlines()[1:] == [
        "# mine",
        "humanize>=4",
        "rich[jupyter] ; python_version > '3'",
        "# The administrator's:",
        "tqdm",
    ]
    assert "not installed at the moment: tqdm" in notes


def test_exact_versions_and_hashes() -> None:
    content, notes = made(
        "requirements", pinned=True, hidden={"rich": "12.0"}, image_needs={"pygments": "2.1"}
    )
    assert f"humanize==4.9.0 \\\n    --hash=sha256:{SHA}\n" in content
    assert "#   pygments==2.1" in content
    assert "rich 13.7 is used instead of the image's 12.0" in notes and "pygments==2.1" in notes
    unknown = {**facts().packages, "rich": Locked("rich", "13.7")}
    content, notes = made("requirements", pinned=True, packages=unknown)
    # pip refuses a list of which a part has hashes
    assert "--hash" not in content and "No hashes, because they are not known for all: rich." in notes


def test_what_was_asked_for_and_the_image_gives() -> None:
    text = {"text": "numpy\n", "packages": {}, "image_needs": {"numpy": "2.3.1"}}
    assert "\nnumpy==2.3.1\n" in made("requirements", pinned=True, **text)[0]
    assert tomllib.loads(made("pyproject", pinned=True, **text)[0])["project"]["dependencies"] == [
        "numpy==2.3.1"
    ]
    assert "numpy" not in made("docker", **text)[0]
    assert "numpy==2.3.1" in made("docker", **text, image="")[0]


@pytest.mark.parametrize("form", FILES)
def test_no_secret_leaves(form: str) -> None:
    git = Locked(
        "private", "1.0", {"vcs": {"type": "git", "url": "https://g.example/p", "commit-id": "c0ffee"}}
    )
    text = (
        "# https://me:hunter2@g.example\n"
        "--index-url https://me:hunter2@pypi.example/simple\n"
        "private @ git+https://hunter2@g.example/p\n"
        "other @ https://g.example/o-1.0-py3-none-any.whl?sig=hunter2\n"
        "more @ git+https://${TOKEN}@g.example/m\n"
    )
    for pinned in (False, True):
        content, notes = made(
            form,
            pinned=pinned,
            text=text,
            packages={"private": git},
            administrator=["adm @ https://u:hunter2@g.example/adm-1-py3-none-any.whl"],
            missing=["other @ https://x:hunter2@g.example/o-1.0-py3-none-any.whl"],
            index_url="https://me:hunter2@pypi.example/simple",
            extra_index_urls=["https://hunter2@more.example/simple"],
        )
        assert "hunter2" not in content + notes
        if form in ("docker", "podman"):
            # the lock has no credentials, the line that asked for it tells where they belong
            assert (
                "git+https://${PRIVATE_TOKEN}@g.example/p@c0ffee" in content
                and " -e PRIVATE_TOKEN " in content
            )
            assert 'PIP_INDEX_URL=https://"${INDEX_USER}":"${INDEX_PASSWORD}"@pypi.example/simple' in content
        if form == "dockerfile":
            assert 'ARG PIP_INDEX_URL="https://pypi.example/simple"\n' in content
            assert "ARG PRIVATE_TOKEN\n" in content and "token that expires" in notes


def test_what_is_on_this_server_only() -> None:
    here = {
        "mine": Locked("mine", "1", {"directory": {"path": "file:///home/me/mine", "editable": True}}),
        "local": Locked(
            "local", "1", {"archive": {"url": "file:///home/me/local-1.whl", "hashes": {"sha256": SHA}}}
        ),
        "unknown": Locked("unknown", "1"),
        "built": Locked("built", "1", WHEEL, compiled=True),
    }
    text = (
        "-e file://${HOME}/mine#egg=mine\nlocal @ file:///home/me/local-1-py3-none-any.whl\nbuilt\nunknown\n"
    )
    for form in FILES:
        content, notes = made(form, text=text, packages=here)
        assert "/home/me" not in content and "mine" not in content.replace("# mine", ""), content
        assert "mine" in notes and "left out" in notes
        assert "built" in content
    content, notes = made("pylock", text=text, packages=here)
    assert [p["name"] for p in tomllib.loads(content)["packages"]] == ["built"]
    assert "unknown 1 is left out: nobody knows where it came from" in notes
    assert "Compiled here" in made("dockerfile", text=text, packages=here)[1]


def test_editables_from_elsewhere() -> None:
    text = "-e git+https://g.example/p@main#egg=p\n"
    content, notes = made("requirements", text=text)
    assert "\np @ git+https://g.example/p@main#egg=p\n" in content and "editable here" in notes


def test_images() -> None:
    assert made("dockerfile")[0].splitlines()[1] == f"FROM {DIGEST}"
    assert "no digest" not in made("dockerfile")[1]
    assert "no digest" in made("dockerfile", image="jupyter/base:1")[1]
    assert made("apptainer")[0].startswith(f"apptainer exec docker://{DIGEST} sh -c 'set -e; ")
    short = DIGEST.replace("quay.io/", "")
    assert f" docker.io/{short} " in made("podman", image=short)[0]
    assert f" {short} " in made("docker", image=short)[0]
    for image in ("", "--privileged", "a b", "a\nRUN x", "$(x)"):
        content, notes = made("dockerfile", image=image)
        assert "\nARG IMAGE\nFROM ${IMAGE}\n" in content and "not known" in notes
        assert '"${IMAGE:?' in made("docker", image=image)[0]


def test_what_dockerfiles_do_for_images() -> None:
    content, _ = made("dockerfile", writable=False, managed=True)
    assert content.index("USER root\n") < content.index("RUN ") < content.index("USER 1000\n")
    assert (
        "PIP_BREAK_SYSTEM_PACKAGES=1 /opt/conda/bin/python3.11 -m pip install --no-cache-dir --no-deps"
        in content
    )
    content, notes = made("dockerfile", kind="isolated")
    assert "/opt/conda/bin/python3.11 -m venv --without-pip /opt/overlay" in content
    assert "pip --python /opt/overlay install" in content and "/opt/overlay/bin/python" in notes
    assert "USER root\n" in content and content.endswith("USER 1000\n")
    assert "-m venv /opt/overlay" in made("dockerfile", kind="isolated", pip="20.3")[0]
    assert "-m ensurepip" in made("dockerfile", pip="")[0]
    assert "RUN" not in made("dockerfile", packages={})[0]


def test_another_format() -> None:
    with pytest.raises(OverlayError) as caught:
        made("elf")
    assert caught.value.code == "bad-request"


# -- nothing becomes a command ----------------------------------------------------------------------------

PYTHON = """#!/bin/sh
# plays the image's Python: makes an environment with itself in it, and shows what pip would be given
if [ "$2" = venv ]; then
    for d; do :; done
    mkdir -p "$d/bin" "$d/lib/python3.11/site-packages"
    cp "$0" "$d/bin/python"
else
    for f; do :; done
    cat "$f" >"$OUT"
fi
"""
ENGINE = """#!/bin/sh
printf '%s\\0' "$@" >"$OUT"
"""
# none is a name, a version or an image by itself
WORDS = (
    "$(touch owned)|`touch owned`|;touch owned;|'|\"|\\|\n|\r| |!|*|~|&|<<EOF|${HOME}|$HOME|#|(|)|{a,b}|%s"
    "|%|=|-e|--hash|\u2028|é"
)
EVIL = st.lists(st.sampled_from([*WORDS.split("|"), "|"]), min_size=1, max_size=6).map("".join)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stage")
    (path / "bin").mkdir()
    for name, text in (("python", PYTHON), ("docker", ENGINE), ("podman", ENGINE), ("apptainer", ENGINE)):
        (path / "bin" / name).write_text(text)
        (path / "bin" / name).chmod(0o755)
    return path


def sh(stage: Path, *argv: str) -> str:
    """Run a shell in an empty directory; return what the program that plays another was given."""
    with tempfile.TemporaryDirectory(dir=stage) as directory:
        out = stage / "out"
        out.unlink(missing_ok=True)
        environ = {
            "PATH": f"{stage}/bin:/usr/bin:/bin",
            "HOME": "/nowhere",
            "OUT": str(out),
            "TMPDIR": directory,
        }
        # what these lines leave to the environment
        environ |= {"INDEX_USER": "u", "INDEX_PASSWORD": "p", "INDEX_TOKEN": "t", "INDEX_QUERY": "q"}
        done = subprocess.run(
            ["sh", *argv], cwd=directory, env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (argv, done.stderr)
        assert "owned" not in os.listdir(directory), argv
        return out.read_text() if out.exists() else ""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(evil=EVIL, more=EVIL, engine=st.sampled_from(["docker", "podman", "apptainer", "dockerfile"]))
@example(
    evil="=*", more="", engine="docker"
)  # the line of a version that nothing satisfies is one all the same
def test_nothing_becomes_a_command(stage: Path, evil: str, more: str, engine: str) -> None:
    archive = {"archive": {"url": f"https://g.example/{evil}{more}/x-1.whl", "hashes": {"sha256": evil}}}
    vcs = {
        "vcs": {"type": "git", "url": f"https://g.example/{evil}", "commit-id": more, "subdirectory": evil}
    }
    hostile = facts(
        text=f"x @ https://g.example/{more}?{evil}\n{evil}\n",
        name=evil,
        packages={
            "good": Locked("good", "1.0"),
            evil: Locked(evil, "1.0"),
            "version": Locked("version", evil),
            "x": Locked("x", "1.0", archive),
            "y": Locked("y", "1.0", vcs),
            "z": Locked("z", "1.0+local", {"archive": {"url": "https://g.example/it's $5 (a&b);x"}}),
            "w": Locked(
                "w", "1.0", {"archive": {"url": "https://g.example/it's$5(a&b);$(touch${IFS}owned)"}}
            ),
        },
        hidden={evil: more},
        image_needs={evil: more, "fine": "1"},
        missing=[evil],
        image=more if "a" in evil else "image:tag",
        executable=str(stage / "bin" / "python"),
        sites=[f"/opt/{evil}"],
        index_url=f"https://{more}@pypi.example/{evil}",
        extra_index_urls=[f"https://pypi.example/{more}", evil],
        trusted_hosts=[evil],
    )
    content = str(export(hostile, engine)["content"])
    if engine == "dockerfile":
        lines = content.splitlines()
        assert all(re.match(r"# |FROM |ARG |RUN printf |      | && |USER ", line) for line in lines), content
        run = content[content.index("RUN ") + 4 :].replace("\\\n", "")
        assert "<<" not in run  # BuildKit would read a here-document
        run = run.replace("/tmp/overlay.txt", str(stage / "overlay.txt")).replace(
            "python3 -m", f"{stage}/bin/python -m"
        )
        listed = sh(stage, "-c", run)
    else:
        assert content.count("\n") == 1
        environ = "" if hostile.image == "image:tag" else "IMAGE=image:tag; "
        argv = sh(stage, "-c", environ + content).split("\0")[:-1]
        assert argv[-3:-2] == ["-c"] and argv[-1] == "overlay"
        assert "image:tag" in argv[-4 if engine != "apptainer" else -5]
        script = argv[-2].replace("python3 -m", f"{stage}/bin/python -m")
        listed = sh(stage, "-c", script, "overlay", "true")
    lines = listed.splitlines()
    assert "good==1.0" in lines
    assert any(line.startswith("w @ ") for line in lines)
    for line in lines:
        assert parse(line, trusted=True).name in {"good", "version", "x", "y", "w", "fine"}


@settings(max_examples=50, deadline=None)
@given(evil=EVIL, more=EVIL, pinned=st.booleans())
def test_files_stay_what_they_are(evil: str, more: str, pinned: bool) -> None:
    hostile = replace(
        facts(
            text=f"ok>=1\n{evil}\n{more} @ https://x.example/{evil}\nx ; extra == '{more}'\n# {evil}",
            name=evil,
            packages={
                "safe": Locked("safe", "1.0", WHEEL),
                evil: Locked(evil, more),
                "b": Locked("b", evil, WHEEL),
            },
            image_needs={evil: more},
            index_url=f"https://x.example/{evil}",
        ),
        administrator=[evil],
    )
    project = tomllib.loads(str(export(hostile, "pyproject", pinned=pinned)["content"]))["project"]
    assert ("safe==1.0" if pinned else "ok>=1") in project["dependencies"]
    lock = tomllib.loads(str(export(hostile, "pylock")["content"]))
    assert {item["name"] for item in lock["packages"]} <= {"safe", "b"}
    content = str(export(hostile, "requirements", pinned=pinned)["content"])
    for line in content.splitlines():
        if not line.startswith(("#", "    --hash=sha256:")):
            parse(line.removesuffix(" \\"), trusted=True)
