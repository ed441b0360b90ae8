// The program inside every worker: boots, warms itself, waits for one job, runs it, tells the daemon how it went.
//
// Channel: descriptor 3 brings commands, descriptor 4 takes replies. Both carry frames: length as u32 little-endian,
// then that many bytes of JSON. The Rust side of each frame is `worker/frame.rs`.
//
//   daemon -> worker   {boot: {workspace, version, revoke_read, revoke_write, spellings, preload, shared, library}}   once, before anything else
//                      {run: {code, api_name, globals, imports, upstreams, permissions, max_result, max_media, max_calls_in_flight}}   once
//                      {reply: {id, value | error}}            the answer to a call
//   worker -> daemon   {importing: index}                      a template: it imports this one of `shared` now
//                      {unfit: {index?, why}}                  a template: its children must not share this package, or any
//                      {ready: {drawn?}}                       warm, waits for the job; a template: waits for forks
//                      {settled: {kind, ..}}                   the code has a value, threw, or asked to exit
//                      {too_large: {}}                         the code has a value of more than max_result bytes
//                      {open: {handles}}                       what keeps the event loop alive after that
//                      {late: {..}}                            an error nobody caught after that
//                      {call: {id, method, params}}            what the code asks of the daemon
//                      {drained: {}}                           the event loop is empty: nothing more can happen
//
// User code shares this realm and may replace every global and every method of every prototype. So: everything used
// after the job's code has started is captured below while the realm is still ours, objects handed to built-ins have no prototype, and no
// user value is ever returned from an async function of ours (that would look up its `then`). What user code does to
// this file can spoil only its own result: the daemon treats every byte from here as a claim.
//
// With a `library` the process is a template: it imports `shared`, says `ready`, and then the call of `fork` returns once in
// each of its children, which go on as workers. The template itself stays in that call until it ends. See `conductor-fork`.
// Code of packages runs in it before, so what is said of user code holds for that, too.
//
// Nor does user code see this file: its stacks hold no frame of ours. Where we start it, nothing of ours is below it
// (`enter`); nothing of ours waits for it by `await` (`whenSettled`); the errors of functions that it calls begin at its
// call (`exposed`); and while we run a getter, a `toJSON` or an inspector of its own, errors have no stack (`unseen`).

const { apply, defineProperty, deleteProperty, getOwnPropertyDescriptor, getPrototypeOf, ownKeys } = Reflect;
const { freeze, hasOwn, is } = Object;
const { captureStackTrace } = Error;
const { isArray } = Array;
const { isFinite } = Number;
const { isView } = ArrayBuffer;
const { min, trunc } = Math;
const { parse, stringify } = JSON;
const { inspect } = Deno;
const deno = Deno;
const exitProcess = Deno.exit;
const NativeError = Error;
const NativePromise = Promise;
const NativeProxy = Proxy;
const NativeTypeError = TypeError;
const NativeURL = URL;
const speciesKey = Symbol.species;
const SafeWeakMap = WeakMap;
const SafeWeakSet = WeakSet;
const AsyncFunction = (async () => {}).constructor;
const internals = Deno[Deno.internal];
// `setTimeout` would do for the timer, but merely naming it makes Deno load Node's timers: 6 ms of CPU per worker.
const {
  cancelTimer, createSystemTimer, eventLoopHasMoreWork, getActiveImmediateCount, isNativeError, isProxy, resources,
} = internals.core;
const loadProcess = getOwnPropertyDescriptor(globalThis, "process").get;

// Turns a method into a function that takes its receiver first, for good.
const uncurry = (method) => (receiver, ...args) => apply(method, receiver, args);
const getter = (prototype, name) => uncurry(getOwnPropertyDescriptor(prototype, name).get);
const bind = uncurry(Function.prototype.bind);
const listen = bind(addEventListener, globalThis);
const then = uncurry(Promise.prototype.then);
const charCodeAt = uncurry(String.prototype.charCodeAt);
const isWellFormed = uncurry(String.prototype.isWellFormed);
const toWellFormed = uncurry(String.prototype.toWellFormed);
const sliceText = uncurry(String.prototype.slice);
const contains = uncurry(String.prototype.includes);
const startsWith = uncurry(String.prototype.startsWith);
const isPrototypeOf = uncurry(Object.prototype.isPrototypeOf);
const has = uncurry(WeakSet.prototype.has);
const add = uncurry(WeakSet.prototype.add);
const remove = uncurry(WeakSet.prototype.delete);
const getWeak = uncurry(WeakMap.prototype.get);
const setWeak = uncurry(WeakMap.prototype.set);
const forEachMap = uncurry(Map.prototype.forEach);
const forEachSet = uncurry(Set.prototype.forEach);
const encodeInto = uncurry(TextEncoder.prototype.encodeInto);
const encode = uncurry(TextEncoder.prototype.encode);
const decode = uncurry(TextDecoder.prototype.decode);
const subarray = uncurry(Uint8Array.prototype.subarray);
const lengthOf = getter(getPrototypeOf(Uint8Array.prototype), "length");
const arrayTag = getter(getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag);
const toBase64 = uncurry(Uint8Array.prototype.toBase64);
const bufferLength = getter(ArrayBuffer.prototype, "byteLength");
const blobSize = getter(Blob.prototype, "size");
const blobType = getter(Blob.prototype, "type");
const blobBuffer = uncurry(Blob.prototype.arrayBuffer);
const readAsync = uncurry(Deno.FsFile.prototype.read);
const readSync = uncurry(Deno.FsFile.prototype.readSync);
const writeSync = uncurry(Deno.FsFile.prototype.writeSync);
const preventDefault = uncurry(Event.prototype.preventDefault);
const defaultPrevented = getter(Event.prototype, "defaultPrevented");
const errorOf = getter(ErrorEvent.prototype, "error");
const reasonOf = getter(PromiseRejectionEvent.prototype, "reason");
const ErrorPrototype = Error.prototype;
const ObjectPrototype = Object.prototype;
const ArrayPrototype = Array.prototype;
const BlobPrototype = Blob.prototype;
const MapPrototype = Map.prototype;
const SetPrototype = Set.prototype;
const Bytes = Uint8Array;
const Words = Uint32Array;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

