// An MCP server that writes down every message that reaches it, below its directory: `NAME.PID.log`.
const [directory, name] = Deno.args;
const log = `${directory}/${name}.${Deno.pid}.log`;
const write = (text) => Deno.writeTextFileSync(log, `${text}\n`, { append: true });
const encoder = new TextEncoder();
const send = (message) => Deno.stdout.writeSync(encoder.encode(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`));
const text = (text) => ({ content: [{ type: "text", text: String(text) }] });

const schema = (properties = {}, required = Object.keys(properties)) => ({ type: "object", properties, required });
const tools = [
  { name: "echo", description: "Gives back what it gets", inputSchema: schema({ message: { type: "string" } }) },
  { name: "wait", description: "Answers late", inputSchema: schema({ ms: { type: "number" } }) },
  { name: "fail", description: "Always fails", inputSchema: schema() },
  { name: "pid", description: "Its process", inputSchema: schema() },
  { name: "reveal", description: "A variable of its environment", inputSchema: schema({ variable: { type: "string" } }) },
  { name: "grow", description: "Adds a tool", inputSchema: schema() },
];

const calls = {
  echo: ({ message }) => text(message),
  wait: ({ ms }) => new Promise((resolve) => setTimeout(() => resolve(text("waited")), ms)),
  fail: () => ({ isError: true, ...text("it failed on purpose") }),
  pid: () => text(Deno.pid),
  reveal: ({ variable }) => {
    const value = Deno.env.get(variable);
    console.error(`stderr tells ${value}`);
    return text(`the value is ${value}`);
  },
  grow: () => {
    tools.push({ name: "grown", description: "Came later", inputSchema: schema() });
    send({ method: "notifications/tools/list_changed" });
    return text("it grows");
  },
  grown: () => text("grown"),
};

async function answer({ id, method, params }) {
  if (id === undefined) return;
  switch (method) {
    case "initialize": {
      const result = {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: { listChanged: true } },
        serverInfo: { name, version: "1" },
        instructions: `Ask ${name} to echo.`,
      };
      return send({ id, result });
    }
    case "ping":
      return send({ id, result: {} });
    case "tools/list":
      return send({ id, result: { tools } });
    case "tools/call":
      return send({ id, result: await calls[params.name](params.arguments ?? {}) });
    default:
      return send({ id, error: { code: -32601, message: `no ${method}` } });
  }
}

let buffer = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  buffer += chunk;
  const lines = buffer.split("\n");
  buffer = lines.pop();
  for (const line of lines) {
    write(line);
    answer(JSON.parse(line));
  }
}
Deno.exit(0);
