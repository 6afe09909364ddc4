"""What every test of properties has in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No example has a deadline, nor the making of examples: a busy machine misses them now and then, which says nothing.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
