"""How much hypothesis tries: enough to find slips, few enough for a run before every commit."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fastdl",
    deadline=None,  # a busy machine is no defect
    max_examples=50,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fastdl")
