// An MCP server with the tools that a real one lists, from a file; they are there to be read about, not to be called.
const { server, version, tools } = JSON.parse(Deno.readTextFileSync(Deno.args[0]));
const encoder = new TextEncoder();
const send = (message) => {
  const bytes = encoder.encode(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
};

function answer({ id, method, params }) {
  if (id === undefined) return;
  switch (method) {
    case "initialize": {
      const serverInfo = { name: server, version };
      return send({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo } });
    }
    case "ping":
      return send({ id, result: {} });
    case "tools/list":
      return send({ id, result: { tools } });
    default:
      return send({ id, error: { code: -32601, message: `no ${method}` } });
  }
}

let buffer = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  buffer += chunk;
  const lines = buffer.split("\n");
  buffer = lines.pop();
  lines.forEach((line) => answer(JSON.parse(line)));
}
