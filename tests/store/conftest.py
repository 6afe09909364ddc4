from __future__ import annotations

from tests.postgres import database, server

__all__ = ["database", "server"]
