// An MCP server that does what its caller says: asks the client, logs, reports progress, answers with what it was sent.
// Revision 2025-11-25, over stdio. Arguments: a file to note down what reached it.

const [notes] = Deno.args;
const encoder = new TextEncoder();
const pending = new Map();
const endless = new Map();
const grown = [];
const watched = new Set();
let nextId = 1;

const send = (message) => Deno.stdout.writeSync(encoder.encode(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n"));
const note = (line) => Deno.writeTextFileSync(notes, line + "\n", { append: true });
const text = (value) => ({ content: [{ type: "text", text: typeof value === "string" ? value : JSON.stringify(value) }] });
const tool = (name, more = {}) => ({ name, description: `Does ${name}.`, inputSchema: { type: "object" }, ...more });

const ask = (method, params) =>
  new Promise((resolve) => {
    const id = nextId++;
    pending.set(id, resolve);
    send({ id, method, params });
  });

const tools = {
  ask: async ({ method, params }) => {
    const { result, error } = await ask(method, params);
    return text(result ? { result } : { error });
  },
  log: ({ level, data }) => {
    send({ method: "notifications/message", params: { level, logger: "part", data } });
    return text("logged");
  },
  strange: () => ({
    content: [{ type: "hologram", depth: 3 }, { type: "text", text: "seen", shade: "blue" }],
    structuredContent: { z: 1, a: 12345678901234567890 },
    tomorrow: { is: "here" },
  }),
  meta: (_, request) => text(request.params._meta ?? null),
  count: ({ to }, request) => {
    const progressToken = request.params._meta?.progressToken;
    for (let progress = 1; progress <= to; progress++) {
      send({ method: "notifications/progress", params: { progressToken, progress, total: to } });
    }
    return text("counted");
  },
  endless: (_, request) => new Promise(() => (endless.set(request.id, true), note("endless"))),
  grow: ({ name }) => {
    grown.push(name);
    send({ method: "notifications/tools/list_changed" });
    return text("grown");
  },
  touch: ({ uri }) => {
    if (watched.has(uri)) send({ method: "notifications/resources/updated", params: { uri } });
    return text(watched.has(uri) ? "told" : "nobody watches");
  },
  crash: () => Deno.exit(1),
  fail: () => {
    throw { code: -32042, message: "as told", data: { why: "told" } };
  },
};

const listed = () => [
  ...Object.keys(tools).toReversed().map((name) => tool(name)),
  tool("hinted", { execution: { taskSupport: "forbidden" }, hint: { of: "tomorrow" }, outputSchema: { type: "object" } }),
  ...grown.map((name) => tool(name)),
];

const methods = {
  initialize: () => ({
    protocolVersion: "2025-11-25",
    capabilities: { tools: { listChanged: true }, prompts: {}, resources: { subscribe: true }, logging: {}, completions: {} },
    serverInfo: { name: "mirror", version: "1" },
  }),
  ping: () => ({}),
  "logging/setLevel": ({ params }) => (note(`level ${params.level}`), {}),
  "completion/complete": ({ params }) => ({
    completion: { values: [`${params.ref.name ?? params.ref.uri} ${params.argument.name}=${params.argument.value}`], mood: "good" },
  }),
  "resources/subscribe": ({ params }) => (watched.add(params.uri), note(`watch ${params.uri}`), {}),
  "resources/unsubscribe": ({ params }) => (watched.delete(params.uri), note(`unwatch ${params.uri}`), {}),
  "tools/list": () => ({ tools: listed() }),
  "tools/call": (request) => tools[request.params.name](request.params.arguments ?? {}, request),
  "prompts/list": () => ({ prompts: [{ name: "greet", arguments: [{ name: "who", required: true }], mood: "good" }] }),
  "prompts/get": ({ params }) => ({
    messages: [{ role: "user", content: { type: "text", text: `Greet ${params.arguments?.who}.` } }],
    tone: "warm",
  }),
  "resources/list": () => ({ resources: [{ uri: "mirror://one", name: "one", size: 3, colour: "red" }] }),
  "resources/templates/list": () => ({ resourceTemplates: [{ uriTemplate: "mirror://any/{name}", name: "any" }] }),
  "resources/read": ({ params }) => ({ contents: [{ uri: params.uri, text: `read ${params.uri}`, origin: "mirror" }] }),
};

async function answer(request) {
  try {
    const method = methods[request.method];
    if (!method) throw { code: -32601, message: `no ${request.method}` };
    send({ id: request.id, result: await method(request) });
  } catch (error) {
    send({ id: request.id, error: { code: error.code ?? -32603, message: error.message, data: error.data } });
  }
}

function take(message) {
  if (message.method && message.id !== undefined) return void answer(message);
  if (message.method === "notifications/cancelled" && endless.delete(message.params.requestId)) note("cancelled");
  if (!message.method) {
    pending.get(message.id)?.(message);
    pending.delete(message.id);
  }
}

let rest = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  for (const line of lines) if (line.trim()) take(JSON.parse(line));
}
