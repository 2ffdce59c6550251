"""The search for what can be had, against an index that is a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.fitting import Fitting
from overlayspawner.payload.requirements import parse


class Table:
    """An index: names to versions that can be had, and versions that must be built."""

    def __init__(
        self, versions: dict[str, list[str]], *, sdists: Sequence[str] = (), away: bool = False, **errors: str
    ) -> None:
        self.versions = versions
        self.sdists = sdists
        self.errors = errors
        self.away = away
        self.stage: dict[str, str] = {}
        self.calls: list[dict[str, Any]] = []
        self.built: list[str] = []

    def resolve(self, lines: list[str], limits: list[str], **how: Any) -> None:
        self.calls.append({"lines": lines, "limits": limits, **how})
        pins = dict(limit.partition(" ")[0].split("==") for limit in limits)
        found = {}
        if self.away and not how.get("offline"):
            raise OverlayError("index-unreachable")
        for line in lines:
            name = parse(line).name
            if name in self.errors:
                raise OverlayError(self.errors[name])
            have = [v for v in self.versions.get(name, []) if pins.get(name, v) == v]
            if not have:
                code = "no-matching-version" if name in self.versions else "no-such-package"
                raise OverlayError(code, f"{name} can't be had. Nothing was changed.", "a hint")
            exact = f"{name}=={have[-1]}"
            if exact in self.sdists:
                if not how.get("build", True):
                    raise OverlayError("no-matching-version")
                self.built.append(exact)
            found[name] = have[-1]
        if not how.get("dry"):
            assert not self.stage, "the stage was not emptied"
            self.stage = found

    def clear(self) -> None:
        self.stage = {}


def fit(table: Table, names: str, pins: Sequence[str] = (), **how: Any) -> Fitting:
    out = Fitting(table.resolve, table.clear, lambda phase, text: None)
    out.run([parse(name) for name in names.split()], pins, **how)
    return out


def test_all_at_once_where_all_fits() -> None:
    table = Table({"a": ["1", "2"], "b": ["1"]})
    out = fit(table, "a b", ["a==1", "b==1 --hash=sha256:00"])
    assert table.stage == {"a": "1", "b": "1"}
    assert len(table.calls) == 1
    assert out.failed == []


def test_nothing_to_do() -> None:
    table = Table({})
    assert fit(table, "").accepted == []
    assert table.calls == []


def test_a_version_that_is_gone_costs_only_its_own_pin() -> None:
    names = [f"p{n}" for n in range(20)]
    table = Table({name: ["1", "2"] for name in names} | {"p7": ["2"], "p13": ["2"]})
    out = fit(table, " ".join(names), [f"{name}==1" for name in names])
    assert out.failed == []
    assert table.stage == {name: "2" if name in ("p7", "p13") else "1" for name in names}
    assert len(table.calls) < 30


def test_another_python_takes_wheels_of_other_versions_rather_than_building() -> None:
    table = Table({"a": ["1", "2"], "b": ["1", "2"]}, sdists=["a==1"])
    out = fit(table, "a b", ["a==1", "b==1"], exact=False)
    assert out.failed == []
    assert table.stage == {"a": "2", "b": "1"}
    assert table.built == []


def test_what_must_be_built_is_built() -> None:
    table = Table({"a": ["1"], "b": ["1", "2"]}, sdists=["a==1"])
    fit(table, "a b", ["a==1", "b==1"], exact=False)
    assert table.stage == {"a": "1", "b": "1"}


def test_lines_that_fail_are_listed_in_order() -> None:
    table = Table({"a": ["1"], "c": ["1", "2"], "e": ["1"]}, d="build-failed")
    out = fit(table, "a b c d e", ["c==1"])
    assert [(item["requirement"], item["code"]) for item in out.failed] == [
        ("b", "no-such-package"),
        ("d", "build-failed"),
    ]
    assert out.failed[0]["reason"] == "b can't be had."
    assert out.failed[0]["hint"] == "a hint"
    assert table.stage == {"a": "1", "c": "1", "e": "1"}
    assert [r.name for r in out.accepted] == ["a", "c", "e"]


def test_nothing_can_be_had() -> None:
    table = Table({})
    out = fit(table, "a b")
    assert out.accepted == []
    assert table.stage == {}
    assert len(out.failed) == 2


@pytest.mark.parametrize("code", ["disk-full", "read-only", "cancelled", "timeout", "installer-missing"])
def test_errors_that_are_no_lines_fault_end_the_search(code: str) -> None:
    table = Table({"a": ["1"]}, b=code)
    with pytest.raises(OverlayError) as e:
        fit(table, "a b")
    assert e.value.code == code
    assert len(table.calls) == 1


def test_an_index_that_is_away_is_not_asked_for_every_line() -> None:
    names = " ".join(f"p{n}" for n in range(40))
    table = Table({}, **dict.fromkeys(names.split(), "index-unreachable"))
    with pytest.raises(OverlayError) as e:
        fit(table, names)
    assert e.value.code == "index-unreachable"
    assert len(table.calls) < 12


def test_what_is_on_the_machine_needs_no_index() -> None:
    table = Table({"a": ["1", "2"], "b": ["1"]}, away=True)
    fit(table, "a b", ["a==1"])
    assert table.stage == {"a": "1", "b": "1"}
    assert [call.get("offline") for call in table.calls] == [None, True]


def test_a_server_of_one_line_that_is_away() -> None:
    table = Table({"a": ["1"]}, b="index-unreachable")
    out = fit(table, "https://away.example/b-1-py3-none-any.whl a")
    assert [item["code"] for item in out.failed] == ["index-unreachable"]
    assert table.stage == {"a": "1"}


def test_another_file_is_never_taken_for_want_of_the_right_one() -> None:
    table = Table({"a": ["1"], "b": ["1", "2"]}, a="bad-package")
    out = fit(table, "a b", ["a==1 --hash=sha256:00", "b==1 --hash=sha256:00"])
    assert [item["code"] for item in out.failed] == ["bad-package"]
    assert table.stage == {"b": "1"}
    assert all(call["limits"] for call in table.calls)
