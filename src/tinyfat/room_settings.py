"""The settings of room: what is kept how long, how much of it, and how full a disk may be.

A part of settings.py, which alone reads them from the environment.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from tinyfat.ports.room import Kept
from tinyfat.setting_sizes import Size

MIB = 1024**2
CALLS_DAYS_MIN = 62  # the sums of the running month are made from its calls
DAYS_MAX = 36_500
ATTACHMENTS_DAYS = 1  # of an answer whose reply, with them in it, is written down


class RoomSettings(BaseModel):
    """Mixed into Settings. Days; 0: for ever."""

    keep_bodies: int = Field(default=365, ge=0, le=DAYS_MAX)  # since its conversation's last mail
    keep_quarantine: int = Field(default=30, ge=0, le=DAYS_MAX)
    keep_logs: int = Field(default=30, ge=0, le=DAYS_MAX)
    keep_calls: int = Field(default=400, ge=CALLS_DAYS_MIN, le=DAYS_MAX)
    keep_ended: int = Field(default=90, ge=0, le=DAYS_MAX)  # agents
    keep_flows: int = Field(default=7, ge=1, le=DAYS_MAX)
    keep_audit: int = Field(default=730, ge=0, le=DAYS_MAX)
    quarantine_bytes: Size = Field(default=200 * MIB, ge=1024)  # of one agent
    quarantine_mails: int = Field(default=2000, ge=1)
    quarantine_sender_bytes: Size = Field(default=50 * MIB, ge=1024)  # of one sender to one agent
    quarantine_sender_mails: int = Field(default=200, ge=1)
    conversations_bytes: Size = Field(default=10 * 1024 * MIB, ge=MIB)  # of one agent
    disk_alarm: Size = Field(default=3 * 1024 * MIB, ge=0)  # bytes free; under it an alarm
    disk_floor: Size = Field(default=512 * MIB, ge=0)  # bytes free; under it no mail is taken

    @property
    def days_kept(self) -> dict[Kept, int]:
        """0: for ever."""
        return {
            Kept.BODIES: self.keep_bodies,
            Kept.QUARANTINE: self.keep_quarantine,
            Kept.ATTACHMENTS: ATTACHMENTS_DAYS,
            Kept.LOGS: self.keep_logs,
            Kept.CALLS: self.keep_calls,
            Kept.ENDED: self.keep_ended,
            Kept.AUDIT: self.keep_audit,
        }
