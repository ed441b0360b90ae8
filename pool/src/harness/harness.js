// The program inside every worker: boots, warms itself, waits for one job, runs it, tells the daemon how it went.
//
// Channel: descriptor 3 brings commands, descriptor 4 takes replies. Both carry frames: length as u32 little-endian,
// then that many bytes of JSON. The Rust side of each frame is `worker/frame.rs`.
//
//   daemon -> worker   {boot: {workspace, revoke_read, revoke_write}}    once, before anything else
//                      {run: {code, api_name, globals, max_text}}        once
//   worker -> daemon   {ready: {}}                             warm, waits for the job
//                      {settled: {kind, ..}}                   the code has a value, threw, or asked to exit
//                      {open: {handles}}                       what keeps the event loop alive after that
//                      {late: {..}}                            an error nobody caught after that
//                      {drained: {}}                           the event loop is empty: nothing more can happen
//
// User code shares this realm and may replace every global and every method of every prototype. So: everything used
// after the job's code has started is captured below while the realm is still ours, objects handed to built-ins have no prototype, and no
// user value is ever returned from an async function of ours (that would look up its `then`). What user code does to
// this file can spoil only its own result: the daemon treats every byte from here as a claim.

const { apply, construct, defineProperty, getOwnPropertyDescriptor, getPrototypeOf, ownKeys } = Reflect;
const { freeze, hasOwn, is } = Object;
const { isArray } = Array;
const { isFinite } = Number;
const { isView } = ArrayBuffer;
const { min } = Math;
const { parse, stringify } = JSON;
const { inspect } = Deno;
const deno = Deno;
const exitProcess = Deno.exit;
const NativePromise = Promise;
const NativeTypeError = TypeError;
const NativeURL = URL;
const SafeWeakSet = WeakSet;
const AsyncFunction = (async () => {}).constructor;
const internals = Deno[Deno.internal];
// `setTimeout` would do for the timer, but merely naming it makes Deno load Node's timers: 6 ms of CPU per worker.
const { cancelTimer, createSystemTimer, isNativeError, isProxy, resources } = internals.core;
const loadProcess = getOwnPropertyDescriptor(globalThis, "process").get;

// Turns a method into a function that takes its receiver first, for good.
const uncurry = (method) => (receiver, ...args) => apply(method, receiver, args);
const getter = (prototype, name) => uncurry(getOwnPropertyDescriptor(prototype, name).get);
const charCodeAt = uncurry(String.prototype.charCodeAt);
const isWellFormed = uncurry(String.prototype.isWellFormed);
const toWellFormed = uncurry(String.prototype.toWellFormed);
const sliceText = uncurry(String.prototype.slice);
const startsWith = uncurry(String.prototype.startsWith);
const isPrototypeOf = uncurry(Object.prototype.isPrototypeOf);
const has = uncurry(WeakSet.prototype.has);
const add = uncurry(WeakSet.prototype.add);
const remove = uncurry(WeakSet.prototype.delete);
const forEachMap = uncurry(Map.prototype.forEach);
const forEachSet = uncurry(Set.prototype.forEach);
const encodeInto = uncurry(TextEncoder.prototype.encodeInto);
const encode = uncurry(TextEncoder.prototype.encode);
const decode = uncurry(TextDecoder.prototype.decode);
const subarray = uncurry(Uint8Array.prototype.subarray);
const lengthOf = getter(getPrototypeOf(Uint8Array.prototype), "length");
const readSync = uncurry(Deno.FsFile.prototype.readSync);
const writeSync = uncurry(Deno.FsFile.prototype.writeSync);
const preventDefault = uncurry(Event.prototype.preventDefault);
const defaultPrevented = getter(Event.prototype, "defaultPrevented");
const errorOf = getter(ErrorEvent.prototype, "error");
const reasonOf = getter(PromiseRejectionEvent.prototype, "reason");
const ErrorPrototype = Error.prototype;
const ObjectPrototype = Object.prototype;
const ArrayPrototype = Array.prototype;
const MapPrototype = Map.prototype;
const SetPrototype = Set.prototype;
const Bytes = Uint8Array;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

