"""What is accepted as a requirement, what is refused and how, and what a requirements file keeps."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayspawner.payload import requirements
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import Requirements, normalise, parse, parse_all, parse_name


@pytest.fixture(params=["packaging", "without"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With ``packaging``, and on an image that has neither it nor pip."""
    if request.param == "without":
        monkeypatch.setattr(requirements, "packaging", lambda: None)
    else:
        assert requirements.packaging() is not None
    return str(request.param)


OPTIONS = [
    "-r /etc/passwd",
    "-r/etc/passwd",
    "--index-url=https://example.org/simple",
    "-e .",
    "  --pre",
    "humanize --hash=sha256:00",
    "humanize -i https://example.org",
    "humanize\n--index-url=https://example.org",
    "humanize\r-r x",
    "humanize\x00",
    "humanize\x0b-r x",
    "humanize\x85-r x",
    "humanize\u2028-r x",
    "humanize ; python_version>'3' --config-settings=x",
    "humanize\n",
    "humanize @ git+ssh://-oProxyCommand=x/y",
    "git+https://example.org/r@--upload-pack=x",
    "hg+https://example.org/r@--config=x",
]

MISTAKES = [
    "",
    "   ",
    "!",
    "humanize >=",
    "humanize 4.9",
    "humanize[",
    "humanize[a b]",
    "humanize==",
    "==1.0",
    "humanize @",
    "humanize @ /etc/passwd",
    "humanize @ javascript:alert(1)",
    "humanize \\",
    "humanize # comment",
    "../humanize",
    "/etc/passwd",
    ".",
    "./thing.whl",
    "https://user:secret@example.org/humanize-1.0-py3-none-any.whl",
    "humanize @ https://token@example.org/humanize-1.0.tar.gz",
    "https:///nowhere.whl",
    "https://example.org:99999/humanize-1.0-py3-none-any.whl",
    "humanize @ https://example.org:x/humanize-1.0.tar.gz",
    "humanize @ https://example.org/\ud800.tar.gz",
    "humanize @ https://example.org/\udc80.tar.gz",
    "x" * 3000,
]


@pytest.mark.parametrize("text", OPTIONS)
def test_options_are_refused(text: str, library: str) -> None:
    with pytest.raises(OverlayError) as e:
        parse(text)
    assert e.value.code == "option-not-allowed"


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_refused(text: str, library: str) -> None:
    with pytest.raises(OverlayError) as e:
        parse(text)
    assert e.value.code == "bad-requirement"


@pytest.mark.parametrize("value", [None, 3, b"humanize", ["humanize"], {}])
def test_only_text_is_a_requirement(value: object) -> None:
    with pytest.raises(OverlayError) as e:
        parse(value)
    assert e.value.code == "bad-requirement"
    with pytest.raises(OverlayError):
        parse_all("humanize")


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(OverlayError) as e:
        parse("humanize @ https://me:hunter2@example.org/humanize-1.0.tar.gz")
    assert "hunter2" not in str(e.value.to_dict())


@pytest.mark.parametrize(
    ("text", "name", "extras", "specifier"),
    [
        ("humanize", "humanize", (), ""),
        ("Zope.Interface", "zope-interface", (), ""),
        ("ruamel_yaml >= 0.17, <1", "ruamel-yaml", (), ">= 0.17, <1"),
        ("dask[complete,Array]==2024.1.0", "dask", ("complete", "array"), "==2024.1.0"),
        ("numpy~=1.26", "numpy", (), "~=1.26"),
        ("torch==2.1.0+cpu", "torch", (), "==2.1.0+cpu"),
        ("six (>=1.16)", "six", (), ">=1.16"),
        ("a", "a", (), ""),
        ("pip==23.*", "pip", (), "==23.*"),
    ],
)
def test_requirements_are_read(
    text: str, name: str, extras: tuple[str, ...], specifier: str, library: str
) -> None:
    found = parse(text)
    assert (found.name, found.extras, found.specifier) == (name, extras, specifier)


