// What the server gives and takes: benchmarks/job.py, results/events.py and browser/server.py, in TypeScript.

export interface JobArtifact {
  name: string;
  format: string;
  file: string;
  size_bytes: number;
  sha256: string;
  golden: string | null;
  data: string | null;
}

export interface Job {
  id: string;
  artifacts: JobArtifact[];
  cases: { artifact: number; threads: number | null }[];
  seconds: number;
  warmup_s: number;
  precision: number | null;
  batch: number | null;
  affinity: number[] | null;
  sustained_s: number | null;
  data_s: number;
  timeout_s: number;
  processes: number;
  seed: number;
}

/** Arrays in one file, little-endian, each from its own byte `offset` on; `row` is a golden sample's number. */
export interface Pack {
  url: string;
  arrays: { row: number; name: string; dtype: string; shape: number[]; offset: number }[];
}

export interface Served {
  job: Job;
  files: Record<string, { url: string; size_bytes: number }>;
  packs: Record<string, Pack>;
  heartbeat_s: number;
}

export interface Facts {
  model: string;
  family: string;
  cpu: string;
  architecture: string;
  cores: number | null;
  memory_bytes: number | null;
  os: string;
  executed: string;
  emulator: string;
  software: Record<string, string>;
}

/** `data` is base64 of the little-endian bytes. */
export interface Encoded {
  dtype: string;
  shape: number[];
  data: string;
}

/** The fields of each event that the page tells. */
export interface Events {
  device: { facts: Facts };
  loaded: {
    case: number;
    runtime: string;
    version: string;
    inputs: "golden" | "random";
    import_ns: number;
    load_cold_ns: number;
    load_warm_ns: number;
    first_inference_ns: number;
    page_cache_dropped: boolean;
    notes: string[];
  };
  outputs: { case: number; of: "golden" | "data"; row: number; rows: number; outputs: Record<string, Encoded> };
  warm: { case: number; warmup_ns: number[]; stable: boolean };
  block: { case: number; process: number; at_ns: number; runs: number; times_ns: number[] };
  memory: { case: number; baseline_bytes: number; steady_bytes: number; peak_bytes: number };
  energy: { case: number; joules: null; inferences: number; source: string; note: string };
  failed: { case: number; cause: string; detail: string };
  progress: { done: number; total: number };
  end: Record<never, never>;
}

type Named<Name extends keyof Events, Left = never> = {
  [One in Name]: { event: One } & Omit<Events[One], Extract<Left, string>>;
}[Name];

export type Event = Named<keyof Events>;

/** What a worker says: events without what only the page knows, and what only the page has a use for. */
export type Said =
  | Named<"loaded" | "outputs" | "memory" | "failed", "case">
  | (Named<"warm", "case"> & { group: number })
  | (Named<"block", "case" | "process" | "at_ns"> & { took_ns?: number })
  | { event: "ready" };

/** How the golden outputs of a case compare, as the computer found. */
export interface Parity {
  case: number;
  verdict: "pass" | "fail";
  max_rel_error: number | null;
  reason: string;
}

/** What a worker is given to work on. */
export interface Asked {
  format: string;
  threads: number | null;
  model: Uint8Array;
  /** The runtime's script, and its wasm file. */
  script: string;
  wasm: Uint8Array;
  golden: Sample[] | null;
  data: Sample | null;
  batch: number | null;
  seed: number;
  notes: string[];
}

export type Numbers =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** `dtype` is numpy's name; float16 lies in a Uint16Array, bool in a Uint8Array. */
export interface Tensor {
  dtype: string;
  shape: number[];
  data: Numbers;
}

export type Sample = Record<string, Tensor>;

/** An input of a model: an axis that is free is a string. */
export interface Spec {
  name: string;
  dtype: string;
  shape: (number | string)[];
}

/** A model that will not be run, with the reason; any other error is a crash. */
export class Refused extends Error {}

/** One line that a terminal can show. */
export function line(value: unknown, most = 500): string {
  const text = value instanceof Error ? value.message : String(value);
  return text
    .replace(/[^\p{L}\p{N}\p{P}\p{S}\p{Zs}\s]/gu, "?")
    .replace(/\s+/gu, " ")
    .trim()
    .slice(0, most);
}
