"""What the chart adds to zero-to-jupyterhub, what it refuses, and that a hub runs with what it renders."""

from __future__ import annotations

import base64
import gzip
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import tomllib
import yaml

from overlayspawner.hub import chart
from tests.helm.conftest import ROOT, Helm, Objects, packaging
from tests.support.hub import free_port, proxy_command
from tests.support.kube_schema import VERSIONS, faults

pytestmark = [pytest.mark.slow]

SECRET = "hidden-word-1"
INDEX = f"https://reader:{SECRET}@index.example/simple"
CLUSTERS = [f"{version}.0" for version in VERSIONS]

VALUES: dict[str, dict[str, Any]] = {
    "none": {},
    "settings": {
        "global": {
            "overlayspawner": {
                "indexUrl": INDEX,
                "deny": ["torch"],
                "kernel": "add",
                "maxSize": "5G",
                "onlyBinary": ["lxml"],
                "cmd": ["start-notebook.py"],
                "startDeadline": 20,
                "restore": None,
            }
        }
    },
    "logs": {"podLogs": {"enabled": True}},
    "static storage": {
        "jupyterhub": {"singleuser": {"storage": {"type": "static", "static": {"pvcName": "homes"}}}}
    },
    "own configuration": {
        "jupyterhub": {
            "hub": {
                "extraConfig": {"mine": "c.JupyterHub.load_groups = {}"},
                "config": {"KubeSpawner": {"start_timeout": 600}},
            },
            "singleuser": {"profileList": [{"display_name": "one"}]},
        }
    },
    "external database": {
        "jupyterhub": {"hub": {"db": {"type": "postgres", "url": "postgres+psycopg2://x"}}}
    },
}


def leaves(item: Any, path: str = "") -> dict[str, Any]:
    """Return all values of a document, by their paths; lists of named things by name."""
    if isinstance(item, dict):
        found: dict[str, Any] = {}
        for key, value in item.items():
            found |= leaves(value, f"{path}/{key}")
        return found
    if isinstance(item, list):
        found = {}
        for number, value in enumerate(item):
            name = value.get("mountPath") or value.get("name") if isinstance(value, dict) else None
            found |= leaves(value, f"{path}/{name or number}")
        return found
    return {path: item}


def changes(ours: Objects, theirs: Objects) -> dict[str, Any]:
    """Return which values are there with our chart only, or are others; not what is random or a hash."""
    found = {}
    for key, item in ours.items():
        mine, other = leaves(item), leaves(theirs.get(key, {}))
        found |= {f"{'/'.join(key)}{p}": v for p, v in mine.items() if other.get(p) != v}
        found |= {f"-{'/'.join(key)}{p}": v for p, v in other.items() if p not in mine}
    random = re.compile(r"^Secret/hub/data/|/annotations/checksum/")
    return {path: value for path, value in found.items() if not random.search(path)}


@pytest.mark.parametrize("version", CLUSTERS)
@pytest.mark.parametrize("name", VALUES)
def test_it_adds_this_and_nothing_else(helm: Helm, name: str, version: str) -> None:
    values = VALUES[name]
    ours = helm.objects(values, version=version)
    # zero-to-jupyterhub by itself refuses old ones; as a part of ours it is not asked
    supported = max(version, "1.32.0")
    theirs = helm.objects(values.get("jupyterhub", {}), plain=True, version=supported)
    assert not theirs.keys() - ours.keys()
    (wheel,) = [key for key in ours.keys() - theirs.keys() if key[0] == "ConfigMap"]
    logs = {("Role", "hub-overlayspawner-logs"), ("RoleBinding", "hub-overlayspawner-logs")}
    assert ours.keys() - theirs.keys() == {wheel} | (logs if name == "logs" else set())
    added = {
        path
        for path in changes({key: item for key, item in ours.items() if key in theirs}, theirs)
        # the chart's values are in there as a whole
        if not path.startswith("Secret/hub/")
    }
    pod = "Deployment/hub/spec/template/spec"
    mount = f"{pod}/containers/hub/volumeMounts//usr/local/share/overlayspawner"
    assert added == {
        f"{pod}/volumes/overlayspawner/name",
        f"{pod}/volumes/overlayspawner/configMap/name",
        f"{mount}/name",
        f"{mount}/mountPath",
        f"{mount}/readOnly",
    }
    # and in the eyes of that version of Kubernetes nothing is wrong with any of it
    wrong = {key: found for key, item in ours.items() if (found := faults(item, version.removesuffix(".0")))}
    assert not wrong


