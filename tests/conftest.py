"""What holds for every test: how much hypothesis tries, and that no test knows the secrets of another."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from fastdl import redact

# Enough to find slips, few enough for a run before every commit.
settings.register_profile(
    "fastdl",
    deadline=None,  # a busy machine is no defect
    max_examples=50,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fastdl")


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> None:
    """Forget what was sent in this process: it would be taken out of what the next test looks at."""
    redact._given.clear()
    redact._passing.clear()
