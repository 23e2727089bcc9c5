// ONNX files in onnxruntime-web, on the CPU.

import { InferenceSession, Tensor as OrtTensor, env } from "onnxruntime-web/wasm";
import { Refused, type Asked, type Numbers, type Sample, type Spec } from "./contract";
import { serve, type Runtime, type Session } from "./worker";

declare const ONNXRUNTIME_WEB_VERSION: string;

/** The memories that the library makes for its threads. */
const heaps: WebAssembly.Memory[] = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor: WebAssembly.MemoryDescriptor) {
    super(descriptor);
    heaps.push(this);
  }
};
const heapBytes = (): number => heaps.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);

serve(async (asked: Asked): Promise<Runtime> => {
  env.logLevel = "fatal";
  env.wasm.numThreads = asked.threads ?? 0;
  env.wasm.wasmPaths = { mjs: asked.script };
  env.wasm.wasmBinary = asked.wasm;
  await loadLibrary();
  return { name: "onnxruntime-web", version: ONNXRUNTIME_WEB_VERSION, notes: [], heapBytes, open };
});

/** onnxruntime-web loads its library with the first session: let it be one of no operation. */
async function loadLibrary(): Promise<void> {
  await (await InferenceSession.create(IDENTITY.slice())).release();
}

async function open(model: Uint8Array): Promise<Session> {
  const session = await InferenceSession.create(model, { executionProviders: ["wasm"] });
  const inputs = session.inputMetadata.map(spec);
  return {
    inputs,
    run: async (sample: Sample): Promise<Sample> => {
      const given = Object.fromEntries(
        Object.entries(sample).map(([name, { dtype, data, shape }]) => [
          name,
          new OrtTensor(dtype as never, data as never, shape),
        ]),
      );
      const found = await session.run(given);
      return Object.fromEntries(
        Object.entries(found).map(([name, t]) => [
          name,
          { dtype: t.type, shape: [...t.dims], data: t.data as Numbers },
        ]),
      );
    },
    close: () => session.release(),
  };
}

function spec(value: InferenceSession.ValueMetadata): Spec {
  if (!value.isTensor) throw new Refused(`input ${value.name} is no tensor`);
  return { name: value.name, dtype: value.type, shape: [...value.shape] };
}

/** The ONNX model `y = Identity(x)` of one float: ir_version 8, opset 13. */
const IDENTITY = Uint8Array.from([
  8, 8, 58, 47, 10, 16, 10, 1, 120, 18, 1, 121, 34, 8, 73, 100, 101, 110, 116, 105, 116, 121, 18, 1, 103, 90, 11, 10, 1,
  120, 18, 6, 10, 4, 8, 1, 18, 0, 98, 11, 10, 1, 121, 18, 6, 10, 4, 8, 1, 18, 0, 66, 4, 10, 0, 16, 13,
]);
