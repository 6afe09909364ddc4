"""What we serve is in the vendor's specification, under the same names."""

from __future__ import annotations

import pytest

from tests.standins.hetzner_api import SPECIFICATION
from tests.standins.openapi import specification, specs
from tinyfat.standins.hetzner.server import ROUTES


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ROUTES])
def test_every_route_is_in_the_specification(method: str, path: str) -> None:
    spec = specification(SPECIFICATION)
    if spec is None:
        pytest.skip(
            f"no {SPECIFICATION} in {specs()}: save openapi/hcloud.json of github.com/MaximilianKoestler/"
            "hcloud-openapi there, or name another folder by TINYFAT_SPECS"
        )
    assert (method, path) in {(operation.method, operation.path) for operation in spec.operations}
