"""What Docker 20.10 and Podman 4.3 were heard to say, and what it means."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from docker.errors import APIError, DockerException

from overlayspawner.hub import engine_reasons as reasons
from overlayspawner.hub.deaths import Death
from overlayspawner.hub.image_facts import ImageFacts

SAID = [
    ("pull", 404, "no such image: nobody/has: No such image: nobody/has:latest", "image"),
    ("pull", 404, "failed to find image a:1: docker.io/library/a:1: No such image", "image"),
    ("pull", 404, "manifest for 127.0.0.1:5000/slow:typo not found: manifest unknown", "image"),
    (
        "pull",
        404,
        "pull access denied for x, repository does not exist or may require 'docker login'",
        "image",
    ),
    ("pull", 400, "invalid reference format: repository name must be lowercase", "image-name"),
    ("pull", 500, "normalizing name for compat API: invalid reference format", "image-name"),
    (
        "pull",
        500,
        'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused',
        "registry",
    ),
    (
        "pull",
        500,
        'Get "https://r.invalid/v2/": dial tcp: lookup r.invalid on 10.0.0.1:53: no such host',
        "registry",
    ),
    ("pull", 500, 'Get "https://r/v2/": context deadline exceeded (Client.Timeout exceeded)', "registry"),
    ("pull", 500, 'Get "https://r/v2/": x509: certificate signed by unknown authority', "registry"),
    ("pull", 500, 'Head "http://127.0.0.1:1/v2/x/manifests/1": no basic auth credentials', "registry-login"),
    ("pull", 500, "initializing source docker://x: reading manifest: unauthorized", "registry-login"),
    ("pull", 500, "filesystem layer verification failed for digest sha256:0", "image-damaged"),
    ("pull", 500, "failed to register layer: unexpected EOF", "image-damaged"),
    ("pull", 500, "write /var/lib/docker/tmp/x: no space left on device", "disk"),
    ("pull", 404, "no matching manifest for linux/amd64 in the manifest list entries", "architecture"),
    ("create", 404, "No such image: nobody/has:latest", "image"),
    ("create", 400, "Minimum memory limit allowed is 6MB", "settings"),
    ("create", 400, 'invalid CapAdd: unknown capability: "CAP_NO"', "settings"),
    ("create", 400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "settings"),
    ("create", 400, "something that nobody has heard", "settings"),
    ("create", 500, "something that nobody has heard", "engine-failed"),
    ("create", 400, 'invalid mount config for type "bind": bind source path does not exist: /no', "mount"),
    (
        "create",
        500,
        "making volume mountpoint for volume /proc/no/such: mkdir /proc/no: no such file",
        "mount",
    ),
    ("create", 409, 'Conflict. The container name "/x" is already in use by container "b"', "name-taken"),
    ("create", 500, "container create: stat /dev/nosuch: no such file or directory", "engine-failed"),
    ("start", 404, "network no-such-net not found", "network"),
    ("create", 500, "unable to find network with name or ID no-such-net: network not found", "network"),
    (
        "start",
        500,
        "Error starting userland proxy: listen tcp4 0.0.0.0:1: bind: address already in use",
        "port",
    ),
    ("start", 500, "Bind for 0.0.0.0:80 failed: port is already allocated", "port"),
    (
        "start",
        500,
        "error while creating mount source path '/proc/no': mkdir /proc/no: no such file",
        "mount",
    ),
    (
        "start",
        500,
        "runc create failed: unable to set memory limit to 1048576 (current usage: 2)",
        "settings",
    ),
    ("start", 500, "error setting rlimit type 7: operation not permitted: unknown", "settings"),
    ("start", 400, 'exec: "nosuch": executable file not found in $PATH: unknown', "command"),
    ("start", 500, "unable to find user nosuch: no matching entries in passwd file", "command"),
    ("start", 400, "exec /bin/sh: exec format error: unknown", "architecture"),
    ("start", 500, "fork/exec: argument list too long", "too-large"),
]


@pytest.mark.parametrize(("step", "status", "text", "code"), SAID)
def test_what_engines_say(step: str, status: int, text: str, code: str) -> None:
    error = APIError("failed", response=SimpleNamespace(status_code=status), explanation=text)
    reason = reasons.of_error(error, step)
    assert reason is not None and reason.code == code, reason
    assert text.rstrip(".") in reason.message


def test_what_podman_says_when_it_is_attached_to() -> None:
    text = (
        '409 Client Error for x: Conflict ("preparing container 0a1b for attach: unable to set memory limit")'
    )
    assert reasons.of_refusal_text(text) == reasons.Reason("settings", "unable to set memory limit")
    assert reasons.of_refusal_text("the engine did not answer in 3 seconds") is None


def test_secrets_stay_out_and_words_are_few() -> None:
    text = "Get https://me:hunter2@r/v2/: <b>\x1b[1m" + "x" * 5000 + " 0123456789abcdef"
    reason = reasons.of_error(APIError("no", explanation=text), "create", {"0123456789abcdef"})
    assert reason is not None
    assert "hunter2" not in reason.message and "0123456789abcdef" not in reason.message
    assert len(reason.words) <= reasons.MAX_CHARS and "\x1b" not in reason.message


def test_what_is_no_matter_of_the_engine() -> None:
    """A mistake in a hook of the administrator's is left as it is."""
    assert reasons.of_error(FileNotFoundError("users.csv"), "create") is None
    assert reasons.of_error(TypeError("hook() takes no argument"), "create") is None
    unexpected = TypeError("HostConfig.__init__() got an unexpected keyword argument 'x'")
    assert reasons.of_error(unexpected, "create") == reasons.Reason("settings", str(unexpected))


def test_addresses_that_are_none() -> None:
    import docker

    for url, code in (("foo://bar", "engine"), ("unix:///no/such.sock", "engine")):
        with pytest.raises(DockerException) as failed:
            docker.APIClient(base_url=url, version="auto")
        reason = reasons.of_error(failed.value, "create")
        assert reason is not None and reason.code == code, failed.value


@pytest.mark.parametrize(
    ("death", "tail", "code"),
    [
        (Death(1), "exec /bin/sh: exec format error\n", "architecture"),
        (Death(1), "exec /bin/tini: argument list too long", "too-large"),
        (Death(3), "exec /bin/sh: exec format error", "exited"),
        (Death(1), "exec format error was yesterday", "exited"),
        (Death(137, out_of_memory=True), "exec /bin/sh: exec format error", "out-of-memory"),
        (Death(127), "", "command"),
    ],
)
def test_deaths(death: Death, tail: str, code: str) -> None:
    assert reasons.of_death(death, tail) == code


def test_every_code_is_complete() -> None:
    assert set(reasons.CODES) - set(reasons.HINTS) == {"exited"}
    assert set(reasons.CODES) >= reasons.UNCOUNTED | reasons.OF_IMAGE | reasons.LOST


def test_what_counts() -> None:
    """What a user chose, and what is outside of the hub, does not stop it; a dead engine and mistakes do."""
    assert not reasons.Reason("registry").counts(chosen=False)
    assert not reasons.Reason("image").counts(chosen=True)
    for code in ("image", "engine", "mount"):
        assert reasons.Reason(code).counts(chosen=False)


def test_an_image_of_podman_s_own_has_no_name_elsewhere() -> None:
    facts = ImageFacts("sha256:1", digests=("localhost/mine@sha256:2", "quay.io/a/b@sha256:3"))
    assert facts.public_name("localhost/mine:1") == "localhost/mine:1"
    assert facts.public_name("quay.io/a/b:1") == "quay.io/a/b@sha256:3"
