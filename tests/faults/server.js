// An MCP server that breaks when it gets a signal: SIGUSR1, it writes what is no message; SIGUSR2, it answers nothing any more.
const [name] = Deno.args;
const encoder = new TextEncoder();
const write = (text) => Deno.stdout.writeSync(encoder.encode(text));
const tools = [{ name: "echo", inputSchema: { type: "object", properties: { message: { type: "string" } } } }];
let silent = false;

const results = {
  initialize: ({ protocolVersion }) => ({ protocolVersion, capabilities: { tools: {} }, serverInfo: { name, version: "1" } }),
  ping: () => ({}),
  "tools/list": () => ({ tools }),
  "tools/call": async (params) => {
    await new Promise((done) => setTimeout(done, 10));
    return { content: [{ type: "text", text: params.arguments.message }] };
  },
};

async function answer({ id, method, params }) {
  if (id === undefined) return;
  const result = await results[method]?.(params);
  const answer = result ? { result } : { error: { code: -32601, message: `no ${method}` } };
  if (!silent) write(JSON.stringify({ jsonrpc: "2.0", id, ...answer }) + "\n");
}

const garbage = ["{\"jsonrpc\":\"2.0\",\"id\":", "\u0000\uffff".repeat(5000) + "\n", "[]\n{}\nnull\n", "x".repeat(100_000) + "\n"];
Deno.addSignalListener("SIGUSR1", () => garbage.forEach(write));
Deno.addSignalListener("SIGUSR2", () => (silent = true));

let rest = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  for (const line of lines) if (line.trim()) answer(JSON.parse(line));
}
Deno.exit(0);
