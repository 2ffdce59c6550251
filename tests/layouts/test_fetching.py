"""Images without uv, beside a hub that has none: it is fetched into the user's storage, once."""

from __future__ import annotations

import pytest

from tests.layouts.conftest import LAYOUTS, Yard
from tests.support.uv_wheel import uv_wheel

pytestmark = [pytest.mark.engine, pytest.mark.beside, pytest.mark.network]


@pytest.mark.parametrize("name", ["py39", "conda"])
def test_uv_is_fetched(name: str, yard: Yard) -> None:
    """The first has a pip that is too old to install with (Debian 11's), but not too old to fetch."""
    wheel = uv_wheel()
    if wheel.name not in yard.index.files:
        yard.index.add(wheel)
    layout = LAYOUTS[name]
    home = yard.home(layout)
    box = yard.start(layout, home, uv=False)
    seen = len(yard.index.requests)
    assert box.new("install", "tinytree<2").keys() >= {"tinytree"}
    assert any(request.path.endswith(wheel.name) for request in yard.index.requests[seen:])
    bin_ = f"{layout.home}/.overlay/.cache/bin"
    (kept,) = box.sh(f"ls {bin_}").split()
    assert kept.startswith("uv-") and kept.endswith("-glibc")
    assert box.sh(f"{bin_}/{kept}/uv --version").startswith("uv ")
    assert box.overlay("doctor") is not None and box.problems() == []
    yard.stop(box)
    # it is there for the next container
    seen = len(yard.index.requests)
    box = yard.start(layout, home, uv=False)
    assert box.new("install", "tinyscript").keys() == {"tinyscript"}
    assert not any("/uv" in request.path for request in yard.index.requests[seen:])
    yard.stop(box)
