"""The OpenAPI document says what the handlers do, and the handlers do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from openapi_spec_validator import validate

from overlayspawner.payload import modules
from overlayspawner.payload.actions import FIELDS
from overlayspawner.payload.contract import CODES, KINDS, LIFETIMES, MODES
from overlayspawner.payload.export import FILES
from overlayspawner.payload.installer import progress
from overlayspawner.payload.server import body, job, jobs
from overlayspawner.payload.server.handlers import ROUTES, SCOPES, OverlayHandler
from tests.server.conftest import RunningServer

FILE = Path(__file__).parents[2] / "docs" / "reference" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
VERBS = ("get", "head", "post", "put", "patch", "delete")


def schema_of(path: str, verb: str, status: str) -> dict[str, Any]:
    """The schema of an answer, with the components it refers to."""
    response = DOCUMENT["paths"][path][verb]["responses"][status]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    return {**response["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}


def fits(data: object, path: str, verb: str = "get", status: str = "200") -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema_of(path, verb, status), format_checker=checker).validate(data)


def test_it_is_an_openapi_document() -> None:
    validate(DOCUMENT)


def test_every_route_and_verb_is_described_and_every_described_one_is_there() -> None:
    there = set()
    for pattern, handler in ROUTES:
        if pattern == ".*":
            continue
        path = "/" + re.sub(r"\(.*?\)", "{id}", re.sub(r"\(\?P<(\w+)>.*?\)", r"{\1}", pattern))
        there |= {
            (path, verb) for verb in VERBS if getattr(handler, verb) is not getattr(OverlayHandler, verb)
        }
    described = {(path, verb) for path, item in DOCUMENT["paths"].items() for verb in item if verb in VERBS}
    assert described == there


def test_the_lists_of_values_are_the_code_s() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert tuple(schemas["Scope"]["enum"]) == SCOPES
    assert tuple(schemas["ExportFormat"]["enum"]) == tuple(FILES)
    assert tuple(schemas["JobRequest"]["properties"]["action"]["enum"]) == body.ACTIONS
    assert tuple(schemas["NextStart"]["properties"]["mode"]["enum"]) == body.MODES
    assert set(schemas["Job"]["properties"]["request"]["properties"]) == {
        field for fields in FIELDS.values() for field in fields
    }
    assert set(schemas["Job"]["properties"]["state"]["enum"]) == {"queued", "running", *jobs.FINISHED}
    assert tuple(schemas["JobPackage"]["properties"]["state"]["enum"]) == progress.STATES
    assert schemas["Job"]["properties"]["packages"]["maxItems"] == job.MAX_PACKAGES == progress.MAX_PACKAGES
    status = schemas["Status"]["properties"]
    assert tuple(status["mode"]["enum"]) == MODES
    assert tuple(status["kind"]["enum"]) == KINDS
    assert tuple(status["lifetime"]["enum"]) == LIFETIMES
    assert tuple(module_sources()) == modules.SOURCES
    pattern = DOCUMENT["components"]["parameters"]["JobId"]["schema"]["pattern"].strip("^$")
    assert f"jobs/({pattern})" in dict(ROUTES)


def module_sources() -> list[str]:
    found = DOCUMENT["components"]["schemas"]["Module"]["properties"]["packages"]["items"]
    return list(found["properties"]["source"]["enum"])


def test_the_error_codes_it_names_exist() -> None:
    told = DOCUMENT["components"]["responses"]["Error"]["description"]
    codes = set(re.findall(r"`([a-z-]+)`", told))
    assert len(codes) > 10
    assert codes <= set(CODES)


@pytest.fixture(scope="module")
def busy_server(server: RunningServer) -> RunningServer:
    """A server on which one thing of each kind has happened."""
    server.install("tinytree", "numpy" if "numpy" in server.packages("base") else "packaging")
    server.install("tinytree==1.0")
    assert server.job("install", install=["tinynowhere"])["state"] == "failed"
    assert server.job("uninstall", uninstall=["tinytree"])["state"] == "done"
    server.install("tinyscript")
    return server


@pytest.mark.slow
def test_status(busy_server: RunningServer) -> None:
    fits(busy_server.overlay("status"), "/status")


@pytest.mark.slow
@pytest.mark.parametrize("scope", SCOPES)
def test_packages(busy_server: RunningServer, scope: str) -> None:
    data = busy_server.overlay("packages?scope=" + scope)
    fits(data, "/packages")
    assert data["packages"] or scope == "user-site"
    assert {item["where"] for item in data["packages"]} <= {scope}


@pytest.mark.slow
@pytest.mark.parametrize("form", FILES)
def test_export(busy_server: RunningServer, form: str) -> None:
    data = busy_server.overlay("export?format=" + form)
    fits(data, "/export")
    assert (data["format"], data["filename"]) == (form, FILES[form])
    assert "tinyscript" in data["content"] and "tinytree" not in data["content"]


@pytest.mark.slow
@pytest.mark.parametrize("query", ["format=elf", "format=docker&pinned=yes", "what=docker"])
def test_export_of_nothing(busy_server: RunningServer, query: str) -> None:
    answer = busy_server.get("overlay/v1/export?" + query)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


@pytest.mark.slow
def test_revisions(busy_server: RunningServer) -> None:
    data = busy_server.overlay("revisions")
    fits(data, "/revisions")
    assert [item["id"] for item in data["revisions"]] == [4, 3, 2, 1]


@pytest.mark.slow
def test_jobs(busy_server: RunningServer) -> None:
    data = busy_server.overlay("jobs")
    fits(data, "/jobs")
    assert len(data["jobs"]) == 5
    for item in data["jobs"]:
        one = busy_server.overlay("jobs/" + item["id"])
        fits(one, "/jobs/{id}")
        assert {key: value for key, value in one.items() if key != "log"} == item
        fits(busy_server.delete("overlay/v1/jobs/" + item["id"]).json(), "/jobs/{id}", "delete")


@pytest.mark.slow
def test_a_new_job(busy_server: RunningServer) -> None:
    answer = busy_server.post("overlay/v1/jobs", json={"action": "sync"})
    fits(answer.json(), "/jobs", "post", "202")
    fits(busy_server.finished(answer.json()), "/jobs/{id}")


@pytest.mark.slow
def test_errors(busy_server: RunningServer) -> None:
    for answer in (
        busy_server.post("overlay/v1/jobs", json={"action": "explode"}),
        busy_server.get("overlay/v1/nothing"),
        busy_server.request("PUT", "overlay/v1/jobs"),
    ):
        fits(answer.json(), "/jobs", "post", "default")


@pytest.mark.slow
def test_a_wrong_shape_would_be_noticed(busy_server: RunningServer) -> None:
    data = busy_server.overlay("status")
    with pytest.raises(jsonschema.ValidationError):
        fits({**data, "more": 1}, "/status")
    del data["mode"]
    with pytest.raises(jsonschema.ValidationError):
        fits(data, "/status")
