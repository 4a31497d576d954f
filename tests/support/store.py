"""A node's etcd by that node's own certificates, for tests that write or read behind the agent.

python tests/support/store.py get PREFIX | put KEY VALUE | delete KEY     (in a lab host)
"""

from __future__ import annotations

import asyncio
import json
import sys

from meshnet import config
from meshnet.bootstrap.init import open_etcd
from meshnet.config import Paths
from meshnet.kvstore.api import Delete, Put


async def main(verb: str, key: str, *value: str) -> None:
    async with open_etcd(config.load(Paths.from_environment()).etcd) as kv:
        match verb:
            case "get":
                pairs = (await kv.list(key)).pairs
                print(json.dumps({pair.key: pair.value.decode() for pair in pairs}))
            case "put":
                await kv.txn([], [Put(key, value[0].encode())])
            case "delete":
                await kv.txn([], [Delete(key)])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
