"""Drives conductor with the Python SDK of MCP: its shim, the program named by the first argument, or its endpoint, if that is
a URL, with the token in CONDUCTOR_TOKEN.

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
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

TOOL = "run_deno_code"


def transport(place):
    if not place.startswith("http"):
        return stdio_client(StdioServerParameters(command=place, env=dict(os.environ)))
    headers = {"Authorization": "Bearer " + os.environ["CONDUCTOR_TOKEN"]}
    return streamable_http_client(place, http_client=create_mcp_http_client(headers=headers))


async def session(mode):
    async with Client(transport(sys.argv[1]), mode=mode) as client:
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