// An object without prototype: no property of it can come from user code.
const bare = (fields) => ({ __proto__: null, ...fields });

// With its own `constructor` a promise is awaited as it is; no replaced `then` or species is looked up.
const own = (promise) => defineProperty(promise, "constructor", bare({ value: NativePromise })) && promise;

// Hands on what a promise comes to, without `await`: V8 shows who awaits in the stacks of who is awaited. Both functions
// return nothing.
function whenSettled(promise, onValue, onThrown) {
  defineProperty(promise, "constructor", bare({ value: undefined }));
  then(promise, onValue, onThrown);
}

// Calls `action` with nothing of ours on the stack, in a microtask, and then `take` with what it returns. The capability
// that is made by a constructor of ours gives us that as it is: a promise's own would look up its `then`.
function enter(action, take, onThrown) {
  const start = new NativePromise((resolve) => resolve());
  function Capability(executor) {
    executor(take, onThrown);
  }
  defineProperty(start, "constructor", bare({ value: bare({ [speciesKey]: Capability }) }));
  then(start, action);
}

const hideStacks = () =>
  defineProperty(NativeError, "stackTraceLimit", bare({ value: 0, writable: true, enumerable: true, configurable: true }));

// What `action` returns, which may run user code: errors that are made meanwhile have no stack, since it would show us.
function unseen(action) {
  const before = getOwnPropertyDescriptor(NativeError, "stackTraceLimit");
  hideStacks();
  try {
    return action();
  } finally {
    if (before === undefined) deleteProperty(NativeError, "stackTraceLimit");
    else defineProperty(NativeError, "stackTraceLimit", bare(before));
  }
}

// Gives `error` the stack of the caller of `site`.
function traceFrom(site, error) {
  try {
    captureStackTrace(error, site);
  } catch {
    // Only a convenience, and user code can break it.
  }
  return error;
}

// A function for user code to call: what it throws has a stack that begins at its caller.
function exposed(name, action) {
  const site = (...args) => {
    try {
      return apply(action, undefined, args);
    } catch (error) {
      traceFrom(site, error);
      throw error;
    }
  };
  defineProperty(site, "name", bare({ value: name }));
  return freeze(site);
}

// The same for all functions of an object.
function exposeAll(object) {
  const names = ownKeys(object);
  for (let i = 0; i < names.length; i++) {
    const value = object[names[i]];
    if (typeof value === "function") object[names[i]] = exposed(names[i], value);
  }
  return object;
}

const textOf = (value) => typeof value === "string" ? value : unseen(() => `${value}`);

const defineFrozen = (name, value) =>
  defineProperty(globalThis, name, bare({ value: freeze(value), enumerable: true }));

// ---- Frames ----

const commands = Deno.openSync("/dev/fd/3", { read: true });
const replies = Deno.openSync("/dev/fd/4", { write: true });
// The same pipe once more: while a read of one file waits, Deno refuses another of the same.
const answers = Deno.openSync("/dev/fd/3", { read: true });

// Blocks without using CPU. False at the end of the stream, which only the daemon's death brings.
function readFully(buffer) {
  for (let at = 0, length = lengthOf(buffer); at < length;) {
    const n = readSync(commands, at === 0 ? buffer : subarray(buffer, at));
    if (n === null) return false;
    at += n;
  }
  return true;
}

const readLength = (header) => (header[0] | (header[1] << 8) | (header[2] << 16) | (header[3] << 24)) >>> 0;

