// Do the job: a worker for each case, blocks dealt in turns, one worker running at a time; tell events.

import { facts } from "./device";
import { hasWorker, Lane, Lost } from "./lane";
import type { Link } from "./link";
import { type Asked, type Event, type Job, type JobArtifact, type Said, type Sample } from "./contract";
import { median, quantile, takeTurns, timesABlock, type Dealt } from "./rules";

export interface Files {
  model: (artifact: JobArtifact) => Uint8Array;
  golden: (artifact: JobArtifact) => Sample[] | null;
  data: (artifact: JobArtifact) => Sample | null;
  runtime: (format: string, threads: number | null) => { script: string; wasm: Uint8Array };
}

/** What is shown of a case; times in ms. */
export interface Shown {
  state: "waiting" | "loading" | "warming up" | "measuring" | "evaluating" | "measured" | "failed";
  p50_ms?: number;
  p90_ms?: number;
  detail?: string;
}

export interface Watcher {
  onCase: (index: number, shown: Partial<Shown>) => void;
  onProgress: (done: number, total: number) => void;
}

const GUESSED_MEMORY_BYTES = 2 * 2 ** 30;
const MEMORY_OF_A_WORKER_BYTES = 80 * 2 ** 20;
const MEMORY_PER_ARTIFACT_BYTE = 5;
const ALONE = "too little memory to hold all artifacts at once: measured one after the other";
const NO_THREADS =
  "a browser computes with several threads only on a page from this machine itself (http://localhost) or over https; " +
  "give --threads 1";
const NOT_TOLD = "a browser does not tell its energy";

export class Bench {
  private lanes = new Map<number, Lane>();
  private failed = new Set<number>();
  private times = new Map<number, { medians: number[]; all: number[] }>();
  private inferences = new Map<number, number>();
  private notes: string[] = [];
  private shownAt = 0;
  private process = 0;
  private startedAt = performance.now();

  constructor(
    private job: Job,
    private files: Files,
    private link: Link,
    private watcher: Watcher,
  ) {}

  /** All of it; a case that fails is told and left out of what follows. */
  async run(): Promise<void> {
    this.link.tell({ event: "device", facts: await facts() });
    await this.link.flush();
    const cases = this.job.cases.map((_, index) => index);
    try {
      for (this.process = 0; this.process < this.job.processes; this.process++) {
        for (const group of this.groups(cases.filter((index) => !this.failed.has(index)))) await this.measure(group);
      }
    } finally {
      for (const lane of this.lanes.values()) lane.end();
    }
    this.link.tell({ event: "end" });
    await this.link.flush();
  }

  /** The cases that are held in memory at once: all of them, if there is room and none is to run alone. */
  private groups(cases: number[]): number[][] {
    const room = ((navigator as { deviceMemory?: number }).deviceMemory ?? 0) * 2 ** 30 || GUESSED_MEMORY_BYTES;
    const needed = cases
      .map((index) => MEMORY_OF_A_WORKER_BYTES + MEMORY_PER_ARTIFACT_BYTE * this.artifact(index).size_bytes)
      .reduce((sum, bytes) => sum + bytes, 0);
    this.notes = needed > room / 2 && cases.length > 1 ? [ALONE] : [];
    if (this.job.affinity) this.notes.push("a browser's threads cannot be bound to cores: affinity was not set");
    const isAlone = this.notes.includes(ALONE) || this.job.sustained_s !== null;
    return isAlone ? cases.map((index) => [index]) : cases.length ? [cases] : [];
  }

  private async measure(cases: number[]): Promise<void> {
    for (const index of cases) await this.guarded(index, () => this.start(index));
    const blockTimes = new Map<number, number>();
    const seconds = this.job.seconds / this.job.processes;
    for (const index of this.living(cases)) {
      await this.guarded(index, async () => blockTimes.set(index, await this.prepare(index, seconds)));
    }
    const deal = (index: number): Promise<Dealt | null> =>
      this.guarded(index, () => this.block(index, blockTimes.get(index)!));
    if (this.job.sustained_s !== null) {
      for (const index of this.living(cases)) await this.guarded(index, () => this.sustain(index));
    } else {
      const { seed, precision } = this.job;
      const onRound = (done: number, total: number): Promise<void> => this.progress(done, total);
      await takeTurns(deal, this.living(cases), { seconds, seed: seed + this.process, precision, onRound });
    }
    await this.finish(this.living(cases));
  }

  private living(cases: number[]): number[] {
    return cases.filter((index) => !this.failed.has(index));
  }

  /** What a step gives; null where the case is lost. */
  private async guarded<T>(index: number, step: () => Promise<T>): Promise<T | null> {
    try {
      return await step();
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      this.failed.add(index);
      this.lanes.delete(index);
      return null;
    } finally {
      await this.link.settle();
    }
  }

  private refuse(index: number, detail: string): never {
    this.hear(index, { event: "failed", cause: "refused", detail });
    throw new Lost(detail);
  }

