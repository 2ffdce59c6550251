"""What a plan means, told to people."""

from __future__ import annotations

from typing import Any

from overlayspawner.payload import plan
from overlayspawner.payload.plan import Item
from overlayspawner.payload.sentences import amount, sentences


def told(**fields: Any) -> list[str]:
    empty = plan.build(new={}, overlay={}, base={})
    return sentences({**empty, **fields})


def test_what_is_refused() -> None:
    item = {"name": "torch", "version": "2.4.0", "rule": "torch<3"}
    assert told(blocked=[item])[0] == "torch 2.4.0 is refused by the rule torch<3 of this hub."
    text = "torch 2.4.0 is not among the packages that this hub allows."
    assert told(blocked=[{**item, "rule": ""}])[0] == text


def test_what_is_hidden() -> None:
    item = {"name": "numpy", "version": "1.26.4", "hidden": "2.4.6", "where": "base"}
    assert told(shadows=[item])[0] == "numpy 1.26.4 will hide the image's 2.4.6."
    assert told(shadows=[{**item, "where": "user-site"}])[0] == "numpy 1.26.4 will hide 2.4.6 in ~/.local."


def test_what_may_stop_working() -> None:
    item = {"name": "pandas", "version": "3.1.1", "requires": "numpy>=2.0.2", "where": "base", "by": {}}
    assert told(breaks=[item])[0] == "pandas 3.1.1 of the image needs numpy>=2.0.2 and may stop working."
    assert told(breaks=[{**item, "where": "overlay"}])[0].startswith("pandas 3.1.1 needs numpy>=2.0.2 and")


def test_what_is_built() -> None:
    text = "tinysdist 1.0 must be built: this runs its code. What it needs is known only then."
    assert told(builds=[{"name": "tinysdist", "version": "1.0"}])[0] == text
    assert told(builds=[{"name": "thing", "version": None}])[0].startswith("thing must be built")


def test_what_leaves() -> None:
    item = {"name": "rich", "version": "13.0", "reason": "uninstalled", "reveals": None}
    assert told(removes=[item]) == ["Removes rich 13.0."]
    assert told(removes=[{**item, "reason": "unneeded"}]) == [
        "Removes rich 13.0, which nothing needs any more."
    ]
    assert told(removes=[{**item, "reveals": "12.0"}]) == [
        "Removes rich 13.0; the image's 12.0 is used again."
    ]


def test_what_is_torn_apart() -> None:
    assert told(splits=[{"message": "a brings all of b."}])[0] == "a brings all of b."


def test_what_comes() -> None:
    built = plan.build(new={"a": Item("1", 1_400_000), "b": Item("2", 600_000)}, overlay={}, base={})
    assert built["sentences"] == ["Brings 2 packages, 2 MB."]
    built = plan.build(new={"a": Item("1", None), "b": Item("2", 600_000)}, overlay={}, base={})
    assert built["bytes"] is None and built["sentences"] == ["Brings 2 packages."]
    built = plan.build(new={"a": Item("2", 10)}, overlay={"a": Item("1")}, base={})
    assert built["sentences"] == [
        "Brings 1 package, 10 bytes.",
        "Kernels that run have to be restarted to use what changes.",
    ]


def test_nothing_at_all() -> None:
    assert told() == ["Nothing has to be installed."]
    built = plan.build(new={}, overlay={}, base={"a": "1"}, needed=["a"], requested=["a"])
    assert built["sentences"] == ["The image has a 1 already."]


def test_amounts() -> None:
    found = [amount(number) for number in (0, 999, 1000, 2_400_000, 3_200_000_000)]
    assert found == ["0 bytes", "999 bytes", "1 kB", "2 MB", "3.2 GB"]
