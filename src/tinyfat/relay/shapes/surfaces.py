"""The surfaces there are."""

from __future__ import annotations

from collections.abc import Mapping

from tinyfat.relay.shapes.chat import Chat
from tinyfat.relay.shapes.embeddings import Embeddings
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.shapes.surface import Surface

_ALL: tuple[Surface, ...] = (Chat(), Responses(), Embeddings(), Messages())
SURFACES: Mapping[str, Surface] = {surface.name: surface for surface in _ALL}
