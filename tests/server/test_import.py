"""Packages from before, over REST in a real server: told of, imported, told of no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.server.conftest import Start
from tests.server.test_background import codes, eventually, lines
from tests.support.envs import put, snapshot
from tests.support.wheels import make_wheel

pytestmark = pytest.mark.slow


def test_packages_of_the_user_site(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "old home"
    version = "{}.{}".format(*sys.version_info)
    site = home / ".local" / "lib" / f"python{version}" / "site-packages"
    site.mkdir(parents=True)
    put(site, make_wheel(tmp_path, "tinytree", "1.0", requires=["tinyleaf<2"]))
    put(site, make_wheel(tmp_path, "mineonly", "1.0"))
    before = snapshot(site)
    server = start(home=home)
    told = eventually(lambda: codes(server).get("user-site-packages"))
    assert "2 packages" in told
    job = server.job("import", source="user-site")
    assert (job["state"], job["error"]) == ("done", None), json.dumps(job)
    assert [item["requirement"] for item in job["failed"]] == ["mineonly"]
    assert all(item["reason"] for item in job["failed"])
    assert lines(server) == ["tinytree"]
    assert server.packages()["tinytree"]["version"] == "1.0"
    eventually(lambda: "1 package in" in codes(server).get("user-site-packages", ""))
    assert snapshot(site) == before
    bad = server.job("import", source="nowhere")
    assert bad["state"] == "failed" and bad["error"]["code"] == "bad-request"