def test_rights_and_secrets(helm: Helm) -> None:
    ours = helm.objects({**VALUES["settings"], **VALUES["logs"]})
    role = ours["Role", "hub-overlayspawner-logs"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]
    subject = ours["RoleBinding", "hub-overlayspawner-logs"]["subjects"][0]
    account = ours["Deployment", "hub"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", account)
    for key, item in ours.items():
        if key[0] != "Secret":
            assert SECRET not in json.dumps(item), key
    stored = base64.b64decode(ours["Secret", "hub"]["data"]["values.yaml"]).decode()
    assert SECRET in stored, "the hub has it from its Secret"


def test_chart_and_wheel_are_one_version(helm: Helm) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    with tarfile.open(helm.chart) as archive:
        read = {item.name: archive.extractfile(item) for item in archive if item.isfile()}
        described = yaml.safe_load(read["overlayspawner/Chart.yaml"].read())  # type: ignore[union-attr]
        wheel = lzma.decompress(read["overlayspawner/files/overlayspawner.whl.xz"].read())  # type: ignore[union-attr]
    assert described["version"] == described["appVersion"] == version
    assert f"overlayspawner-{version}.dist-info/METADATA".encode() in wheel


def test_a_release_fits_into_helm_s_secret(helm: Helm) -> None:
    """Helm keeps the chart's own files and the rendered manifest: as JSON, compressed, in base64."""
    manifest = helm.run("template", "rel", str(helm.chart), "--kube-version", "1.34.0").stdout
    with tarfile.open(helm.chart) as archive:
        own = [item for item in archive if item.isfile() and "/charts/" not in item.name]
        data = [archive.extractfile(item).read() for item in own]  # type: ignore[union-attr]
    stored = json.dumps([manifest, *[base64.b64encode(content).decode() for content in data]]).encode()
    size = len(base64.b64encode(gzip.compress(stored, 9)))
    assert packaging.MAX_RELEASE / 2 < size < packaging.MAX_RELEASE


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown setting": ({"global": {"overlayspawner": {"knd": "x"}}}, "'knd' not allowed"),
    "trait's own name": (
        {"jupyterhub": {"hub": {"config": {"OverlayKubeSpawner": {"overlay_index_url": "x"}}}}},
        "set it as global.overlayspawner.indexUrl",
    ),
    "no such kind": ({"global": {"overlayspawner": {"kind": "venv"}}}, "'overlay', 'isolated'"),
    "a text for a list": ({"global": {"overlayspawner": {"deny": "torch"}}}, "/global/overlayspawner/deny"),
    "a size of words": (
        {"global": {"overlayspawner": {"maxSize": "much"}}},
        "/global/overlayspawner/maxSize",
    ),
    "beside the chart's values": ({"singleuser": {}}, "'singleuser' not allowed"),
    "volumes replaced": (
        {"jupyterhub": {"hub": {"extraVolumes": [{"name": "mine"}]}}},
        "jupyterhub.hub.extraVolumes has to keep this entry",
    ),
    "mounts replaced": (
        {"jupyterhub": {"hub": {"extraVolumeMounts": []}}},
        "jupyterhub.hub.extraVolumeMounts has to keep this entry",
    ),
    "configuration removed": (
        {"jupyterhub": {"hub": {"extraConfig": {"00-overlayspawner": None}}}},
        "extraConfig.00-overlayspawner was removed",
    ),
    "logs without roles": (
        {"podLogs": {"enabled": True}, "jupyterhub": {"rbac": {"create": False}}},
        "podLogs.enabled needs a Role",
    ),
    "theirs": ({"jupyterhub": {"hub": {"nope": 1}}}, "'nope' not allowed"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(helm: Helm, name: str) -> None:
    values, words = BAD[name]
    assert words in helm.refusal(values)


def test_lint(helm: Helm) -> None:
    done = helm.run("lint", str(helm.chart.parent / "overlayspawner"))
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


RUN = r"""
set -eu
mount -t tmpfs none /usr/local/etc
mount -t tmpfs none /usr/local/share
mkdir /usr/local/etc/jupyterhub /usr/local/share/overlayspawner
mount --bind "$1/etc" /usr/local/etc/jupyterhub
mount --bind "$1/share" /usr/local/share/overlayspawner
exec "$2" -m jupyterhub --config /usr/local/etc/jupyterhub/jupyterhub_config.py
"""


def elsewhere(where: Path) -> str:
    """Return a Python that has what this one has, but not this project: its hub's image does not know us."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
    (site,) = where.glob("lib/python*/site-packages")
    # the folder only: the .pth files in there are not read, and one of them leads here
    (site / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(where / "bin" / "python")


def test_a_hub_runs_with_it(helm: Helm, tmp_path: Path) -> None:
    """The files that the hub's pod would have, at their places, and the hub's program on this machine."""
    hub, api, proxy = free_port(), free_port(), free_port()
    token = "a-token-for-tests-only"
    values: dict[str, Any] = {
        **VALUES["settings"],
        "jupyterhub": {
            "hub": {
                "db": {"type": "sqlite-memory"},
                "services": {"tests": {"apiToken": token}},
                "loadRoles": {"tests": {"services": ["tests"], "scopes": ["read:hub"]}},
                # what differs outside a cluster, and a word from inside
                "extraConfig": {
                    "zz": f"c.JupyterHub.hub_bind_url = 'http://127.0.0.1:{hub}'\n"
                    f"c.JupyterHub.hub_connect_url = 'http://127.0.0.1:{hub}'\n"
                    f"c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{api}'\n"
                    "import json, overlayspawner\n"
                    "told = {'file': overlayspawner.__file__, 'set': dict(c.OverlayKubeSpawner)}\n"
                    "open('told.json', 'w').write(json.dumps(told))\n"
                },
            }
        },
    }
    objects = helm.objects(values)
    place = {"etc": tmp_path / "etc", "share": tmp_path / "share"}
    for folder in (place["etc"] / "config", place["etc"] / "secret", place["share"]):
        folder.mkdir(parents=True)
    for name, text in objects["ConfigMap", "hub"]["data"].items():
        (place["etc"] / "config" / name).write_text(text)
    for name in ("jupyterhub_config.py", "z2jh.py"):
        (place["etc"] / name).write_text(objects["ConfigMap", "hub"]["data"][name])
    for name, text in objects["Secret", "hub"]["data"].items():
        (place["etc"] / "secret" / name).write_bytes(base64.b64decode(text))
    (wheel,) = [item for key, item in objects.items() if "binaryData" in item]
    for name, text in wheel["binaryData"].items():
        (place["share"] / name).write_bytes(base64.b64decode(text))
    secret = objects["Secret", "hub"]["data"]["hub.config.ConfigurableHTTPProxy.auth_token"]
    environ = {
        **os.environ,
        "HELM_RELEASE_NAME": "rel",
        "POD_NAMESPACE": "default",
        "CONFIGPROXY_AUTH_TOKEN": base64.b64decode(secret).decode(),
        **{f"{name}_SERVICE_PORT": "80" for name in ("HUB", "PROXY_API", "PROXY_PUBLIC", "PROXY_HTTP")},
    }
    (tmp_path / "run.sh").write_text(RUN)
    python = elsewhere(tmp_path / "venv")
    namespace = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    log = (tmp_path / "log").open("wb")
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (
            [
                *proxy_command(),
                "--ip=127.0.0.1",
                f"--port={proxy}",
                "--api-ip=127.0.0.1",
                f"--api-port={api}",
            ],
            [*namespace, "sh", str(tmp_path / "run.sh"), str(tmp_path), python],
        ):
            started.append(
                subprocess.Popen(
                    command, cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True
                )
            )
        end = time.monotonic() + 90
        answer: dict[str, Any] = {}
        while not answer:
            text = (tmp_path / "log").read_text(errors="replace")
            assert started[-1].poll() is None and time.monotonic() < end, text[-4_000:]
            try:
                got = requests.get(
                    f"http://127.0.0.1:{hub}/hub/api/info",
                    headers={"Authorization": f"token {token}"},
                    timeout=5,
                )
                answer = got.json() if got.ok else {}
            except requests.RequestException:
                time.sleep(0.2)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
        log.close()
    assert answer["spawner"]["class"] == "overlayspawner.hub.kube.OverlayKubeSpawner"
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["file"].endswith("overlayspawner.whl/overlayspawner/__init__.py"), (
        "not what is installed here"
    )
    given = {name: value for name, value in VALUES["settings"]["global"]["overlayspawner"].items() if value}
    traits = chart.settings()
    assert {name: told["set"][trait] for name, trait in traits.items() if trait in told["set"]} == given
    assert SECRET not in (tmp_path / "log").read_text(errors="replace")


def test_the_wheel_serves_as_it_is_packed(helm: Helm, tmp_path: Path) -> None:
    """The payload is built out of the zipped wheel, and is the one that an installed package builds."""
    with tarfile.open(helm.chart) as archive:
        packed = archive.extractfile("overlayspawner/files/overlayspawner.whl.xz").read()  # type: ignore[union-attr]
    wheel = tmp_path / "overlayspawner.whl"
    wheel.write_bytes(lzma.decompress(packed))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]) if len(sys.argv) > 1 else None\n"
        "from overlayspawner.hub import payload_zip\n"
        "import overlayspawner; print(overlayspawner.__file__, payload_zip.build().id)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, *more], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.split()
        for more in ([], [str(wheel)])
    ]
    assert told[1][0].startswith(str(wheel))
    assert told[0][1] == told[1][1]