// An object without prototype: no property of it can come from user code.
const bare = (fields) => ({ __proto__: null, ...fields });

// ---- Frames ----

const commands = Deno.openSync("/dev/fd/3", { read: true });
const replies = Deno.openSync("/dev/fd/4", { write: true });

// Blocks without using CPU. False at the end of the stream, which only the daemon's death brings.
function readFully(buffer) {
  for (let at = 0, length = lengthOf(buffer); at < length;) {
    const n = readSync(commands, at === 0 ? buffer : subarray(buffer, at));
    if (n === null) return false;
    at += n;
  }
  return true;
}

function readFrame() {
  const header = new Bytes(4);
  if (!readFully(header)) return exitProcess(0);
  const body = new Bytes((header[0] | (header[1] << 8) | (header[2] << 16) | (header[3] << 24)) >>> 0);
  if (!readFully(body)) return exitProcess(0);
  return parse(decode(decoder, body));
}

function writeFully(bytes) {
  try {
    for (let at = 0, length = lengthOf(bytes); at < length;) {
      at += writeSync(replies, at === 0 ? bytes : subarray(bytes, at));
    }
  } catch {
    exitProcess(70); // user code closed the channel
  }
}

// Small frames leave in one write from one buffer; large ones are encoded apart.
const scratch = new Bytes(64 * 1024);
const scratchBody = subarray(scratch, 4);
const SCRATCH_CHARS = 16 * 1024; // at most three bytes each

function writeLength(header, length) {
  header[0] = length & 255;
  header[1] = (length >>> 8) & 255;
  header[2] = (length >>> 16) & 255;
  header[3] = length >>> 24;
}

function writeFrame(json) {
  if (json.length <= SCRATCH_CHARS) {
    const { written } = encodeInto(encoder, json, scratchBody);
    writeLength(scratch, written);
    return writeFully(subarray(scratch, 0, written + 4));
  }
  const body = encode(encoder, json);
  const header = new Bytes(4);
  writeLength(header, lengthOf(body));
  writeFully(header);
  writeFully(body);
}

// ---- Values ----

// UTF-16 units of shown values and errors that the daemon takes; comes with the job.
let maxText = 1000;

// Deeper values are shown, not sent: the daemon's JSON reader stops at 128.
const MAX_JSON_DEPTH = 100;
const MAX_INSPECT_DEPTH = 4; // the inspector's own default
// Entries `inspect` may have to visit; keeps it well under a second for any value.
const MAX_INSPECT_VISITS = 20_000;
const NOT_JSON = { __proto__: null };

const quote = (text) => stringify(text);

// The JSON text of `value`, or NOT_JSON when reading that text back would not give an equal value. Equal means: null,
// booleans, finite numbers but -0, well-formed strings, dense arrays and plain objects of these, with enumerable data
// properties under string keys. Runs no user code, and therefore never trusts `toJSON`, getters or Proxy traps.
function toJson(value, depth, ancestors) {
  switch (typeof value) {
    case "string":
      return isWellFormed(value) ? quote(value) : NOT_JSON;
    case "boolean":
      return value ? "true" : "false";
    case "number":
      return isFinite(value) && !is(value, -0) ? `${value}` : NOT_JSON;
    case "object":
      break;
    default:
      return NOT_JSON;
  }
  if (value === null) return "null";
  if (depth >= MAX_JSON_DEPTH || isProxy(value) || has(ancestors, value)) return NOT_JSON;
  add(ancestors, value);
  const text = isArray(value) ? arrayToJson(value, depth, ancestors) : objectToJson(value, depth, ancestors);
  remove(ancestors, value);
  return text;
}

function arrayToJson(value, depth, ancestors) {
  if (getPrototypeOf(value) !== ArrayPrototype) return NOT_JSON;
  const { length } = value;
  let text = "";
  for (let i = 0; i < length; i++) {
    const property = getOwnPropertyDescriptor(value, i);
    const item = dataToJson(property, depth, ancestors);
    if (item === NOT_JSON) return NOT_JSON;
    text += i === 0 ? item : `,${item}`;
  }
  // A dense array owns its items and `length`, nothing else.
  return ownKeys(value).length === length + 1 ? `[${text}]` : NOT_JSON;
}

