"""The analytics role as a process of its own, for tests that kill it: config as JSON in argv."""

import asyncio
import sys

import msgspec

from analytics.app import run_analytics
from schemas.config import Config

if __name__ == "__main__":
    config = msgspec.json.decode(sys.argv[1], type=Config)
    asyncio.run(run_analytics(config, on_ready=lambda: print("ready", flush=True)))
