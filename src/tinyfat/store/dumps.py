"""The whole database as a file and back, by Postgres's own programs: a pg_dump older than its server refuses it, so the
right one is looked for."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tinyfat.store.embedded import wheels_programs

DUMP_SECONDS_MAX = 3600.0
WORDS_CHARS_MAX = 2000
_VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE",
              "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip


class DumpFailed(Exception):
    """The database could not be written to a file, or read from one."""


async def dump(url: str, file: Path) -> None:
    """In pg_dump's own format, seen to be whole. Raises DumpFailed."""
    programs = await _programs(url)
    await _run(url, [str(programs / "pg_dump"), "--format=custom", "--no-owner", f"--file={file}"])
    listed = await _run(url, [str(programs / "pg_restore"), "--list", str(file)])
    if "schema_versions" not in listed:
        raise DumpFailed("What pg_dump wrote has no table of ours in it.")


async def restore(url: str, file: Path) -> None:
    """Into an empty database. Raises DumpFailed."""
    programs = await _programs(url)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            "select count(*) from information_schema.tables "
            "where table_schema not in ('pg_catalog', 'information_schema')"
        )
        row = await cursor.fetchone()
    if row is None or row[0]:
        raise DumpFailed("The database has tables already: a backup goes into an empty one.")
    name = conninfo_to_dict(url).get("dbname") or "postgres"
    argv = [str(programs / "pg_restore"), "--no-owner", "--exit-on-error", "--single-transaction"]
    await _run(url, [*argv, f"--dbname={name}", str(file)])


async def _programs(url: str) -> Path:
    """The folder of pg_dump and pg_restore of the server's version or newer: the wheel's, else those on PATH."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=10) as connection:
            server = connection.info.server_version // 10_000
    except psycopg.Error as error:
        raise DumpFailed(f"The database does not answer: {str(error).splitlines()[0]}") from error
    candidates = [wheels_programs(), *(Path(found).parent for found in [shutil.which("pg_dump")] if found)]
    versions = {folder: await asyncio.to_thread(_version, folder / "pg_dump") for folder in candidates}
    fit = [folder for folder, version in versions.items() if version >= server]
    if not fit:
        raise DumpFailed(f"The server is Postgres {server}, and no pg_dump here is: get postgresql-client-{server}.")
    return fit[0]


def _version(program: Path) -> int:
    """0 where it does not run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"(\d+)(?:\.\d+)?", said)
    return int(match[1]) if match else 0


async def _run(url: str, argv: Sequence[str]) -> str:
    """The password goes by the environment: a list of processes shows argument lists. Raises DumpFailed."""
    known = conninfo_to_dict(url)
    environment = os.environ | {name: str(known[key]) for key, name in _VARIABLES.items() if known.get(key)}

    def work() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=False, timeout=DUMP_SECONDS_MAX
        )

    try:
        ended = await asyncio.to_thread(work)
    except (OSError, subprocess.SubprocessError) as error:
        raise DumpFailed(f"{Path(argv[0]).name} did not end well: {error}") from error
    if ended.returncode != 0:
        raise DumpFailed(f"{Path(argv[0]).name} failed:\n{ended.stderr.strip()[-WORDS_CHARS_MAX:]}")
    return ended.stdout
