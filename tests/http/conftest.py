"""Every test of this folder runs against both servers: the embedded one and NGINX Unit."""

import pytest

import servers
from servers import Serve


@pytest.fixture(scope="module", params=["embedded", pytest.param("unit", marks=pytest.mark.unit)])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Starts a server of the kind under test: `with serve(root) as server`."""
    kinds: dict[str, Serve] = {"embedded": servers.embedded, "unit": servers.unit}
    return kinds[request.param]
