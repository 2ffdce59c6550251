"""What a user chooses for one start, without any hub: what is taken from forms, links and stored options."""

from __future__ import annotations

import html.parser
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.utils import maybe_future
from tornado import web

from overlayspawner.hub import choice
from overlayspawner.hub.choice import Choice
from overlayspawner.hub.docker import OverlayDockerSpawner
from overlayspawner.hub.failure import spawn_failure
from tests.support.spawner import bare_spawner


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"overlay": "safe"}, "safe"),
        ({"overlay": "reset", "image": "x"}, "reset"),
        ({"overlay": "normal"}, None),
        ({"overlay": {"what": "reset", "nonce": "abc"}}, "reset"),
    ],
)
def test_a_choice_is_taken_out_of_options(options: dict[str, Any], what: str | None) -> None:
    rest, chosen = choice.split(options)
    assert (chosen and chosen.what) == what
    assert rest == {k: v for k, v in options.items() if k != "overlay"}
    assert options["overlay"]  # the caller's own is left alone


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overlay": ["reset"]},
        {"overlay": "mine"},
        {"overlay": {"what": "explode", "nonce": "x"}},
        {"overlay": {"what": "reset"}},
        # what only a user's own request can hold: it must not make a start fail that the hub counts
        {"overlay": {"what": "normal", "nonce": "x"}},
        {"overlay": {"what": "safe", "nonce": "x" * 200_000}},
        {"overlay": {"what": "safe", "nonce": 1}},
        {"overlay": {"what": ["safe"], "nonce": "x"}},
        {"overlay": 1, "a": "b"},
    ],
)
def test_an_administrator_s_own_option_of_that_name_stays(options: dict[str, Any]) -> None:
    assert choice.split(options) == (options, None)


def test_the_nonce_survives_storage_and_differs_between_choices() -> None:
    one, other = choice.new("reset"), choice.new("reset")
    assert one.nonce != other.nonce
    stored = json.loads(json.dumps(choice.with_choice({"image": "x"}, one)))
    assert choice.split(stored) == ({"image": "x"}, one)


def test_forms() -> None:
    assert choice.from_form({"overlay": ["normal"], "a": ["b"]}) == ({"a": ["b"]}, None)
    rest, chosen = choice.from_form({"overlay": ["reset"]})
    assert (rest, chosen and chosen.what) == ({}, "reset")
    assert choice.from_form({"overlay": ["mine"]}) == ({"overlay": ["mine"]}, None)
    assert choice.from_form({"overlay": ["safe", "reset"]}) == ({"overlay": ["safe", "reset"]}, None)


@pytest.mark.parametrize("name", ["overlay", "opt-overlay"])
def test_links(name: str) -> None:
    rest, chosen = choice.from_query({name: ["safe"], "a": ["b"]})
    assert (rest, chosen and chosen.what) == ({"a": ["b"]}, "safe")
    assert choice.from_query({name: ["mine"]}) == ({name: ["mine"]}, None)
    for values in (["reset"], ["safe", "reset"]):
        with pytest.raises(web.HTTPError) as refused:
            choice.from_query({name: values})
        assert refused.value.status_code == 400


