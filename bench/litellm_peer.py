"""LiteLLM's proxy as a peer, in an environment of its own under the cache: it is measured, and no dependency."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import venv
from contextlib import AsyncExitStack
from pathlib import Path

from tests.running import free_port, until

VERSION = "1.106.2"
INSTALL_SECONDS_MAX = 300.0
START_SECONDS_MAX = 90.0


async def start(stack: AsyncExitStack, upstream: str, key: str) -> tuple[int, str]:
    """Its port; or 0 and why it could not be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyfat" / f"litellm-{VERSION}"
    try:
        if not (cache / "bin" / "litellm").exists():
            await _install(cache)
    except (OSError, TimeoutError, RuntimeError) as error:
        await asyncio.to_thread(shutil.rmtree, cache, ignore_errors=True)
        return 0, f"LiteLLM {VERSION} could not be installed: {str(error)[-300:] or type(error).__name__}"
    port = free_port()
    config = cache / "config.yaml"
    config.write_text(
        "model_list:\n  - model_name: main\n    litellm_params:\n      model: openai/bench\n"
        f"      api_base: {upstream}/v1\n      api_key: none\n"
    )
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        cache / "bin" / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port),
        env=own | {"LITELLM_MASTER_KEY": key, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    stack.push_async_callback(_end, process)

    async def answers() -> bool:
        assert process.returncode is None, f"it ended with {process.returncode}"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(answers, START_SECONDS_MAX, "LiteLLM listens")
    except AssertionError as error:
        return 0, str(error)
    return port, ""


async def _install(folder: Path) -> None:
    """Raises OSError, TimeoutError, RuntimeError."""
    await asyncio.to_thread(venv.create, folder, with_pip=True)
    process = await asyncio.create_subprocess_exec(
        folder / "bin" / "python", "-m", "pip", "install", "-q", f"litellm[proxy]=={VERSION}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    print(f"installing LiteLLM {VERSION} to measure beside us", file=sys.stderr)
    try:
        async with asyncio.timeout(INSTALL_SECONDS_MAX):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(errors.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
