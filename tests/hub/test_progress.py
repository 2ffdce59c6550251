"""The journal of a spawn, and the progress of a pull."""

from __future__ import annotations

import asyncio

import pytest
from docker.errors import APIError, ImageNotFound

from overlayspawner.hub.progress import MAX_EVENTS, Journal
from overlayspawner.hub.pull import PullProgress, split_image


async def test_each_page_sees_all_of_it_in_order() -> None:
    journal = Journal()
    journal.add(10, "one")

    async def follow() -> list[tuple[int, str]]:
        return [(e["progress"], e["message"]) async for e in journal.follow()]

    first = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    journal.add(50, "two")
    journal.add(20, "three")  # a bar does not go back
    journal.add(50, "three")
    second = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    journal.close()
    journal.add(90, "too late")
    expected = [(10, "one"), (50, "two"), (50, "three")]
    assert await asyncio.wait_for(first, 5) == expected
    assert await asyncio.wait_for(second, 5) == expected
    assert await asyncio.wait_for(follow(), 5) == expected


async def test_what_a_page_does_to_an_event_is_its_own_matter() -> None:
    journal = Journal()
    journal.add(10, "one")
    journal.close()
    for _ in range(2):
        async for event in journal.follow():
            assert event.pop("message") == "one"


async def test_a_flood_of_lines_is_bounded() -> None:
    journal = Journal()
    for i in range(MAX_EVENTS * 2):
        journal.add(1, str(i))
    journal.close()
    assert len([e async for e in journal.follow()]) == MAX_EVENTS


def test_layers_are_added_up() -> None:
    progress = PullProgress()
    for event in (
        {"status": "Pulling from library/x", "id": "latest"},
        {"status": "Pulling fs layer", "id": "a", "progressDetail": {}},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 10, "total": 100}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 50}},
        {"status": "Download complete", "id": "a", "progressDetail": {}},
        {"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 100}},
        {"status": "Already exists", "id": "c", "progressDetail": {}},
        {"status": "Digest: sha256:1"},
    ):
        progress.take(event)
    assert progress.totals() == (105, 150)


def test_an_error_in_the_stream_is_an_error() -> None:
    with pytest.raises(ImageNotFound):
        PullProgress().take({"error": "manifest for x:y not found"})
    with pytest.raises(APIError, match="unexpected EOF"):
        PullProgress().take({"errorDetail": {}, "error": "unexpected EOF"})


@pytest.mark.parametrize(
    "image, parts",
    [
        ("busybox", ("busybox", "latest")),
        ("busybox:1.29", ("busybox", "1.29")),
        ("host:5000/a/b", ("host:5000/a/b", "latest")),
        ("host:5000/a/b:c", ("host:5000/a/b", "c")),
        ("a/b@sha256:1234", ("a/b", "sha256:1234")),
    ],
)
def test_names_of_images(image: str, parts: tuple[str, str]) -> None:
    assert split_image(image) == parts
