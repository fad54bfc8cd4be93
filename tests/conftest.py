"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machine may be busy: how long an example takes says nothing about what it shows.
settings.register_profile("followme", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("followme")
