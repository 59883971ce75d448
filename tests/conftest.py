"""Set-up that every test shares."""

from __future__ import annotations

import pytest
import torch

BACKENDS = ("cpu", "emulated", "cuda")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="run tests of kernels on this backend only (may be repeated); default: all of " + ", ".join(BACKENDS),
    )


def pytest_configure() -> None:
    # Tests run beside each other; one worker must not take the cores of another.
    torch.set_num_threads(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("backend") or BACKENDS
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest):
    """Yield one `backends.Backend`; the test is skipped by name where it cannot run."""
    from backends import BACKENDS

    chosen = BACKENDS[request.param]
    reason = chosen.missing()
    if reason is not None:
        pytest.skip(reason)
    return chosen
