// An MCP server whose lists are as bad as they can be: names that no client takes, twice, or that are none, texts without
// end, members of wrong types, pages in any order. Revision 2025-11-25, over stdio.

const encoder = new TextEncoder();
const send = (message) => Deno.stdout.writeSync(encoder.encode(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n"));

const schema = { type: "object", properties: {} };
const names = [
  "z".repeat(300),
  "z".repeat(299) + "y",
  "with spaces and / slashes",
  "päivää-🙂-中文",
  "run_deno_code",
  "search_tools",
  "",
  "same",
  "same",
  "../../etc/passwd",
  "a.b",
  "a:b",
  "__proto__",
  "constructor",
];
const tools = [
  ...names.map((name) => ({ name, description: "d".repeat(100_000), title: "t".repeat(10_000), inputSchema: schema })),
  { name: 7, inputSchema: schema },
  { inputSchema: schema },
  null,
  "a string",
  { name: "no-schema" },
  { name: "schema-of-a-list", inputSchema: { type: "array" }, outputSchema: "none" },
  { name: "wrong-types", description: 1, title: {}, annotations: [], icons: "i", _meta: 3, execution: [], inputSchema: [] },
  ...Array.from({ length: 150 }, (_, n) => ({ name: `many-${n}`, inputSchema: schema })),
];
const page = (all, cursor) => {
  const from = Number(cursor ?? 0);
  return { items: all.slice(from, from + 40), nextCursor: from + 40 < all.length ? String(from + 40) : undefined };
};

const methods = {
  initialize: () => ({
    protocolVersion: "2025-11-25",
    capabilities: { tools: {}, prompts: {}, resources: {} },
    serverInfo: { name: "nasty", version: "1" },
    instructions: "i".repeat(1_000_000),
  }),
  "tools/list": ({ params }) => {
    const { items, nextCursor } = page(tools, params?.cursor);
    return { tools: items, nextCursor };
  },
  "tools/call": ({ params }) => ({ content: [{ type: "text", text: params.name }] }),
  "prompts/list": () => ({ prompts: [{ name: "p", arguments: "none" }, { name: "q q", arguments: [{}, { name: "a" }] }, {}] }),
  "resources/list": () => ({ resources: [{ uri: "n:1", mimeType: 1 }, { uri: 2 }, { name: "no uri" }] }),
  "resources/templates/list": () => ({ resourceTemplates: [{ uriTemplate: "n:{x}" }, {}] }),
};

let rest = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  for (const line of lines.filter((line) => line.trim())) {
    const { id, method, params } = JSON.parse(line);
    if (id === undefined) continue;
    if (methods[method]) send({ id, result: methods[method]({ params }) });
    else send({ id, error: { code: -32601, message: `no ${method}` } });
  }
}
