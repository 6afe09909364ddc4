"""The numbers of Postgres's advisory locks that we take, all of them here: a number is one lock in the whole database,
whoever takes it (PostgreSQL manual, 13.3.5). An agent's own lock is a hash of its id (`database.lock_agent`).
"""

from __future__ import annotations

MIGRATION = 0x71F_FA7  # one process at a time brings the tables up to date
POOL = 0x71F_FA8  # one process at a time counts the warm pool and adds to it
RECOVERY = 0x71F_FA9  # one process at a time looks for dead processes; held while their flows are taken over
OWNERS = 0x71F_FAC  # one at a time adds an agent to machines that are for one owner alone
OPERATOR_MAIL = 0x71F_FAD  # one at a time is added to the operator's mailbox, whose room is counted before
RETENTION = 0x71F_FAB  # one process at a time deletes what is old
