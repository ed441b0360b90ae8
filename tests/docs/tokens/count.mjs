// In: a JSON array of texts on stdin. Out: a JSON array of their tokens, by the encoding o200k_base.
import { readFileSync } from "node:fs";
import { Tiktoken } from "js-tiktoken/lite";
import encoding from "js-tiktoken/ranks/o200k_base";

const tokenizer = new Tiktoken(encoding);
const texts = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(texts.map((text) => tokenizer.encode(text, [], []).length)));
