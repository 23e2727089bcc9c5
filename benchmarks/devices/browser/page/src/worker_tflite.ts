// TFLite files in LiteRT.js, on the CPU (XNNPACK).

import { Tensor as LiteRtTensor, loadAndCompile, loadLiteRt } from "@litertjs/core";
import { Refused, type Asked, type Sample, type Spec } from "./contract";
import { serve, type Runtime, type Session } from "./worker";

declare const LITERT_VERSION: string;

/** What the library last complained of: its errors themselves say less. */
let complaint = "";
const print = (text: string): void => {
  if (text.startsWith("ERROR")) complaint = text.replace(/^ERROR:\s*/, "");
};

serve(async ({ script, wasm, threads }: Asked): Promise<Runtime> => {
  Object.assign(self, { Module: { wasmBinary: wasm, mainScriptUrlOrBlob: script, print, printErr: print } });
  // LiteRT.js would take hold of a GPU that nothing here uses, and warns where there is none.
  Object.defineProperty(navigator, "gpu", { value: undefined });
  const warn = console.warn;
  console.warn = () => undefined;
  const { liteRtWasm } = await loadLiteRt(script);
  console.warn = warn;
  const notes = threads === null ? ["LiteRT.js computes with one thread unless it is told another number"] : [];
  return {
    name: "LiteRT.js",
    version: LITERT_VERSION,
    notes,
    heapBytes: () => liteRtWasm.HEAPU8.buffer.byteLength,
    open: (model) => open(model, threads ?? 1),
  };
});

async function open(bytes: Uint8Array, numThreads: number): Promise<Session> {
  const model = await atTheBoundary(() => loadAndCompile(bytes, { accelerator: "wasm", cpuOptions: { numThreads } }));
  const inputs = model
    .getInputDetails()
    .map(({ name, dtype, shape }): Spec => ({
      name,
      dtype,
      shape: [...shape].map((n, i) => (n < 0 ? `${name}_axis${i}` : n)),
    }));
  return {
    inputs,
    run: async (sample: Sample): Promise<Sample> => {
      const given = Object.fromEntries(
        Object.entries(sample).map(([name, { data, shape }]) => [name, new LiteRtTensor(data as Float32Array, shape)]),
      );
      const found = await model.run(given);
      const outputs = Object.fromEntries(
        Object.entries(found).map(([name, t]) => [
          name,
          { dtype: t.type.dtype, shape: [...t.type.layout.dimensions], data: t.toTypedArray() },
        ]),
      );
      for (const tensor of [...Object.values(given), ...Object.values(found)]) tensor.delete();
      return outputs;
    },
    close: async () => model.delete(),
  };
}

/** A model, refused where LiteRT.js has no tensors in JavaScript of its inputs' or outputs' type. */
async function atTheBoundary<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    const type = /Element type (\w+) is not supported/.exec(String(error))?.[1];
    if (!type) throw complaint && error instanceof Error ? new Error(`${error.message} (${complaint})`) : error;
    throw new Refused(
      `LiteRT.js takes and gives float32, int32 and uint8 only, and this model's inputs or outputs are ${type}; ` +
        "export it with float inputs and outputs, or measure it on another device",
    );
  }
}