function readFrame() {
  const header = new Bytes(4);
  if (!readFully(header)) return exitProcess(0);
  const body = new Bytes(readLength(header));
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

// Small frames leave in one write from one buffer; large ones are encoded apart. One that a Sink was filled with comes as
// that Sink.
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
  if (typeof json !== "string") return writePacked(json);
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

const VALUE_HEAD = '{"settled":{"kind":"json","value":';
const VALUE_TAIL = "}}";

function writePacked({ packed, count, bytes }) {
  const header = new Bytes(4);
  writeLength(header, bytes + VALUE_HEAD.length + VALUE_TAIL.length);
  writeFully(header);
  writeFully(encode(encoder, VALUE_HEAD));
  for (let i = 0; i < count; i++) writeFully(packed[i]);
  writeFully(encode(encoder, VALUE_TAIL));
}

// Whether a text is longer than that many bytes; only one that may be is worth counting.
const exceeds = (text, bytes) =>
  text.length * 3 > bytes && (text.length > bytes || lengthOf(encode(encoder, text)) > bytes);

// ---- Values ----

// Bytes of a result that the daemon takes, and UTF-16 units of a shown value or an error; come with the job.
let maxResult = 6000;
let maxText = 1000;
const MAX_ESCAPE = 6; // bytes of one unit as JSON: `\u0000`

// Takes the JSON text of a value piece by piece, and packs what has come together. One string of a large value would be
// made of as many as it has parts, and V8 spends more on collecting those than on all the rest.
const makeSink = () => bare({ text: "", packed: bare(), count: 0, bytes: 0, full: false });

// False once there is more than the daemon takes: nothing of the value is worth reading then.
function put(sink, text) {
  if (text.length > maxResult) return !(sink.full = true);
  sink.text += text;
  return sink.text.length <= SCRATCH_CHARS || pack(sink);
}

function pack(sink) {
  const bytes = encode(encoder, sink.text);
  sink.text = "";
  sink.packed[sink.count++] = bytes;
  sink.bytes += lengthOf(bytes);
  return !(sink.full = sink.bytes > maxResult);
}

// Deeper values are shown, not sent: the daemon's JSON reader stops at 128.
const MAX_JSON_DEPTH = 100;
const MAX_INSPECT_DEPTH = 4; // the inspector's own default
// Entries `inspect` may have to visit; keeps it well under a second for any value.
const MAX_INSPECT_VISITS = 20_000;

const quote = (text) => stringify(text);

// Writes `value` as JSON. False when the sink is full, or when reading that text back would not give an equal value. Equal
// means: null, booleans, finite numbers but -0, well-formed strings, dense arrays and plain objects of these, with
// enumerable data properties under string keys. Runs no user code, and therefore never trusts `toJSON`, getters or Proxy
// traps.
function toJson(value, depth, ancestors, sink) {
  switch (typeof value) {
    case "string":
      if (!isWellFormed(value)) return false;
      if (value.length > maxResult) return !(sink.full = true); // before it is copied
      return put(sink, quote(value));
    case "boolean":
      return put(sink, value ? "true" : "false");
    case "number":
      return isFinite(value) && !is(value, -0) && put(sink, `${value}`);
    case "object":
      break;
    default:
      return false;
  }
  if (value === null) return put(sink, "null");
  if (depth >= MAX_JSON_DEPTH || isProxy(value) || has(ancestors, value)) return false;
  add(ancestors, value);
  const done = isArray(value) ? arrayToJson(value, depth, ancestors, sink) : objectToJson(value, depth, ancestors, sink);
  remove(ancestors, value);
  return done;
}

function arrayToJson(value, depth, ancestors, sink) {
  if (getPrototypeOf(value) !== ArrayPrototype) return false;
  const { length } = value;
  put(sink, "[");
  for (let i = 0; i < length; i++) {
    if (i > 0) put(sink, ",");
    if (!dataToJson(getOwnPropertyDescriptor(value, i), depth, ancestors, sink)) return false;
  }
  // A dense array owns its items and `length`, nothing else.
  return ownKeys(value).length === length + 1 && put(sink, "]");
}

function objectToJson(value, depth, ancestors, sink) {
  const prototype = getPrototypeOf(value);
  if (prototype !== ObjectPrototype && prototype !== null) return false;
  const keys = ownKeys(value);
  put(sink, "{");
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    if (typeof key !== "string" || !isWellFormed(key) || key === "toJSON") return false;
    put(sink, `${i === 0 ? "" : ","}${quote(key)}:`);
    if (!dataToJson(getOwnPropertyDescriptor(value, key), depth, ancestors, sink)) return false;
  }
  return put(sink, "}");
}