def test_markers_and_urls(library: str) -> None:
    found = parse('tomli>=2; python_version < "3.11"')
    assert (found.name, found.marker) == ("tomli", 'python_version < "3.11"')
    found = parse("humanize @ https://example.org/humanize-4.9.0-py3-none-any.whl")
    assert (found.name, found.url) == ("humanize", "https://example.org/humanize-4.9.0-py3-none-any.whl")
    found = parse("https://example.org/Human_Ize-4.9.0-py3-none-any.whl")
    assert found.text == "human-ize @ https://example.org/Human_Ize-4.9.0-py3-none-any.whl"
    assert parse("git+https://example.org/a/b.git@v1#egg=thing").name == "thing"
    found = parse("git+ssh://git@example.org/a/b.git")
    assert (found.name, found.key) == ("", "git+ssh://git@example.org/a/b.git")
    assert parse("https://${USER}:${TOKEN}@example.org/x.tar.gz").url
    found = parse("/srv/My_Wheels/thing-1.0-py3-none-any.whl")
    assert found.text == "thing @ file:///srv/My_Wheels/thing-1.0-py3-none-any.whl"


def test_the_administrator_may_use_credentials() -> None:
    assert parse("thing @ https://u:p@example.org/t.tar.gz", trusted=True).name == "thing"


def test_a_name_is_a_name_only() -> None:
    assert parse_name("Zope.Interface") == "zope-interface"
    for text in ("humanize>=4", "humanize[x]", "https://example.org/x-1-py3-none-any.whl"):
        with pytest.raises(OverlayError) as e:
            parse_name(text)
        assert e.value.code == "bad-requirement"


@given(st.text(alphabet=string.printable + "\x00\x85\u2028é", max_size=40))
def test_what_is_accepted_is_one_line_and_no_option(text: str) -> None:
    try:
        found = parse(text)
    except OverlayError as e:
        assert e.code in ("option-not-allowed", "bad-requirement")
        return
    assert len(found.text.splitlines()) == 1
    assert not found.text.startswith("-")
    assert " -" not in found.text.partition(";")[0]
    assert Requirements(found.text).entries()[0].key == found.key


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True))
def test_normalising_is_idempotent(name: str) -> None:
    once = normalise(name)
    assert normalise(once) == once
    assert once == once.lower()
    assert not set("._") & set(once)


FILE = """\
# my packages

humanize>=3  # for dates
Zope.Interface
-e ./mine
numpy<2
"""


def test_adding_replaces_the_line_and_keeps_comments() -> None:
    text = Requirements(FILE).with_added(parse("humanize>=4")).with_added(parse("new")).to_text()
    assert text == FILE.replace("humanize>=3", "humanize>=4") + "new\n"


def test_adding_matches_names_as_indexes_do() -> None:
    text = Requirements(FILE).with_added(parse("zope_interface==6")).to_text()
    assert text == FILE.replace("Zope.Interface", "zope_interface==6")


def test_adding_twice_is_adding_once() -> None:
    once = Requirements(FILE).with_added(parse("humanize>=4"))
    assert once.with_added(parse("humanize>=4")).to_text() == once.to_text()


def test_removing() -> None:
    assert Requirements(FILE).with_removed("numpy").to_text() == FILE.replace("numpy<2\n", "")
    assert Requirements(FILE).with_removed("absent").to_text() == FILE


def test_what_is_no_requirement_is_kept_and_named() -> None:
    file = Requirements(FILE)
    assert file.ignored() == ["-e ./mine"]
    assert file.names() == {"humanize", "zope-interface", "numpy"}
    assert file.to_text() == FILE


def test_a_line_per_marker_becomes_one() -> None:
    file = Requirements("a<2; python_version<'3'\nb\na>=2; python_version>='3'\n")
    assert file.with_added(parse("a==3")).to_text() == "a==3\nb\n"


def test_a_package_named_twice_in_one_request() -> None:
    before = Requirements("humanize==3  # mine\nrich\n")
    asked = [parse(t) for t in ("humanize<4; python_version < '3.9'", "humanize>=4", "rich", "humanize>=4")]
    after = before.with_asked(asked)
    assert after.lines == ["humanize<4; python_version < '3.9'  # mine", "humanize>=4", "rich"]
    assert after.with_asked(asked).lines == after.lines
    assert after.with_asked([parse("humanize")]).lines == ["humanize  # mine", "rich"]
