// One artifact in a worker of its own: load it, compute golden values, warm up, then blocks as they are asked for.
//
// The first message says what to work on, each later one what to do; the answers are events, and `ready` after each.
// An inference is timed from inputs in JavaScript's memory to outputs there, as an app has it.

import { Refused, line, type Asked, type Said, type Sample, type Spec } from "./contract";
import { isStable, median, runsATime, MOST_TIMES_A_BLOCK, SECOND_NS, STEPS_A_TIME, WINDOW_NS } from "./rules";
import { batchOf, batched, encoded, feeds, namedFor, randomInputs, rowsOf } from "./samples";

export interface Session {
  inputs: Spec[];
  run(inputs: Sample): Promise<Sample>;
  close(): Promise<void>;
}

export interface Runtime {
  name: string;
  version: string;
  notes: string[];
  /** Bytes of its WebAssembly memory. */
  heapBytes(): number;
  open(model: Uint8Array): Promise<Session>;
}

const HEAP_NOTE =
  "memory is that of the runtime's WebAssembly heap, which holds the model and never shrinks; " +
  "a browser does not tell the rest";

type OpenRuntime = (asked: Asked) => Promise<Runtime>;

const OUT_OF_MEMORY =
  /out of memory|bad_alloc|allocation failed|could not allocate|cannot enlarge memory|memory\.grow/i;
const CALIBRATION_TRIES = 3;
const STEPS_SEEN = 25;
const AT_LEAST_SAMPLES = 2;

const tell = (event: Said): void => self.postMessage(event);
const ns = (milliseconds: number): number => Math.round(milliseconds * 1e6);

/** Serve messages, one after another; an error is this artifact's end. */
export function serve(openRuntime: OpenRuntime): void {
  let worker: ModelWorker | undefined;
  let last = Promise.resolve();
  self.onmessage = ({ data }: MessageEvent) => {
    last = last.then(async () => {
      try {
        worker ??= new ModelWorker(data.asked, openRuntime);
        await worker.do(data);
        tell({ event: "ready" });
      } catch (error) {
        tell({ event: "failed", ...failure(error, worker?.isLoading ?? true) });
      }
    });
  };
}

function failure(error: unknown, isLoading: boolean): { cause: string; detail: string } {
  const detail =
    error instanceof Error
      ? line(`${error.name === "Error" || error instanceof Refused ? "" : `${error.name}: `}${error.message}`)
      : line(`the runtime threw ${error}`);
  if (error instanceof Refused) return { cause: "refused", detail };
  if (OUT_OF_MEMORY.test(detail)) return { cause: "out-of-memory", detail };
  const isTrap = error instanceof WebAssembly.RuntimeError || !(error instanceof Error) || /\babort/i.test(detail);
  return { cause: isLoading && !isTrap ? "refused" : "crashed", detail };
}

class ModelWorker {
  isLoading = true;
  private runtime!: Runtime;
  private session!: Session;
  private inputs!: Sample;
  private importNs = 0;
  private baselineBytes = 0;
  private stepNs = 0;
  private group = 1;

  constructor(
    private asked: Asked,
    private openRuntime: OpenRuntime,
  ) {}

  async do(message: { do: string; limit_s?: number; times?: number; seconds?: number; keep?: number }): Promise<void> {
    if (message.do === "import") await this.import();
    else if (message.do === "load") await this.load();
    else if (message.do === "golden") await this.golden();
    else if (message.do === "warm") await this.warm(message.limit_s!);
    else if (message.do === "block") await this.block(message.times!);
    else if (message.do === "sustain") await this.sustain(message.seconds!);
    else if (message.do === "memory") this.memory();
    else if (message.do === "data") await this.data(message.seconds!);
  }

  private async import(): Promise<void> {
    const started = performance.now();
    this.runtime = await this.openRuntime(this.asked);
    this.importNs = ns(performance.now() - started);
    this.baselineBytes = this.runtime.heapBytes();
  }

  /** Load twice: first, and once more when the runtime has seen the model. */
  private async load(): Promise<void> {
    const first = await this.opened();
    this.isLoading = false;
    const { golden, seed, batch } = this.asked;
    const sample = golden?.[0] ?? randomInputs(first.session.inputs, seed);
    this.inputs = feeds(batched(sample, first.session.inputs, batch), first.session.inputs);
    const started = performance.now();
    await first.session.run(this.inputs);
    const firstNs = ns(performance.now() - started);
    await first.session.close();
    const second = await this.opened();
    this.session = second.session;
    this.stepNs = clockStepNs();
    this.group = runsATime(await this.calibrated(), this.stepNs);
    tell({
      event: "loaded",
      runtime: this.runtime.name,
      version: this.runtime.version,
      inputs: golden ? "golden" : "random",
      import_ns: this.importNs,
      load_cold_ns: first.took,
      load_warm_ns: second.took,
      first_inference_ns: firstNs,
      page_cache_dropped: false,
      notes: [...this.asked.notes, ...this.runtime.notes, ...this.clockNotes(), HEAP_NOTE],
    });
  }

  private async opened(): Promise<{ session: Session; took: number }> {
    const started = performance.now();
    const session = await this.runtime.open(this.asked.model);
    return { session, took: ns(performance.now() - started) };
  }

