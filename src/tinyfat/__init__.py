"""TinyFat: an always-on AI agent for everyone, on a server of its own."""

__version__ = "0.1.0"
