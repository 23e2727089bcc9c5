// Runs the web library's processing over the conformance files: node conformance.mjs MODULES VOCAB UNICODE CONFORMANCE
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules, vocabulary, unicode, folder] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${modules}/${name}.js`).href);
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const counts = {};
const differences = {};

function note(kind, name, same) {
  counts[kind] = (counts[kind] ?? 0) + 1;
  differences[kind] = (differences[kind] ?? 0) + (same ? 0 : 1);
  if (!same) console.log(`${kind}: ${name}`);
}

const { WordPiece } = await load("wordpiece");
const options = {
  lowercase: true, stripAccents: true, cleanText: true, handleChineseChars: true, prefix: "##", maxChars: 100,
  unk: 100, cls: 101, sep: 102, pad: 0, maxTokens: 128,
  special: [["[PAD]", 0], ["[UNK]", 100], ["[CLS]", 101], ["[SEP]", 102], ["[MASK]", 103]],
};
const tokenizer = new WordPiece(readFileSync(vocabulary, "utf8"), readFileSync(unicode, "utf8"), options);
for (const line of readFileSync(`${folder}/text.tsv`, "utf8").split("\n").slice(0, -1)) {
  const [hex, ids] = line.split("\t");
  note("text", hex.slice(0, 60), tokenizer.tokens(new Uint8Array(Buffer.from(hex, "hex"))).join(" ") === ids);
}
note("surrogates", "lone", (() => {
  const kept = new WordPiece(readFileSync(vocabulary, "utf8"), readFileSync(unicode, "utf8"), { ...options, cleanText: false });
  return kept.tokens("a\ud800\udfff\udc00b").join() === kept.tokens("a\u{103ff}\ufffdb").join();
})());

const content = readFileSync(`${folder}/cases.bin`);
const types = { u8: Uint8Array, f32: Float32Array, f64: Float64Array, i64: BigInt64Array };

function array(text) {
  const [type, offset, shape] = text.slice(1).split(":");
  const lengths = shape.split("x").map(Number);
  const count = lengths.reduce((a, b) => a * b, 1);
  const bytes = Uint8Array.from(content.subarray(Number(offset), Number(offset) + count * types[type].BYTES_PER_ELEMENT));
  return { shape: lengths, values: new types[type](bytes.buffer) };
}

const LISTS = { mean: true, std: true, low: true, high: true, fill: true };
const NUMBERS = /^-?[0-9.]+(e-?[0-9]+)?$/;

function parsed(kind, key, text) {
  if (text.startsWith("@")) return array(text);
  if (key === "labels" || key === "above") return text ? text.split(",") : [];
  if (LISTS[key] && kind !== "audio") return text ? text.split(",").map(Number) : [];
  if (text === "true" || text === "false") return text === "true";
  if (text === "") return null;
  return NUMBERS.test(text) ? Number(text) : text;
}

function near(found, wanted, tolerance) {
  if (found.length !== wanted.length) return false;
  const bits = (values) => new Int32Array(Float32Array.from(values).buffer);
  const [a, b] = [bits(found), bits(wanted)];
  return found.every((value, i) => {
    if (tolerance === "ulp") return value === wanted[i] || Math.abs(a[i] - b[i]) <= 1;
    return Math.abs(value - wanted[i]) <= tolerance * Math.max(1, Math.abs(wanted[i]));
  });
}

const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
const [image, audio, series, postprocess] = await Promise.all(["image", "audio", "series", "postprocess"].map(load));
for (const line of readFileSync(`${folder}/cases.tsv`, "utf8").split("\n").slice(0, -1)) {
  const pairs = line.split("\t").map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]);
  const kind = pairs[0][1];
  const o = Object.fromEntries(pairs.map(([key, text]) => [camel(key), parsed(kind, key, text)]));
  const wanted = o.expected.values;
  let passed;
  if (kind === "image") {
    const [height, width] = o.pixels.shape;
    passed = near(image.toTensor({ width, height, rgb: o.pixels.values }, o), wanted, o.tolerance);
  } else if (kind === "audio") {
    const tables = Float64Array.from([...o.tablesWindow.values, ...o.tablesFilters.values]);
    passed = near(audio.toTensor(o.sound.values, o, tables), wanted, o.tolerance);
  } else if (kind === "series") {
    passed = near(series.toTensor(o.series.values, o), wanted, 0);
  } else if (kind === "classes") {
    const found = postprocess.classes(o.values.values, o);
    passed = near(found.scores, wanted, o.tolerance) && found.label === o.label && same(found.above, o.above);
  } else {
    const mask = o.mask ? o.mask.values : null;
    passed = near(postprocess.embedding(o.values.values, o.values.shape, o, mask), wanted, o.tolerance);
  }
  note(kind, o.case, passed);
}
console.log(Object.keys(counts).map((kind) => `${kind}: ${counts[kind]} cases, ${differences[kind]} differences`).join("; "));
process.exit(Object.values(differences).some(Boolean) ? 1 : 0);