function objectToJson(value, depth, ancestors) {
  const prototype = getPrototypeOf(value);
  if (prototype !== ObjectPrototype && prototype !== null) return NOT_JSON;
  const keys = ownKeys(value);
  let text = "";
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    if (typeof key !== "string" || !isWellFormed(key) || key === "toJSON") return NOT_JSON;
    const item = dataToJson(getOwnPropertyDescriptor(value, key), depth, ancestors);
    if (item === NOT_JSON) return NOT_JSON;
    text += `${i === 0 ? "" : ","}${quote(key)}:${item}`;
  }
  return `{${text}}`;
}

function dataToJson(property, depth, ancestors) {
  if (property === undefined || !property.enumerable || !hasOwn(property, "value")) return NOT_JSON;
  return toJson(property.value, depth + 1, ancestors);
}

// What `inspect` would have to visit down to `depth`, counted until the budget is gone. Values reached twice count
// twice, since they are shown twice.
function visits(value, depth, budget) {
  if (typeof value !== "object" || value === null || isProxy(value)) return 1;
  let count = 1;
  const visit = (child) => {
    if (count < budget) count += depth > 0 ? visits(child, depth - 1, budget - count) : 1;
  };
  const visitOwn = (key) => {
    const property = getOwnPropertyDescriptor(value, key);
    if (property !== undefined && hasOwn(property, "value")) visit(property.value);
  };
  if (isArray(value)) {
    for (let i = 0, n = min(value.length, 100); i < n; i++) visitOwn(i);
    return count;
  }
  if (isView(value)) return count;
  const keys = ownKeys(value);
  if (keys.length > budget) return budget;
  for (let i = 0; i < keys.length; i++) visitOwn(keys[i]);
  if (isPrototypeOf(MapPrototype, value)) forEachMap(value, (item, key) => (visit(key), visit(item)));
  if (isPrototypeOf(SetPrototype, value)) forEachSet(value, visit);
  return count;
}

// `value` as Deno's inspector shows it: never throws, and its cost is bounded whatever the value.
function show(value) {
  try {
    // Upwards: merely listing the keys of a huge object takes long, so it is done at the first depth only.
    let depth = -1;
    while (depth < MAX_INSPECT_DEPTH && visits(value, depth + 1, MAX_INSPECT_VISITS) < MAX_INSPECT_VISITS) depth++;
    if (depth < 0) return "[value too large to show]";
    return inspect(value, bare({ depth, strAbbreviateSize: 10_000, colors: false }));
  } catch {
    return "[value that cannot be shown: inspecting it throws]";
  }
}

function clip(text, limit) {
  if (text.length <= limit) return toWellFormed(text);
  return `${toWellFormed(sliceText(text, 0, limit))}… ${text.length - limit} more characters`;
}

function encodeValue(value) {
  if (value === undefined) return '{"kind":"none"}';
  let json;
  try {
    json = toJson(value, 0, new SafeWeakSet());
  } catch {
    json = NOT_JSON;
  }
  if (json !== NOT_JSON) return `{"kind":"json","value":${json}}`;
  return `{"kind":"inspect","text":${quote(clip(show(value), maxText))}}`;
}

// ---- Errors ----

const MAX_CAUSES = 8; // nesting of causes and members together
const MAX_THROWN = 40; // errors in one report
const MAX_ERROR_TEXT = 16 * 1024; // characters of a message or a stack

// A property of an error; `undefined` if reading it throws.
function read(object, key) {
  try {
    return object[key];
  } catch {
    return undefined;
  }
}

function isError(value) {
  try {
    return isNativeError(value) || (typeof value === "object" && isPrototypeOf(ErrorPrototype, value));
  } catch {
    return false;
  }
}

// The text of one field, taken from what the report has left.
function quoteText(text, budget) {
  const clipped = clip(text, min(MAX_ERROR_TEXT, budget.text));
  budget.text -= min(clipped.length, budget.text);
  return quote(clipped);
}