function dataToJson(property, depth, ancestors, sink) {
  if (property === undefined || !property.enumerable || !hasOwn(property, "value")) return false;
  return !sink.full && toJson(property.value, depth + 1, ancestors, sink);
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

// The frame that tells `value`.
function encodeValue(value) {
  if (value === undefined) return '{"settled":{"kind":"none"}}';
  const sink = makeSink();
  let isJson = false;
  try {
    isJson = toJson(value, 0, new SafeWeakSet(), sink);
  } catch {
    // A Proxy that was revoked, or too little stack is left: shown like any other value.
  }
  if (isJson && sink.count === 0 && !exceeds(sink.text, maxResult)) return `${VALUE_HEAD}${sink.text}${VALUE_TAIL}`;
  if (isJson && pack(sink)) return sink;
  if (sink.full) return '{"too_large":{}}';
  return `{"settled":{"kind":"inspect","text":${quote(clip(show(value), maxText))}}}`;
}

// ---- Media ----

let maxMedia = 0; // bytes; comes with the job
const MAX_MEDIA_ITEMS = 64;
const MAX_NAME = 255;

// What `conductor.image` and its like have made, by the object that stands for it in user code.
const made = new SafeWeakMap();

const isBytes = (value) => arrayTag(value) === "Uint8Array";

function isBlob(value) {
  try {
    return !isProxy(value) && isPrototypeOf(BlobPrototype, value) && blobSize(value) >= 0;
  } catch {
    return false;
  }
}

// The media type that the first bytes tell, or "".
function sniff(bytes) {
  const begins = (text, at = 0) => {
    for (let i = 0; i < text.length; i++) if (bytes[at + i] !== charCodeAt(text, i)) return false;
    return true;
  };
  if (begins("\x89PNG\r\n\x1a\n")) return "image/png";
  if (begins("\xff\xd8\xff")) return "image/jpeg";
  if (begins("GIF87a") || begins("GIF89a")) return "image/gif";
  if (begins("RIFF") && begins("WEBP", 8)) return "image/webp";
  if (begins("RIFF") && begins("WAVE", 8)) return "audio/wav";
  if (begins("ID3")) return "audio/mpeg";
  if (begins("OggS")) return "audio/ogg";
  if (begins("fLaC")) return "audio/flac";
  if (begins("%PDF-")) return "application/pdf";
  return "";
}

const kindOf = (type) => startsWith(type, "image/") ? "image" : startsWith(type, "audio/") ? "audio" : "file";

const isAlphanumeric = (c) => (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a);

// A type or a subtype (RFC 6838, section 4.2). Must equal `is_restricted_name` in the daemon's `outcome.rs`.
function isRestrictedName(text) {
  if (text.length === 0 || text.length > 127 || !isAlphanumeric(charCodeAt(text, 0))) return false;
  for (let i = 1; i < text.length; i++) {
    const c = charCodeAt(text, i);
    if (!isAlphanumeric(c) && !contains("!#$&-^_.+", text[i])) return false;
  }
  return true;
}

// `type/subtype` of a media type, without its parameters; "" if it is none.
function essence(type) {
  let end = 0;
  while (end < type.length && type[end] !== ";" && type[end] !== " ") end++;
  const names = sliceText(type, 0, end);
  let slash = 0;
  while (slash < end && names[slash] !== "/") slash++;
  return isRestrictedName(sliceText(names, 0, slash)) && isRestrictedName(sliceText(names, slash + 1)) ? names : "";
}

// Bytes that user code cannot change any more, or a Blob, which nobody can change.
function mediaSource(value, kind) {
  if (isBytes(value)) return new Bytes(value);
  if (isBlob(value)) return value;
  if (kind === "file" && typeof value === "string") return encode(encoder, value);
  try {
    if (bufferLength(value) >= 0) return new Bytes(new Bytes(value));
  } catch {
    // Not an ArrayBuffer either.
  }
  const text = kind === "file" ? " or a string" : "";
  throw new NativeTypeError(`conductor.${kind} takes a Uint8Array, an ArrayBuffer, a Blob${text}`);
}

// A field of the options, which are data.
function option(kind, options, key) {
  if (options === undefined || options === null) return undefined;
  const property = typeof options === "object" && !isProxy(options) ? getOwnPropertyDescriptor(options, key) : undefined;
  if (typeof options !== "object" || isProxy(options) || (property !== undefined && !hasOwn(property, "value"))) {
    throw new NativeTypeError(`conductor.${kind} takes its options as an object of data, { mimeType, name }`);
  }
  return property?.value;
}

function makeMedia(kind, value, options) {
  const source = mediaSource(value, kind);
  const given = option(kind, options, "mimeType");
  const name = option(kind, options, "name");
  let mediaType = isBytes(source) ? sniff(source) : essence(blobType(source));
  if (given !== undefined) {
    mediaType = typeof given === "string" ? essence(given) : "";
    if (mediaType === "") {
      const shown = typeof given === "string" ? clip(quote(given), MAX_NAME) : `a ${typeof given}`;
      throw new NativeTypeError(`conductor.${kind}: ${shown} is no media type, which mimeType must be`);
    }
  } else if (kind === "file" && mediaType === "") {
    mediaType = typeof value === "string" ? "text/plain" : "application/octet-stream";
  }
  if (mediaType === "" || (kind !== "file" && kindOf(mediaType) !== kind)) {
    throw new NativeTypeError(`conductor.${kind} needs { mimeType: "${kind === "file" ? "type" : kind}/..." } for this`);
  }
  if (name !== undefined && (typeof name !== "string" || name.length > MAX_NAME)) {
    throw new NativeTypeError(`conductor.${kind}: the name must be a string of at most ${MAX_NAME} characters`);
  }
  const item = bare({ kind, mediaType, name, source });
  const shown = freeze(bare({ kind, mimeType: mediaType, ...(name === undefined ? {} : { name }), bytes: sizeOf(item) }));
  setWeak(made, shown, item);
  return shown;
}

const sizeOf = ({ source }) => isBytes(source) ? lengthOf(source) : blobSize(source);

// What `value` is as media; `undefined` if it is none.
function asMedia(value) {
  if (typeof value !== "object" || value === null) return undefined;
  const item = getWeak(made, value);
  if (item !== undefined) return item;
  const mediaType = isBytes(value) ? sniff(value) : isBlob(value) ? essence(blobType(value)) : "";
  return mediaType === "" ? undefined : bare({ kind: kindOf(mediaType), mediaType, name: undefined, source: value });
}

// The media in a returned value: it is one, or an array of nothing else.
function mediaIn(value) {
  if (isProxy(value) || !isArray(value)) {
    const item = asMedia(value);
    return item === undefined ? undefined : [item];
  }
  if (value.length === 0 || value.length > MAX_MEDIA_ITEMS) return undefined;
  const items = [];
  for (let i = 0; i < value.length; i++) {
    const property = getOwnPropertyDescriptor(value, i);
    const item = property !== undefined && hasOwn(property, "value") ? asMedia(property.value) : undefined;
    if (item === undefined) return undefined;
    defineProperty(items, i, bare({ value: item, enumerable: true }));
  }
  return items;
}

// The frame that tells media.
async function encodeMedia(items) {
  let total = 0;
  for (let i = 0; i < items.length; i++) total += sizeOf(items[i]);
  if (total > maxMedia) return `{"settled":{"kind":"oversized","bytes":${total}}}`;
  let text = "";
  for (let i = 0; i < items.length; i++) {
    const { kind, mediaType, name, source } = items[i];
    const bytes = isBytes(source) ? source : new Bytes(await own(blobBuffer(source)));
    const label = name === undefined ? "" : `"name":${quote(toWellFormed(name))},`;
    const head = `{"kind":"${kind}","media_type":${quote(mediaType)},${label}`;
    text += `${i === 0 ? "" : ","}${head}"data":"${toBase64(bytes)}"}`;
  }
  if (text.length > maxResult) return '{"too_large":{}}';
  return `{"settled":{"kind":"media","items":[${text}]}}`;
}

// ---- Calls to the daemon ----

// What the daemon works on at one time; later calls wait here. Comes with the job.
let maxInFlight = 0;
const MAX_PARAMS = 4 << 20; // bytes. Must equal MAX_PARAMS_BYTES in worker/calls.rs

const calls = bare(); // by number; those before `sent` have been sent
let called = 0;
let sent = 0;
let inFlight = 0;
let reading = false;
let broken; // why no answer can come any more

// Asks the daemon. `params` is JSON text; `convert` makes the promise's value of the answer. `site` is the function of the
// API that user code has called: the stack of a failure begins at its caller.
function callDaemon(method, params, convert, site) {
  const trace = traceFrom(site, bare());
  return new NativePromise((resolve, reject) => {
    if (broken !== undefined) return reject(callError(broken, trace));
    if (exceeds(params, MAX_PARAMS)) return reject(callError(tooLarge, trace));
    calls[called] = bare({ frame: `{"call":{"id":${called},"method":"${method}","params":${params}}}`, resolve, reject, convert, trace });
    called++;
    sendCalls();
    if (!reading) readAnswers();
  });
}

const tooLarge = bare({
  name: "CallLimitError",
  message: `the parameters of a call may have ${MAX_PARAMS} bytes; these were more`,
});

function sendCalls() {
  for (; sent < called && inFlight < maxInFlight; sent++, inFlight++) writeFrame(calls[sent].frame);
}

// The pipe is read only while an answer is due, so that it does not keep the event loop alive.
async function readAnswers() {
  reading = true;
  while (inFlight > 0) {
    let reply;
    try {
      const header = new Bytes(4);
      if (!await own(readFullyAsync(header))) throw new NativeError("the daemon has closed the channel");
      const body = new Bytes(readLength(header));
      if (!await own(readFullyAsync(body))) throw new NativeError("the daemon has closed the channel");
      reply = parse(decode(decoder, body)).reply;
    } catch {
      return failCalls();
    }
    settleCall(reply);
    sendCalls();
  }
  reading = false;
}

async function readFullyAsync(buffer) {
  for (let at = 0, length = lengthOf(buffer); at < length;) {
    const n = await own(readAsync(answers, at === 0 ? buffer : subarray(buffer, at)));
    if (n === null) return false;
    at += n;
  }
  return true;
}

function settleCall(reply) {
  const call = calls[reply.id];
  if (call === undefined) return; // answers a frame that user code wrote itself: no call of ours is done
  delete calls[reply.id];
  inFlight--;
  try {
    if (hasOwn(reply, "error")) call.reject(callError(reply.error, call.trace));
    else unseen(() => call.resolve(call.convert(reply.value)));
  } catch (error) {
    call.reject(error);
  }
}

// User code has spoiled the channel. Where a frame begins is lost, so later calls fail too.
function failCalls() {
  broken = bare({ name: "Error", message: "the channel to the daemon is broken: the code has read from it or closed it" });
  const ids = ownKeys(calls);
  for (let i = 0; i < ids.length; i++) {
    const { reject, trace } = calls[ids[i]];
    delete calls[ids[i]];
    reject(callError(broken, trace));
  }
}

function callError({ name, message, data }, trace) {
  const isTool = name === "McpToolError";
  const error = isTool ? new McpToolError(message) : new NativeError(message);
  const define = (key, value) => defineProperty(error, key, bare({ value, writable: true, configurable: true }));
  if (!isTool && name !== "Error") define("name", name);
  if (data !== undefined) {
    const keys = ownKeys(data);
    for (let i = 0; i < keys.length; i++) define(keys[i], data[keys[i]]);
  }
  const stack = read(trace, "stack");
  // Its first line is "Error", made before there was a message.
  if (typeof stack === "string") define("stack", `${name}: ${message}${sliceText(stack, 5)}`);
  return error;
}

// The object `conductor` of user code.
function makeConductor(version) {
  const stored = ({ media_type, text }) => media_type === "application/json" ? parse(text) : text;
  const result = exposed("result", (id) => {
    if (typeof id !== "string") throw new NativeTypeError("conductor.result takes the id of a result, a string");
    return callDaemon("result", `{"id":${quote(clip(id, MAX_NAME))}}`, stored, result);
  });
  const maker = (kind) => exposed(kind, (content, options) => unseen(() => makeMedia(kind, content, options)));
  return bare({ version, result, image: maker("image"), audio: maker("audio"), file: maker("file") });
}

// ---- Upstream servers ----

// What a call to an upstream server fails with: `code` says how, `content` is what a tool that failed has said.
class McpToolError extends Error {}
defineProperty(McpToolError.prototype, "name", bare({ value: "McpToolError", writable: true, configurable: true }));

const asIs = (value) => value;

// Asks an upstream server for something. `fields` are names and values in turn; a value that is no JSON rejects.
function callUpstream(method, fields, site) {
  let params = "";
  try {
    for (let i = 0; i < fields.length; i += 2) {
      const text = unseen(() => stringify(fields[i + 1]));
      if (text !== undefined) params += `${params === "" ? "" : ","}"${fields[i]}":${text}`;
    }
  } catch (error) {
    traceFrom(site, error);
    return new NativePromise((_, reject) => reject(error));
  }
  return callDaemon(method, `{${params}}`, asIs, site);
}

const timeoutOf = (options) =>
  typeof options === "object" && options !== null ? unseen(() => options.timeout) : undefined;

// A server as `mcpFactory.load` gives it.
function makeServer(server) {
  const call = (method, site, ...fields) => callUpstream(method, ["server", server, ...fields], site);
  const api = {
    name: server,
    callTool: (name, args, options) =>
      call("callTool", api.callTool, "name", name, "args", args, "timeout", timeoutOf(options)),
    callToolRaw: (name, args, options) =>
      call("callTool", api.callToolRaw, "name", name, "args", args, "timeout", timeoutOf(options), "raw", true),
    listTools: () => call("listTools", api.listTools),
    listResources: () => call("listResources", api.listResources),
    readResource: (uri) => call("readResource", api.readResource, "uri", uri),
    listPrompts: () => call("listPrompts", api.listPrompts),
    getPrompt: (name, args) => call("getPrompt", api.getPrompt, "name", name, "args", args),
  };
  return freeze(exposeAll(api));
}

function makeFactory(names) {
  const factory = {
    listServers: () => callUpstream("listServers", [], factory.listServers),
    load: (name) => callDaemon("load", `{"server":${stringify(textOf(name))}}`, makeServer, factory.load),
  };
  return bare({ ...exposeAll(factory), servers: freeze(names) });
}

// `mcp.server.tool(args)`: every name is there, and the daemon says if none is meant by it.
function makeSugar(names) {
  const member = (make) => {
    const known = bare();
    return (_, key) => {
      // Awaiting it, or a look at it by the inspector, is no call.
      if (typeof key !== "string" || key === "then" || key === "toJSON") return undefined;
      return known[key] ??= make(key);
    };
  };
  const readOnly = () => false;
  const guard = bare({ set: readOnly, defineProperty: readOnly, deleteProperty: readOnly });
  const tools = (server) => {
    const get = member((tool) => {
      const call = exposed(tool, (args, options) =>
        callUpstream("callTool", ["server", server, "name", tool, "args", args, "timeout", timeoutOf(options)], call));
      return call;
    });
    return new NativeProxy(bare(), bare({ ...guard, get }));
  };
  const target = bare();
  const get = member(tools);
  for (let i = 0; i < names.length; i++) target[names[i]] = get(target, names[i]);
  return new NativeProxy(target, bare({ ...guard, get }));
}

function defineUpstreams(names) {
  defineFrozen("mcpFactory", makeFactory(names));
  defineProperty(globalThis, "mcp", bare({ value: makeSugar(names), enumerable: true }));
  defineProperty(globalThis, "McpToolError", bare({ value: McpToolError, writable: true, configurable: true }));
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

// Reads properties, so it may run user code.
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

// What is imported in place of a specifier: exact ones come with the job, where the daemon has looked them up.
let imports = bare();

// The name of a package and what follows it, as in `npm:@a/b@1/c`; `undefined` if it is none.
function splitPackage(specifier) {
  const registry = startsWith(specifier, "npm:") ? "npm:" : startsWith(specifier, "jsr:") ? "jsr:" : "";
  let at = registry.length;
  if (specifier[at] === "/") at++;
  const start = at;
  if (specifier[at] === "@") while (at < specifier.length && specifier[at] !== "/") at++;
  if (specifier[at] === "/") at++;
  while (at < specifier.length && specifier[at] !== "/" && specifier[at] !== "@") at++;
  const name = sliceText(specifier, start, at);
  const version = at;
  if (specifier[at] === "@") while (at < specifier.length && specifier[at] !== "/") at++;
  return { __proto__: null, registry, name, version: sliceText(specifier, version, at), path: sliceText(specifier, at) };
}

// The spelling under which the lock knows a package. A computed specifier cannot be looked up by the daemon beforehand;
// one that names no version means the locked one.
function spell(specifier, spellings) {
  const exact = imports[specifier];
  if (exact !== undefined) return exact;
  const { registry, name, version, path } = splitPackage(specifier);
  if (version !== "") return specifier;
  const locked = spellings[`${registry === "" ? "npm:" : registry}${name}`] ??
    (registry === "" ? spellings[`jsr:${name}`] : undefined);
  return locked === undefined ? specifier : `${locked}${path}`;
}

// The object that the code sees under `api_name`: what a module has and a function lacks.
function makeApi({ workspace, spellings }) {
  const known = bare(spellings);
  const directory = startsWith(workspace, "/") ? workspace : `/${workspace}`;
  const main = new NativeURL("file:///");
  main.pathname = encodeURI(`${directory}/main.ts`);
  const { href } = main;
  const isRelative = (specifier) =>
    startsWith(specifier, "./") || startsWith(specifier, "../") || startsWith(specifier, "/");
  const resolve = (specifier) => new NativeURL(specifier, href).href;
  const meta = freeze(bare({
    url: href,
    dirname: directory,
    filename: `${directory}/main.ts`,
    main: true,
    resolve: exposed("resolve", (specifier) => resolve(textOf(specifier))),
  }));
  return freeze(bare({
    meta,
    import: exposed("import", (specifier, options) => {
      const text = textOf(specifier);
      const target = isRelative(text) ? resolve(text) : spell(text, known);
      return options === undefined ? import(target) : unseen(() => import(target, options));
    }),
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

function freezeDeep(value) {
  if (typeof value !== "object" || value === null) return value;
  const keys = ownKeys(value);
  for (let i = 0; i < keys.length; i++) freezeDeep(value[keys[i]]);
  return freeze(value);
}

// Must equal USER_SCRIPT_URL in worker/frame.rs.
const USER_SCRIPT_URL = "conductor:main.ts";

// Exactly one `settled` frame leaves, whoever is first: the value, an uncaught error, an exit.
let settled = false;
let over = false;

// Nothing of user code runs after this: the reads end only when the daemon closes the pipe.
function stop() {
  if (over) return;
  over = true;
  writeFrame('{"drained":{}}');
  const late = new Bytes(1024); // answers to calls that nobody waits for any more
  while (readFully(late));
}

function settle(frame) {
  if (settled) return false;
  settled = true;
  writeFrame(frame);
  return true;
}

// As `deno run` does: an error nobody catches ends the program.
function fail(thrown) {
  hideStacks(); // for good: what follows is the end
  const json = thrownJson(thrown);
  if (!settle(`{"settled":{"kind":"thrown","error":${json}}}`)) writeFrame(`{"late":${json}}`);
  stop();
}

// Starts the job; `done` is told when its value is.
function run({ code, api_name: apiName, globals, imports: exact, max_result, max_media, max_calls_in_flight }, done) {
  imports = bare(exact);
  maxResult = max_result;
  maxText = trunc(max_result / MAX_ESCAPE);
  maxMedia = max_media;
  maxInFlight = max_calls_in_flight;
  let body;
  try {
    defineGlobals(globals);
    body = new AsyncFunction(apiName, `${code}\n//# sourceURL=${USER_SCRIPT_URL}`);
  } catch (thrown) {
    fail(thrown);
    return;
  }
  const onValue = (value) => {
    finish(value, done);
  };
  enter(bind(body, undefined, api), (running) => whenSettled(running, onValue, fail), fail);
}

async function finish(value, done) {
  let media;
  try {
    const items = unseen(() => mediaIn(value));
    if (items !== undefined) media = await own(encodeMedia(items));
  } catch {
    // Shown like any other value.
  }
  settle(media ?? unseen(() => encodeValue(value)));
  reportOpenHandles();
  done?.();
}

// Names what is still open if the loop lives on for a while. The timer itself does not keep it alive.
function reportOpenHandles() {
  handlesTimer = createSystemTimer(() => {
    try {
      writeFrame(`{"open":{"handles":[${unseen(openHandles)}]}}`);
    } catch {
      // Only a description: without it the daemon reports handles without names.
    }
  }, 100, false);
}

const MAX_HANDLES = 20;
let ownResources;
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
  listen("error", (event) => {
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
  listen("unhandledrejection", (event) => {
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
  listen("beforeunload", stop);
  // `process.exit` and `process.reallyExit` end here too. The process's own status tells the code; this frame only
  // tells an exit from a crash.
  deno.exit = function exit(code) {
    hideStacks(); // for good: listeners of `unload` are called from here
    const claimed = typeof code === "number" ? code : read(deno, "exitCode");
    settle(`{"settled":{"kind":"exit","code":${typeof claimed === "number" ? claimed | 0 : 0}}}`);
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
    imports: {},
    max_result: 6000,
    max_media: 0,
    max_calls_in_flight: 0,
  });
  await new NativePromise((done) => run(parse(decode(decoder, encode(encoder, stringify(job)))), done));
  cancelTimer(handlesTimer);
  settled = false;
  delete globalThis.warm;
  // Nobody listens to it yet.
  dispatchEvent(new Event("beforeunload", { cancelable: true }));
}

// ---- Templates ----

// Loads what a template forks with, and gives up the permission. The function never leaves this file. Its library is closed
// at once: code finds what is open by its number, and can call into it. It stays in memory all the same (`build.rs`).
function loadFork(path) {
  const library = Deno.dlopen(path, { conductor_fork_serve: { parameters: ["i32"], result: "i32" } });
  const { conductor_fork_serve: serve } = library.symbols;
  library.close();
  Deno.permissions.revokeSync({ name: "ffi", path });
  return serve;
}

const FORK_SOCKET = 5; // must equal SOCKET of conductor-fork

// In a template: returns in each of its children, which then differ from it in what must differ. What the child drew first.
function forkWorker(fork, seed) {
  writeFrame('{"ready":{}}');
  const pid = fork(FORK_SOCKET);
  defineProperty(deno, "pid", bare({ value: pid, writable: true, enumerable: true, configurable: true }));
  renewPid();
  return seed();
}

// `process.pid` is a copy that Node's part of Deno makes once, when a package needs it. It is made to do so again, and stopped
// right behind that, by what it reads next. The self-test of templates knows whether that has worked.
function renewPid() {
  if (internals.__nodeProcessBootstrapped !== true) return;
  const ppid = getOwnPropertyDescriptor(deno, "ppid");
  defineProperty(deno, "ppid", bare({ get: () => { throw undefined; }, configurable: true }));
  try {
    internals.__nodeProcessBootstrapped = false;
    const { argv0, denoArgs, denoVersion, runningOnMainThread } = internals.__nodeBootstrapArgs;
    internals.__bootstrapNodeProcess(argv0, denoArgs, denoVersion, "", false, runningOnMainThread);
  } catch {
    // As it should.
  }
  defineProperty(deno, "ppid", bare(ppid));
}

// Somebody has drawn a random number since this was last false. Only templates look at it.
let drawn = false;

// Deno's generator makes this many bytes at a time, and hands out those that are left before it notices a fork.
const DRAWN_AHEAD = 256;

// Puts a generator of ours in the place of V8's `Math.random`, whose state every child would begin with. What is returned
// seeds it, and tells the first number that was drawn: two children have the same if their template has drawn any. The
// generator is xoshiro128** by D. Blackman and S. Vigna.
function replaceRandom() {
  const state = new Words(4);
  const { imul } = Math;
  const getRandomValues = bind(crypto.getRandomValues, crypto);
  const rotate = (x, k) => (x << k) | (x >>> (32 - k));
  const next = () => {
    drawn = true;
    const result = imul(rotate(imul(state[1], 5), 7), 9) >>> 0;
    const shifted = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 11);
    return result;
  };
  const { random } = {
    random() {
      return ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000;
    },
  };
  defineProperty(Math, "random", bare({ value: random, writable: true, configurable: true }));
  return () => {
    const first = getRandomValues(new Words(1))[0];
    getRandomValues(new Bytes(DRAWN_AHEAD));
    getRandomValues(state);
    return first;
  };
}

// Notes draws by the methods of `crypto`, until the returned function is called. What a package has kept of them by then goes
// on to work. Other draws show in the first number of the children.
function watchDraws() {
  const watched = bare();
  let count = 0;
  const watch = (prototype, name) => {
    const before = bare(getOwnPropertyDescriptor(prototype, name));
    const draw = before.value;
    const { [name]: noting } = {
      [name](...args) {
        drawn = true;
        return apply(draw, this, args);
      },
    };
    defineProperty(noting, "length", bare({ value: draw.length }));
    defineProperty(prototype, name, bare({ ...before, value: noting }));
    watched[count++] = () => {
      if (getOwnPropertyDescriptor(prototype, name)?.value === noting) defineProperty(prototype, name, before);
    };
  };
  const subtle = SubtleCrypto.prototype;
  for (const name of ownKeys(subtle)) {
    if (name !== "constructor" && typeof getOwnPropertyDescriptor(subtle, name).value === "function") watch(subtle, name);
  }
  watch(Crypto.prototype, "getRandomValues");
  watch(Crypto.prototype, "randomUUID");
  return () => {
    for (let i = 0; i < count; i++) watched[i]();
  };
}

// A number that each timer takes the next of, whoever sets it.
function timerNumber() {
  const timer = createSystemTimer(() => {}, 1000, false);
  cancelTimer(timer);
  return timer._timerId;
}

// Imports what the children of a template are to have in common.
async function share() {
  const end = watchDraws();
  for (let i = 0; i < boot.shared.length; i++) {
    writeFrame(`{"importing":${i}}`);
    const why = await own(importShared(boot.shared[i]));
    if (why !== undefined) writeFrame(`{"unfit":{"index":${i},"why":"${why}"}}`);
  }
  end();
}

// Why the children of a template must not share a package; `undefined` if they may.
async function importShared(specifier) {
  const open = bare(resources());
  const number = timerNumber();
  drawn = false;
  try {
    await own(import(specifier));
  } catch {
    return "failed";
  }
  const waits = timerNumber() !== number + 1 || getActiveImmediateCount() > 0;
  // A rejection that nobody catches ends the process now, while it is known whose it is.
  await own(new NativePromise((resolve) => createSystemTimer(() => resolve(), 0, true)));
  if (drawn) return "random";
  if (waits) return "timer";
  const ids = ownKeys(resources());
  for (let i = 0; i < ids.length; i++) if (!(ids[i] in open)) return "open";
  return undefined;
}

// ---- Boot ----

async function preload() {
  for (let i = 0; i < boot.preload.length; i++) {
    try {
      await own(import(boot.preload[i]));
    } catch {
      // The job that imports it gets the error.
    }
  }
}

const { boot } = readFrame();
const fork = boot.library === null ? undefined : loadFork(boot.library);
const seedRandom = fork === undefined ? undefined : replaceRandom();
ownResources = bare(resources());
// The channel stays open; only opening it again by path is taken away. A courtesy, not a boundary: see `worker.rs`.
if (boot.revoke_read) Deno.permissions.revokeSync({ name: "read", path: "/dev/fd/3" });
if (boot.revoke_write) Deno.permissions.revokeSync({ name: "write", path: "/dev/fd/4" });
const api = makeApi(boot);
// The program that runs is the user's, for Node's `process.argv` as well.
defineProperty(deno, "mainModule", bare({ value: api.meta.url, writable: true, enumerable: true, configurable: true }));
defineGlobals({ WORKSPACE_DIR: boot.workspace });
defineFrozen("conductor", makeConductor(boot.version));
await warm();
let isBooted = false;
// Once the module has been evaluated, the end of the event loop is one step away from the end of the job. The microtask
// leaves Deno's dispatch of the event, which user code could make throw. Before packages listen, which could end the dispatch.
listen("load", async () => {
  await undefined;
  if (!isBooted) return; // a package has dispatched it
  isBooted = false;
  let ready = '{"ready":{}}';
  if (fork !== undefined) {
    if (eventLoopHasMoreWork()) writeFrame('{"unfit":{"why":"work"}}');
    ready = `{"ready":{"drawn":${forkWorker(fork, seedRandom)}}}`;
    await own(preload());
  }
  writeFrame(ready);
  const job = readFrame().run;
  defineFrozen("PERMISSIONS", freezeDeep(job.permissions));
  if (job.upstreams !== null) defineUpstreams(job.upstreams);
  run(job);
});
await (fork === undefined ? preload() : share());
watchForTheEnd();
isBooted = true;