  /**
   * About how long an inference takes: of so many in a row that they last a hundred steps of the clock. The least of
   * three tries counts, since a stall of the machine would pass for a slow model.
   */
  private async calibrated(): Promise<number> {
    for (let runs = 1; ; runs *= 2) {
      const tries: number[] = [];
      for (let i = 0; i < CALIBRATION_TRIES; i++) tries.push(await this.spent(runs));
      if (Math.min(...tries) >= STEPS_A_TIME * this.stepNs) return Math.min(...tries) / runs;
    }
  }

  /** How long so many inferences in a row take. */
  private async spent(runs: number): Promise<number> {
    const started = performance.now();
    for (let i = 0; i < runs; i++) await this.session.run(this.inputs);
    return (performance.now() - started) * 1e6;
  }

  private clockNotes(): string[] {
    const step = `the browser's clock has steps of ${Number((this.stepNs / 1000).toPrecision(2))} us`;
    if (this.group === 1) return [step];
    return [
      `${step}: a time is the mean of so many inferences in a row that they last 100 steps, so p90, p99 and min are ` +
        "of such means",
    ];
  }

  private async golden(): Promise<void> {
    for (const [row, sample] of this.asked.golden!.entries()) {
      const outputs = await this.session.run(feeds(sample, this.session.inputs));
      tell({ event: "outputs", of: "golden", row, rows: 1, outputs: encoded(outputs) });
    }
  }

  private async warm(limitS: number): Promise<void> {
    const times: number[] = [];
    const medians: number[] = [];
    const means: number[] = [];
    const started = performance.now();
    while (ns(performance.now() - started) < limitS * SECOND_NS && !isStable(medians)) {
      const window: number[] = [];
      let spent = 0;
      while (spent < WINDOW_NS && window.length < MOST_TIMES_A_BLOCK) {
        const time = await this.time();
        window.push(time);
        spent += time * this.group;
      }
      times.push(...window);
      medians.push(median(window));
      means.push(spent / window.length / this.group);
    }
    if (means.length) this.group = runsATime(Math.min(...means.slice(-3)), this.stepNs);
    tell({ event: "warm", warmup_ns: times, stable: isStable(medians), group: this.group });
  }

  /** Before a block of several inferences, one is not counted: it finds the caches as another artifact left them. */
  private async block(times: number): Promise<void> {
    if (times * this.group > 1) await this.session.run(this.inputs);
    const found: number[] = [];
    for (let i = 0; i < times; i++) found.push(await this.time());
    tell({ event: "block", runs: times * this.group, times_ns: found });
  }

  private async sustain(seconds: number): Promise<void> {
    const begun = performance.now();
    while (performance.now() - begun < seconds * 1000) {
      const started = performance.now();
      const times: number[] = [];
      let runs = 0;
      while (performance.now() - started < 1000) {
        const time = await this.time();
        if (times.length < MOST_TIMES_A_BLOCK) times.push(time);
        runs += this.group;
      }
      tell({ event: "block", took_ns: ns(performance.now() - started), runs, times_ns: times });
    }
  }

  /** The mean time of the next `group` inferences. */
  private async time(): Promise<number> {
    return Math.max(1, Math.round((await this.spent(this.group)) / this.group));
  }

  private memory(): void {
    const bytes = this.runtime.heapBytes();
    tell({ event: "memory", baseline_bytes: this.baselineBytes, steady_bytes: bytes, peak_bytes: bytes });
  }

  /** The outputs of a task's samples, in the model's own batch, as many as the time allows. */
  private async data(seconds: number): Promise<void> {
    const specs = this.session.inputs;
    const samples = namedFor(this.asked.data!, specs);
    const batch = batchOf(specs);
    const total = samples[specs[0]!.name]!.shape[0]!;
    const started = performance.now();
    for (let row = 0; row < total; row += batch) {
      if (performance.now() - started > seconds * 1000 && row >= AT_LEAST_SAMPLES) return;
      const rows = Array.from({ length: batch }, (_, i) => Math.min(row + i, total - 1));
      const picked = Object.fromEntries(specs.map(({ name }) => [name, rowsOf(samples[name]!, rows)]));
      const outputs = await this.session.run(feeds(picked, specs));
      const real = rows.slice(0, total - row).map((_, i) => i);
      const kept = Object.entries(outputs).filter(([, tensor]) => tensor.shape[0] === batch);
      if (!kept.length) throw new Refused("no output has a row a sample; export the model with a batch axis");
      const told = Object.fromEntries(kept.map(([name, tensor]) => [name, rowsOf(tensor, real)]));
      tell({ event: "outputs", of: "data", row, rows: real.length, outputs: encoded(told) });
    }
  }
}

/** The step that the clock makes, as the median of some, in ns: browsers make it coarse, and jitter it. */
function clockStepNs(): number {
  const steps: number[] = [];
  for (let i = 0; i < STEPS_SEEN; i++) {
    const started = performance.now();
    let now = started;
    while (now === started) now = performance.now();
    steps.push(now - started);
  }
  return Math.max(1, ns(median(steps)));
}