function encodeThrown(thrown, depth, budget) {
  budget.errors--;
  if (!isError(thrown)) {
    return `{"message":${quoteText(typeof thrown === "string" ? thrown : show(thrown), budget)}}`;
  }
  const field = (key, fallback) => {
    const text = read(thrown, key);
    return quoteText(typeof text === "string" ? text : fallback, budget);
  };
  let text = `{"name":${field("name", "Error")},"message":${field("message", "")},"stack":${field("stack", "")}`;
  if (depth < MAX_CAUSES && budget.errors > 0) {
    const cause = read(thrown, "cause");
    if (cause !== undefined) text += `,"cause":${encodeThrown(cause, depth + 1, budget)}`;
    const members = encodeMembers(read(thrown, "errors"), depth, budget);
    if (members !== "") text += `,"errors":[${members}]`;
  }
  return `${text}}`;
}

function encodeMembers(errors, depth, budget) {
  let text = "";
  if (!isArray(errors)) return text;
  const length = read(errors, "length");
  for (let i = 0; i < length && budget.errors > 0; i++) {
    text += `${i === 0 ? "" : ","}${encodeThrown(read(errors, i), depth + 1, budget)}`;
  }
  return text;
}

const thrownJson = (thrown) => encodeThrown(thrown, 0, bare({ errors: MAX_THROWN, text: maxText }));

// ---- One run ----

// The object that the code sees under `api_name`: what a module has and a function lacks.
function makeApi(workspace) {
  const directory = startsWith(workspace, "/") ? workspace : `/${workspace}`;
  const main = new NativeURL("file:///");
  main.pathname = encodeURI(`${directory}/main.ts`);
  const { href } = main;
  const isRelative = (specifier) =>
    startsWith(specifier, "./") || startsWith(specifier, "../") || startsWith(specifier, "/");
  const resolve = (specifier) => new NativeURL(specifier, href).href;
  const meta = freeze(bare({ url: href, dirname: directory, filename: `${directory}/main.ts`, main: true, resolve }));
  return freeze(bare({
    meta,
    import(specifier, options) {
      const text = `${specifier}`;
      return import(isRelative(text) ? resolve(text) : text, options);
    },
  }));
}

function defineGlobals(globals) {
  const names = ownKeys(globals);
  for (let i = 0; i < names.length; i++) {
    const value = globals[names[i]];
    if (!defineProperty(globalThis, names[i], bare({ value, writable: true, configurable: true, enumerable: true }))) {
      throw new NativeTypeError(`the global ${names[i]} cannot be defined`);
    }
  }
}

// Must equal USER_SCRIPT_URL in worker/frame.rs.
const USER_SCRIPT_URL = "conductor:main.ts";

function call(code, apiName) {
  const body = new AsyncFunction(apiName, `${code}\n//# sourceURL=${USER_SCRIPT_URL}`);
  const promise = apply(body, undefined, [api]);
  // With its own `constructor` the promise is awaited as it is; no replaced `then` or species is looked up.
  defineProperty(promise, "constructor", bare({ value: NativePromise }));
  return promise;
}

// Exactly one `settled` frame leaves, whoever is first: the value, an uncaught error, an exit.
let settled = false;
let over = false;

// Nothing of user code runs after this: the read returns only when the daemon closes the pipe.
function stop() {
  if (over) return;
  over = true;
  writeFrame('{"drained":{}}');
  readFully(new Bytes(1));
}

function settle(json) {
  if (settled) return false;
  settled = true;
  writeFrame(`{"settled":${json}}`);
  return true;
}

// As `deno run` does: an error nobody catches ends the program.
function fail(thrown) {
  const json = thrownJson(thrown);
  if (!settle(`{"kind":"thrown","error":${json}}`)) writeFrame(`{"late":${json}}`);
  stop();
}

async function run({ code, api_name: apiName, globals, max_text }) {
  maxText = max_text;
  let value;
  try {
    defineGlobals(globals);
    value = await call(code, apiName);
  } catch (thrown) {
    fail(thrown);
    return;
  }
  settle(encodeValue(value));
  reportOpenHandles();
}

