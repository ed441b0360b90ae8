// Asks Deno's REPL for the completion value of each program: one fresh REPL for each.
// In: JSON array of {title, source} on stdin. Out: JSON array of {value, prints, throws} on stdout.

const { kExtraStdio, getExtraPipeRids, writableStreamForRid, readableStreamForRid } = Deno[Deno.internal];
const AT_ONCE = 4;

/** Speaks the REPL's own protocol: messages of JSON, each behind its length. */
class Repl {
  #received = new Uint8Array();

  constructor() {
    this.child = new Deno.Command(Deno.execPath(), {
      args: ["repl", "--json", "--allow-all", "--no-lock", "--no-config"],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      [kExtraStdio]: ["piped"],
    }).spawn();
    const pipe = getExtraPipeRids(this.child)[0];
    this.writer = writableStreamForRid(pipe).getWriter();
    this.reader = readableStreamForRid(pipe).getReader();
  }

  async run(code) {
    const body = new TextEncoder().encode(JSON.stringify({ type: "Run", code, output: true }));
    const message = new Uint8Array(4 + body.length);
    new DataView(message.buffer).setUint32(0, body.length, true);
    message.set(body, 4);
    await this.writer.write(message);
    return JSON.parse(await this.#answer());
  }

  async #answer() {
    for (;;) {
      const bytes = this.#received;
      if (bytes.length >= 4) {
        const end = 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
        if (bytes.length >= end) {
          this.#received = bytes.slice(end);
          return new TextDecoder().decode(bytes.slice(4, end));
        }
      }
      const { value, done } = await this.reader.read();
      if (done) throw new Error("the REPL ended");
      this.#received = new Uint8Array([...bytes, ...value]);
    }
  }

  async end() {
    this.child.kill("SIGKILL");
    return new TextDecoder().decode((await this.child.output()).stdout);
  }
}

async function answer({ title, source }) {
  const repl = new Repl();
  const ran = await repl.run(source);
  if (ran.type === "Error") throw new Error(`${title}: ${ran.error}`);
  const failed = ran.type === "RunFailure";
  // A value that is a promise is awaited, as the rewritten program does.
  const shown = await repl.run(failed ? "String(_error)" : "Deno.inspect(await _)");
  const prints = await repl.end();
  return failed ? { throws: shown.output, prints } : { value: shown.output, prints };
}

const programs = JSON.parse(await new Response(Deno.stdin.readable).text());
const answers = new Array(programs.length);
let next = 0;
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  while (next < programs.length) {
    const mine = next++;
    answers[mine] = await answer(programs[mine]);
  }
}));
console.log(JSON.stringify(answers));
