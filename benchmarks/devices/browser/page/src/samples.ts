// Tensors: out of the server's packs, made to fit a model's inputs, into the base64 of the event `outputs`.

import { generator } from "./rules";
import { Refused, type Encoded, type Numbers, type Pack, type Sample, type Spec, type Tensor } from "./contract";

const RANDOM_LENGTH = 16;

type Maker = { new (buffer: ArrayBuffer, offset: number, length: number): Numbers; readonly BYTES_PER_ELEMENT: number };

const MAKERS: Record<string, Maker> = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
};

const count = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

function maker(dtype: string): Maker {
  const found = MAKERS[dtype];
  if (!found) throw new Refused(`values of type ${dtype} cannot be given in a browser`);
  return found;
}

/** The samples of a pack, one for each `row`. */
export function unpacked(pack: Pack, bytes: ArrayBuffer): Sample[] {
  const rows: Sample[] = [];
  for (const { row, name, dtype, shape, offset } of pack.arrays) {
    (rows[row] ??= {})[name] = { dtype, shape, data: new (maker(dtype))(bytes, offset, count(shape)) };
  }
  return rows;
}

/** The inputs that a model takes, each with its shape and type; others are ignored. */
export function feeds(sample: Sample, specs: readonly Spec[]): Sample {
  const missing = specs.filter((spec) => !(spec.name in sample));
  if (missing.length) throw new Refused(`no value for input ${missing[0]!.name}`);
  return Object.fromEntries(specs.map((spec) => [spec.name, fit(sample[spec.name]!, spec)]));
}

/** A tensor as `spec` wants it: of the same shape, integers narrowed only where nothing is lost. */
export function fit(tensor: Tensor, spec: Spec): Tensor {
  const { shape, dtype, data } = tensor;
  const fits =
    shape.length === spec.shape.length && spec.shape.every((n, i) => typeof n === "string" || n === shape[i]);
  if (!fits) throw new Refused(`input ${spec.name} has shape [${shape}], the model takes [${spec.shape}]`);
  if (dtype === spec.dtype) return tensor;
  const isInteger = (name: string): boolean => /^u?int\d+$/.test(name);
  if (!isInteger(dtype) || !isInteger(spec.dtype)) {
    throw new Refused(`input ${spec.name} is ${dtype}, the model takes ${spec.dtype}`);
  }
  const made = new (maker(spec.dtype))(
    new ArrayBuffer(data.length * maker(spec.dtype).BYTES_PER_ELEMENT),
    0,
    data.length,
  );
  const isBig = made instanceof BigInt64Array || made instanceof BigUint64Array;
  for (let i = 0; i < data.length; i++) {
    made[i] = isBig ? BigInt(data[i]!) : Number(data[i]!);
    if (BigInt(made[i]!) !== BigInt(data[i]!))
      throw new Refused(`a value of input ${spec.name} does not fit ${spec.dtype}`);
  }
  return { dtype: spec.dtype, shape, data: made };
}

/** Normal values for floats, ones for integers, which are indices and masks; free axes get 16, the first 1. */
export function randomInputs(specs: readonly Spec[], seed: number): Sample {
  const random = generator(seed);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const sample: Sample = {};
  for (const { name, dtype, shape: wanted } of specs) {
    const shape = wanted.map((n, axis) => (typeof n === "number" ? n : axis ? RANDOM_LENGTH : 1));
    const length = count(shape);
    if (dtype === "float16") throw new Refused(`input ${name} is float16, of which there are no random values here`);
    const data = new (maker(dtype))(new ArrayBuffer(length * maker(dtype).BYTES_PER_ELEMENT), 0, length);
    const isBig = data instanceof BigInt64Array || data instanceof BigUint64Array;
    for (let i = 0; i < length; i++) data[i] = dtype.startsWith("float") ? normal() : isBig ? 1n : 1;
    sample[name] = { dtype, shape, data };
  }
  return sample;
}

/** Inputs for `batch` samples at once: the first one, again and again; as they are where `batch` is null. */
export function batched(sample: Sample, specs: readonly Spec[], batch: number | null): Sample {
  if (batch === null) return sample;
  for (const { name, shape } of specs) {
    if (!shape.length || (typeof shape[0] === "number" && shape[0] !== batch)) {
      throw new Refused(
        `input ${name} takes [${shape}], not ${batch} samples at once; export it with --dynamic ${name}:0`,
      );
    }
  }
  return Object.fromEntries(
    Object.entries(sample).map(([name, tensor]) => [name, rowsOf(tensor, Array(batch).fill(0))]),
  );
}

/** These rows of a tensor, as a tensor. */
export function rowsOf({ dtype, shape, data }: Tensor, rows: readonly number[]): Tensor {
  const length = count(shape.slice(1));
  const make = maker(dtype);
  const found = new make(new ArrayBuffer(rows.length * length * make.BYTES_PER_ELEMENT), 0, rows.length * length);
  rows.forEach((row, i) => found.set(data.subarray(row * length, (row + 1) * length) as never, i * length));
  return { dtype, shape: [rows.length, ...shape.slice(1)], data: found };
}

/** How many samples a model takes at once: its fixed first axis, or 1 where that is free. */
export function batchOf(specs: readonly Spec[]): number {
  const firsts = new Set(specs.map(({ shape }) => (typeof shape[0] === "number" ? shape[0] : shape.length ? 1 : NaN)));
  const [first] = firsts;
  if (firsts.size !== 1 || first === undefined || Number.isNaN(first)) {
    throw new Refused(
      `its inputs have no common batch axis (${specs.map((s) => `${s.name} [${s.shape}]`).join(", ")})`,
    );
  }
  return first;
}

/** The inputs under the names that a model takes: its own, or, where both have just one, that one. */
export function namedFor(sample: Sample, specs: readonly Spec[]): Sample {
  const given = Object.keys(sample);
  if (specs.every(({ name }) => name in sample)) return sample;
  if (given.length === 1 && specs.length === 1) return { [specs[0]!.name]: sample[given[0]!]! };
  throw new Refused(
    `the task has the inputs ${given.join(", ")}, the model takes ${specs.map((s) => s.name).join(", ")}`,
  );
}

/** Tensors as the event `outputs` carries them. */
export function encoded(outputs: Sample): Record<string, Encoded> {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { dtype, shape, data }]) => [
      name,
      { dtype, shape: [...shape], data: base64(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) },
    ]),
  );
}

function base64(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let i = 0; i < bytes.length; i += 0x8000) parts.push(String.fromCharCode(...bytes.subarray(i, i + 0x8000)));
  return btoa(parts.join(""));
}
