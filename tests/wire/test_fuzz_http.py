"""The HTTP API by chance, from its own OpenAPI document, against a server in a process of its own (schemathesis).

Every answer has a status, a content type and a body that the document names for it, and nothing is logged as our own bug.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.serving import Process, process

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
_rules = pytest.importorskip("schemathesis.specs.openapi.checks")

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "client-examples" / "openapi.json").read_text())
"""What the server answers at /openapi.json; another test holds them equal."""
EXAMPLES = int(os.environ.get("FUZZ", "0")) // 10 or 2
"""Requests to each operation; where more time is given, also every odd value that schemathesis can think of."""
CHECKS = [_rules.status_code_conformance, _rules.content_type_conformance, _rules.response_schema_conformance]

api = schemathesis.openapi.from_dict(DOCUMENT)
api.config.phases.coverage.enabled = EXAMPLES > 2
api.config.phases.examples.enabled = False


@pytest.fixture(scope="module")
def served() -> Iterator[Process]:
    """A server that has nobody to call."""
    with process(IMPORTS_LANES=0) as made:
        asyncio.run(made.start())
        yield made
        failed = [line for line in made.log() if "exception" in line]
        assert failed == [], failed


@api.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_names(case: Any, served: Process) -> None:
    headers = {"Authorization": f"Bearer {served.token('admin')}"}
    response = case.call(base_url=served.http_url, headers=headers, timeout=30)
    case.validate_response(response, checks=CHECKS)