class Elements(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_fragment_is_plain_html(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Elements(choice.fragment()).found
    assert [a["value"] for tag, a in found if tag == "option"] == ["normal", "safe", "reset"]
    assert [a["value"] for tag, a in found if "selected" in a] == ["normal"]
    assert not [tag for tag, a in found if tag == "script" or any(k.startswith("on") for k in a)]
    # a translation is a text, not HTML
    monkeypatch.setattr(choice, "_", lambda text: "<b onclick=x>&" + text)
    assert "<b" not in choice.fragment() and "&lt;b" in choice.fragment()


@pytest.mark.parametrize(
    ("form", "mode", "ours"),
    [
        ("", "auto", False),
        (" \n", "auto", False),
        ("<input name=a>", "auto", True),
        ("", "always", True),
        ("<input name=a>", "never", False),
        ('<input name="overlay">', "always", False),
    ],
)
def test_where_the_fragment_is_shown(form: str, mode: str, ours: bool) -> None:
    got = choice.in_form(form, mode)
    assert got.startswith(form.strip())
    assert (choice.fragment() in got) is ours


def test_a_failed_page_offers_safe_mode_and_shows_nothing_as_html() -> None:
    spawner = SimpleNamespace(
        hub=SimpleNamespace(base_url="/hub/"), user=SimpleNamespace(escaped_name="a%40b"), name="two"
    )
    error: Any = spawn_failure(spawner, "It ended.", reason="exited", tail="<img src=x>", safe=True)
    url = "/hub/spawn/a%40b/two?overlay=safe"
    assert url in error.jupyterhub_message and "<img src=x>" in error.jupyterhub_message
    found = Elements(error.jupyterhub_html_message).found
    assert [a["href"] for tag, a in found if tag == "a"] == [url]
    assert {tag for tag, _ in found} == {"span", "br", "a"}
    plain: Any = spawn_failure(spawner, "It ended.", reason="exited")
    assert "safe" not in plain.jupyterhub_message and not hasattr(plain, "jupyterhub_html_message")


# -- in a spawner -------------------------------------------------------------------------------------


def test_what_the_hub_stores_has_no_choice_in_it() -> None:
    spawner = bare_spawner("storing")
    given = {"image": "x", "overlay": {"what": "safe", "nonce": "n"}}
    spawner.orm_spawner.user_options = given  # as the hub does, before it tells the spawner
    spawner.user_options = given
    assert spawner.user_options == spawner.orm_spawner.user_options == {"image": "x"}
    spawner.user_options = {"image": "x"}  # a hook of the administrator sets them once more
    spawner._overlay_choose()
    assert spawner._overlay_choice == Choice("safe", "n")
    spawner._overlay_choose()
    assert spawner._overlay_choice is None


def subclass(**members: Any) -> Any:
    """Return a spawner whose class an administrator has derived from ours."""
    made = type("Derived", (OverlayDockerSpawner,), members)()
    made.user = SimpleNamespace(name="derived", settings={}, url="/user/x/", groups=[])
    made.orm_spawner = SimpleNamespace(name="", server=None, user=None, user_options={"image": "stored"})
    return made


async def test_an_administrator_s_own_functions_never_see_it() -> None:
    seen: list[Any] = []

    async def options_from_query(self: Any, query: dict[str, Any]) -> dict[str, Any]:
        seen.append(query)
        return {"from": "query"}

    def run_options_from_form(self: Any, form: dict[str, Any]) -> dict[str, Any]:
        seen.append(form)
        return {"from": "form"}

    async def get_options_form(self: Any) -> str:
        return "<p>mine</p>"

    spawner = subclass(
        options_from_query=options_from_query,
        run_options_from_form=run_options_from_form,
        get_options_form=get_options_form,
    )
    got = await spawner.options_from_query({"overlay": ["safe"], "a": ["b"]})
    assert (got["from"], got["overlay"]["what"]) == ("query", "safe")
    got = spawner.run_options_from_form({"overlay": ["reset"], "a": ["b"]})
    assert (got["from"], got["overlay"]["what"]) == ("form", "reset")
    assert seen == [{"a": ["b"]}, {"a": ["b"]}]
    assert (await spawner.get_options_form()).startswith("<p>mine</p>\n<div")


def test_a_link_keeps_what_was_chosen_before() -> None:
    spawner = subclass()
    got = spawner.options_from_query({"overlay": ["safe"]})
    assert got["image"] == "stored" and got["overlay"]["what"] == "safe"
    # other arguments mean what they mean without us
    assert spawner.options_from_query({"image": ["y"], "x": ["z"]}) == {"image": "y"}
    got = spawner.options_from_query({"image": ["y"], "opt-overlay": ["safe"]})
    assert got["image"] == "y" and got["overlay"]["what"] == "safe"


@pytest.mark.parametrize("later", [False, True])
async def test_no_link_becomes_a_reset_by_what_an_administrator_makes_of_it(later: bool) -> None:
    def stripped(form: dict[str, Any]) -> dict[str, Any]:
        return {name: values[0].strip() for name, values in form.items()}

    async def stripped_later(form: dict[str, Any]) -> dict[str, Any]:
        return stripped(form)

    spawner = subclass()
    spawner.options_from_form = stripped_later if later else stripped
    with pytest.raises(web.HTTPError) as refused:
        await maybe_future(spawner.options_from_query({"overlay": ["reset "]}))
    assert refused.value.status_code == 400
    got = await maybe_future(spawner.options_from_query({"overlay": ["safe "], "a": [" b"]}))
    assert got == {"overlay": "safe", "a": "b"}


def test_a_form_takes_back_what_was_asked_for_before() -> None:
    spawner = bare_spawner("undecided")
    spawner.user_options = {"overlay": "reset"}  # as when a named server is made by REST
    spawner.user_options = spawner.run_options_from_form({"overlay": ["normal"], "a": ["b"]})
    spawner._overlay_choose()
    assert spawner._overlay_choice is None


@pytest.mark.parametrize("form", ["<p>a</p>", lambda spawner: "<p>a</p>", "async"])
async def test_every_kind_of_form(form: Any) -> None:
    async def later(spawner: Any) -> str:
        return "<p>a</p>"

    spawner = subclass()
    assert await spawner.get_options_form() == ""
    spawner.options_form = later if form == "async" else form
    assert re.fullmatch(r"<p>a</p>\n<div .*</div>", await spawner.get_options_form())
    spawner.overlay_form = "never"
    assert await spawner.get_options_form() == "<p>a</p>"
    spawner.overlay_form, spawner.overlay_enabled = "always", False
    assert await spawner.get_options_form() == "<p>a</p>"
