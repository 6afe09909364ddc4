"""What a program that starts says of variables that are no settings."""

from __future__ import annotations

import os

from tinyfat.cli.output import errors
from tinyfat.setting_names import unknown
from tinyfat.settings import Settings


def unknown_settings() -> list[str]:
    """A sentence for each."""
    return unknown(os.environ, Settings.model_fields)


def say_unknown_settings() -> None:
    for sentence in unknown_settings():
        errors.print(sentence, style="yellow")