  private async start(index: number): Promise<void> {
    const { threads } = this.job.cases[index]!;
    const artifact = this.artifact(index);
    if (!hasWorker(artifact.format)) this.refuse(index, `a browser has no runtime for ${artifact.format} files`);
    if ((threads ?? 1) > 1 && !crossOriginIsolated) this.refuse(index, NO_THREADS);
    this.watcher.onCase(index, { state: "loading" });
    const asked: Asked = {
      format: artifact.format,
      threads: crossOriginIsolated ? threads : 1,
      model: this.files.model(artifact),
      golden: this.files.golden(artifact),
      data: this.files.data(artifact),
      batch: this.job.batch,
      seed: this.job.seed,
      notes: this.notes,
      ...this.files.runtime(artifact.format, threads),
    };
    const lane = new Lane(index, asked, this.job.timeout_s, (said) => this.hear(index, said));
    this.lanes.set(index, lane);
    await lane.do("import");
  }

  /** Load, tell golden outputs, warm up: how many times a block has. */
  private async prepare(index: number, seconds: number): Promise<number> {
    const lane = this.lanes.get(index)!;
    await lane.do("load");
    if (this.process === 0 && this.files.golden(this.artifact(index))) await lane.do("golden");
    this.watcher.onCase(index, { state: "warming up" });
    const [warm] = await lane.do("warm", { limit_s: this.job.warmup_s });
    if (warm?.event !== "warm") throw new Error("a worker did not tell its warm-up");
    this.watcher.onCase(index, { state: "measuring" });
    return timesABlock(warm.warmup_ns, seconds, warm.group);
  }

  private async block(index: number, times: number): Promise<Dealt> {
    await this.link.settle();
    const atNs = this.now();
    const [block] = await this.lanes.get(index)!.do("block", { times }, (said) => this.hear(index, said, atNs));
    if (block?.event !== "block") throw new Error("a worker did not tell its block");
    const found = block.times_ns;
    const perTime = block.runs / found.length;
    return { times_ns: found, spent_ns: found.reduce((sum, time) => sum + time, 0) * perTime };
  }

  private async sustain(index: number): Promise<void> {
    const started = performance.now();
    await this.lanes.get(index)!.do("sustain", { seconds: this.job.sustained_s! }, (said) => {
      this.hear(index, said, said.event === "block" ? Math.max(0, this.now() - said.took_ns!) : 0);
      this.watcher.onProgress((performance.now() - started) / 1000, this.job.sustained_s!);
      this.show(index);
      void this.link.settle().catch(() => undefined); // a link that is lost is found when the next thing is told
    });
  }

  /** After the runs: memory, and once for all processes accuracy and energy. */
  private async finish(cases: number[]): Promise<void> {
    for (const index of cases) {
      await this.guarded(index, () => this.lanes.get(index)!.do("memory"));
      if (this.process === 0 && !this.failed.has(index) && this.files.data(this.artifact(index))) {
        await this.guarded(index, () => this.evaluate(index));
      }
      this.lanes.get(index)?.end();
      this.lanes.delete(index);
      if (this.process === this.job.processes - 1 && !this.failed.has(index)) {
        const inferences = this.inferences.get(index) ?? 0;
        this.link.tell({ event: "energy", case: index, joules: null, inferences, source: "", note: NOT_TOLD });
        this.show(index);
        this.watcher.onCase(index, { state: "measured" });
      }
      await this.link.settle();
    }
  }

  private async evaluate(index: number): Promise<void> {
    this.watcher.onCase(index, { state: "evaluating" });
    await this.lanes.get(index)!.do("data", { seconds: this.job.data_s }, (said) => {
      this.hear(index, said);
      void this.link.settle().catch(() => undefined);
    });
  }

  /** A worker's event as it is told; `atNs` is when a block began. */
  private event(index: number, said: Exclude<Said, { event: "ready" }>, atNs: number): Event {
    if (said.event === "block") {
      const { took_ns: _, ...block } = said;
      return { ...block, case: index, process: this.process, at_ns: atNs };
    }
    if (said.event === "warm") {
      const { group: _, ...warm } = said;
      return { ...warm, case: index };
    }
    return { ...said, case: index };
  }

  /** Pass a worker's event on, and show what it says. */
  private hear(index: number, said: Said, atNs = 0): void {
    if (said.event === "ready") return;
    const event = this.event(index, said, atNs);
    this.link.tell(event);
    if (event.event === "failed") {
      this.watcher.onCase(index, { state: "failed", detail: `${event.cause}: ${event.detail}` });
    } else if (event.event === "block") {
      this.inferences.set(index, (this.inferences.get(index) ?? 0) + event.runs);
      const seen = this.times.get(index) ?? { medians: [], all: [] };
      this.times.set(index, seen);
      seen.medians.push(median(event.times_ns));
      seen.all.push(...event.times_ns);
    }
  }

  private show(index: number): void {
    const seen = this.times.get(index);
    if (seen) this.watcher.onCase(index, { p50_ms: median(seen.medians) / 1e6, p90_ms: quantile(seen.all, 0.9) / 1e6 });
  }

  private async progress(done: number, total: number): Promise<void> {
    this.link.tell({ event: "progress", done: Math.min(done, total), total });
    this.watcher.onProgress(done, total);
    if (performance.now() - this.shownAt > 500 || done >= total) {
      this.shownAt = performance.now();
      this.job.cases.forEach((_, index) => this.show(index));
    }
    await this.link.settle();
  }

  private now(): number {
    return Math.round((performance.now() - this.startedAt) * 1e6);
  }

  private artifact(index: number): JobArtifact {
    return this.job.artifacts[this.job.cases[index]!.artifact]!;
  }
}
