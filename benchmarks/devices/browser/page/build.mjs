// Bundle the page and its two workers into dist/, with the runtimes' wasm files out of their npm packages.
import { build } from "esbuild";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const here = (path) => new URL(path, import.meta.url).pathname;
const version = async (name) => JSON.parse(await readFile(here(`node_modules/${name}/package.json`), "utf8")).version;

const common = {
  bundle: true,
  minify: true,
  legalComments: "eof",
  target: ["es2022"],
  define: {
    ONNXRUNTIME_WEB_VERSION: JSON.stringify(await version("onnxruntime-web")),
    LITERT_VERSION: JSON.stringify(await version("@litertjs/core")),
  },
  logLevel: "warning",
};

await rm(here("dist"), { recursive: true, force: true });
await mkdir(here("dist/onnx"), { recursive: true });
await mkdir(here("dist/tflite"), { recursive: true });
await build({ ...common, entryPoints: [here("src/main.ts")], outfile: here("dist/main.js"), format: "esm" });
await build({
  ...common,
  entryPoints: [here("src/worker_onnx.ts")],
  outfile: here("dist/worker_onnx.js"),
  format: "esm",
  conditions: ["onnxruntime-web-use-extern-wasm"],
});
// A classic script: LiteRT.js loads its own with importScripts, which modules do not have.
await build({
  ...common,
  entryPoints: [here("src/worker_tflite.ts")],
  outfile: here("dist/worker_tflite.js"),
  format: "iife",
});

// WebAssembly is kept and sent packed: a third of the bytes on the disk, in the wheel and over a phone's network.
const take = async (from, folder, file) => {
  const content = await readFile(here(`node_modules/${from}/${file}`));
  const packed = file.endsWith(".wasm");
  await writeFile(here(`dist/${folder}/${file}${packed ? ".gz" : ""}`), packed ? gzipSync(content, { level: 9 }) : content);
};

for (const file of ["index.html", "style.css"]) await cp(here(file), here(`dist/${file}`));
// The last is not for this page: `pocketship embed --web` takes the runtime from here.
for (const file of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "ort.wasm.min.mjs"]) {
  await take("onnxruntime-web/dist", "onnx", file);
}
for (const kind of ["", "_compat", "_threaded"]) {
  for (const suffix of ["js", "wasm"]) await take("@litertjs/core/wasm", "tflite", `litert_wasm${kind}_internal.${suffix}`);
}
