"""Drives conductor-shim, the program named by the first argument, with the Python SDK of MCP.

Prints one JSON document of everything it got. The SDK validates each structured result against the tool's output schema and
raises when it does not fit.
"""

import asyncio
import json
import os
import sys

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

TOOL = "run_deno_code"


async def session(mode):
    server = StdioServerParameters(command=sys.argv[1], env=dict(os.environ))
    async with Client(stdio_client(server), mode=mode) as client:
        tools = (await client.list_tools()).tools

        async def call(code, **rest):
            result = await client.call_tool(TOOL, {"deno_code": code}, **rest)
            return result.model_dump(mode="json", by_alias=True)

        told = []

        async def on_progress(progress, total, message):
            told.append([progress, message])

        results = {
            "version": client.protocol_version,
            "server": client.server_info and client.server_info.name,
            "tools": [tool.model_dump(mode="json", by_alias=True) for tool in tools],
            "value": await call("({ answer: 6 * 7, text: 'ü' })"),
            "nothing": await call("const unused: number = 1;"),
            "thrown": await call("const a: number = 1;\nthrow new RangeError('no ' + a)"),
            "syntax": await call("let a = ;"),
            "printed": await call(
                "for (const n of [1, 2, 3]) { console.log('line', n); await new Promise((r) => setTimeout(r, 50)) }",
                progress_callback=on_progress,
            ),
            "told": told,
        }
        concurrent = [None] * 20

        async def one(n):
            concurrent[n] = (await call(f"{n} * 1000"))["structuredContent"]["returnValue"]

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(one, n)
        results["concurrent"] = concurrent
        return results


async def main():
    print(json.dumps({mode: await session(mode) for mode in sys.argv[2:]}))


asyncio.run(main())
