// Runs programs in one process, one after another.
// In: JSON array on stdin, each element one of
//   {code, api}      a rewritten program: the body of an async function and the name of its parameter
//   {module}         the text of a TypeScript module, run as Deno runs it
//   {script}         the text of a sloppy script, run by eval
//   {compile, api}   a rewritten program that is compiled and not run
// Out: JSON array of {value, prints, throws, stack}, in the same order.

const { inspectArgs } = Deno[Deno.internal];
const AsyncFunction = (async () => {}).constructor;
const base = import.meta.resolve("./modules/main.ts");
const scratch = Deno.args[0];

const meta = {
  url: base,
  filename: base.slice("file://".length),
  dirname: base.slice("file://".length, base.lastIndexOf("/")),
  main: true,
  resolve: (specifier) => resolve(specifier),
};

function resolve(specifier) {
  return /^\.{0,2}\//.test(specifier) ? new URL(specifier, base).href : specifier;
}

const api = Object.freeze({
  __proto__: null,
  meta,
  import: (specifier, options) => import(resolve(String(specifier)), options),
});

let prints = "";
console.log = (...values) => {
  prints += inspectArgs(values) + "\n";
};

async function run(program, index) {
  if (program.module !== undefined) {
    const file = `${scratch}/program${index}.ts`;
    await Deno.writeTextFile(file, program.module);
    await import(`file://${file}`);
    return undefined;
  }
  if (program.compile !== undefined) return void new AsyncFunction(program.api, program.compile);
  if (program.script !== undefined) return (0, eval)(program.script);
  return await new AsyncFunction(program.api, program.code).call(undefined, api);
}

const results = [];
for (const [index, program] of JSON.parse(await new Response(Deno.stdin.readable).text()).entries()) {
  prints = "";
  try {
    const value = Deno.inspect(await run(program, index));
    results.push({ value, prints });
  } catch (error) {
    results.push({ throws: String(error), prints, stack: String(error?.stack) });
  }
}
await Deno.stdout.write(new TextEncoder().encode(JSON.stringify(results)));
