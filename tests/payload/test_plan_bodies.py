"""Bodies of `POST plan`, whatever they are: refused with a code, or requirements and names alone."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overlayspawner.payload.contract import CODES, OverlayError
from overlayspawner.payload.requirements import parse, parse_name
from overlayspawner.payload.server import body

REFUSALS = {"bad-request", "bad-requirement", "option-not-allowed"}

pieces = st.sampled_from([
    "tiny", ">=1", "==1.0", "~=2", "[a]", "[", "@", " @ ", ",", ";", "; python_version>'3'", "#", "${HOME}",
    "-", "--", "-r", "-e", " --pre", "--index-url=http://x/", "-r/etc/passwd", "../", "file:///etc/passwd",
    "https://h/x.whl", "git+https://h/r", "\\", "'", '"', "é", "=", "<", "!", " ", "\n", "\r", "\t", "\0",
    "\x0b", "\x85", "\u2028", "\ud800",
])  # fmt: skip
texts = st.one_of(st.lists(pieces, max_size=5).map("".join), st.text(max_size=30))
json_values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
fields = st.one_of(st.sampled_from([*body.LISTS, *body.LISTS, "action", "force"]), texts)
bodies = st.dictionaries(fields, st.one_of(json_values, st.lists(texts, max_size=4)), max_size=4)


def look(data: dict[str, Any]) -> bool:
    """Whether it is taken; what is taken can't be an option or a second line for any installer."""
    try:
        found = body.plan(data)
    except OverlayError as e:
        assert e.code in REFUSALS and e.code in CODES
        assert e.status == 400 and e.message
        return False
    assert set(found) == set(body.LISTS) and any(found.values())
    for line in found["install"]:
        assert not line.strip().startswith("-")
        assert " -" not in line.split(";")[0].split(" @ ")[0]
        # what is written for the installer is one line, with nothing that any tool takes for its end
        written = parse(line).text
        assert len(written.splitlines()) == 1 and "\0" not in written and not written.startswith("-")
    for field in ("uninstall", "upgrade"):
        for name in found[field]:
            assert parse_name(name).replace("-", "").isalnum()
    return True


@settings(max_examples=300, deadline=None)
@given(bodies)
def test_any_body(data: dict[str, Any]) -> None:
    look(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(body.LISTS), st.lists(texts, min_size=1, max_size=3))
def test_lists_of_texts(field: str, lines: list[str]) -> None:
    look({field: lines})


def test_good_ones_are_taken() -> None:
    assert look({"install": ["tinyleaf>=1", "tinyextra[leaf]"], "uninstall": [], "upgrade": ["Tiny_Tree"]})
    assert not look({}) and not look({"install": []}) and not look({"install": ["x"], "force": True})
    assert not look({"install": ["x"] * (body.MAX_REQUIREMENTS + 1)})