// Names what is still open if the loop lives on for a while. The timer itself does not keep it alive.
function reportOpenHandles() {
  handlesTimer = createSystemTimer(() => {
    try {
      writeFrame(`{"open":{"handles":[${openHandles()}]}}`);
    } catch {
      // Only a description: without it the daemon reports handles without names.
    }
  }, 100, false);
}

const MAX_HANDLES = 20;
const ownResources = bare(resources());
let handlesTimer;

function openHandles() {
  let text = "";
  let count = 0;
  const push = (name) => {
    if (count < MAX_HANDLES) text += `${count++ === 0 ? "" : ","}${quote(`${name}`)}`;
  };
  const open = resources();
  const ids = ownKeys(open);
  for (let i = 0; i < ids.length; i++) {
    if (!(ids[i] in ownResources)) push(open[ids[i]]);
  }
  const active = apply(loadProcess, globalThis, []).getActiveResourcesInfo();
  for (let i = 0; i < active.length; i++) push(active[i]);
  return text;
}

// ---- Events that end a run ----

// User code may still call `preventDefault`, in a listener that comes after ours; whether it did is known when all
// listeners have run, one microtask later.
function onUncaught(event, thrown) {
  let handled = false;
  defineProperty(event, "preventDefault", bare({ value: () => handled = true }));
  preventDefault(event);
  (async () => {
    await undefined;
    if (!handled) fail(thrown);
  })();
}

function watchForTheEnd() {
  addEventListener("error", (event) => {
    let thrown;
    try {
      // Prevented already: a handler of `node:process`, which is asked first, took it.
      if (defaultPrevented(event)) return;
      thrown = errorOf(event);
    } catch {
      return; // not an ErrorEvent: user code dispatched something of its own
    }
    onUncaught(event, thrown);
  });
  addEventListener("unhandledrejection", (event) => {
    let thrown;
    try {
      // A handler of `node:process` is asked after us, and only if nobody prevented the event.
      if (internals.nodeProcessUnhandledRejectionCallback !== undefined) return;
      thrown = reasonOf(event);
    } catch {
      return;
    }
    onUncaught(event, thrown);
  });
  addEventListener("beforeunload", stop);
  // `process.exit` and `process.reallyExit` end here too. The process's own status tells the code; this frame only
  // tells an exit from a crash.
  deno.exit = function exit(code) {
    const claimed = typeof code === "number" ? code : read(deno, "exitCode");
    settle(`{"kind":"exit","code":${typeof claimed === "number" ? claimed | 0 : 0}}`);
    return exitProcess(code);
  };
}

// ---- Life of the worker ----

// Runs the paths of a good run once, so that the real one finds their code compiled and inline caches filled. Those of
// errors and of shown values are left cold: they would cost every worker 3 ms of CPU. The daemon throws away what comes
// before `ready`, on every stream.
async function warm() {
  const job = bare({
    code: 'console.log("warm", { a: [1] }); console.error("warm"); await null; return { a: [1, "b", null, true] };',
    api_name: "api",
    globals: { warm: 1 },
    max_text: 1000,
  });
  await run(parse(decode(decoder, encode(encoder, stringify(job)))));
  cancelTimer(handlesTimer);
  settled = false;
  delete globalThis.warm;
  // Nobody listens to it yet.
  dispatchEvent(new Event("beforeunload", { cancelable: true }));
}

const { boot } = readFrame();
// The channel stays open; only opening it again by path is taken away. A courtesy, not a boundary: see `worker.rs`.
if (boot.revoke_read) Deno.permissions.revokeSync({ name: "read", path: "/dev/fd/3" });
if (boot.revoke_write) Deno.permissions.revokeSync({ name: "write", path: "/dev/fd/4" });
const api = makeApi(boot.workspace);
defineGlobals({ WORKSPACE_DIR: boot.workspace });
await warm();
watchForTheEnd();
// Once the module has been evaluated, the end of the event loop is one step away from the end of the job. The microtask
// leaves Deno's dispatch of the event, which user code could make throw.
addEventListener("load", async () => {
  await undefined;
  writeFrame('{"ready":{}}');
  run(readFrame().run);
}, { once: true });
