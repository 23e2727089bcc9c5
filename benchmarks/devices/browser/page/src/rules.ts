// The measuring rules of benchmarks/agent/loop.py, with the clock's step: pure, and compared with them in a test.

export const LEAST_ROUNDS = 25;
export const MOST_TIMES_A_BLOCK = 1000;
const MOST_TIMES_LONGER = 10;
export const WINDOW_NS = 50_000_000;
const STABLE_WINDOWS = 3;
const STABLE_RATIO = 1.05;
export const SECOND_NS = 1_000_000_000;
const Z95 = 1.96;
/** A time is a hundred steps of the clock at least, so that the step is 1% of it at most. */
export const STEPS_A_TIME = 100;

export function quantile(values: readonly number[], share: number): number {
  const ordered = [...values].sort((a, b) => a - b);
  const place = share * (ordered.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, ordered.length - 1);
  return ordered[below]! + (ordered[above]! - ordered[below]!) * (place - below);
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Whether the last windows' medians lie within 5%. */
export function isStable(medians: readonly number[]): boolean {
  const latest = medians.slice(-STABLE_WINDOWS);
  return latest.length === STABLE_WINDOWS && Math.max(...latest) <= STABLE_RATIO * Math.min(...latest);
}

/** How many inferences in a row are timed as one. */
export function runsATime(runNs: number, stepNs: number): number {
  return Math.max(1, Math.ceil((STEPS_A_TIME * stepNs) / Math.max(runNs, 1)));
}

/** So many times, of `group` inferences each, that 25 blocks last `seconds`, by the later half of the warm-up. */
export function timesABlock(warmupNs: readonly number[], seconds: number, group: number): number {
  const runNs = median(warmupNs.slice(Math.floor(warmupNs.length / 2)));
  const times = Math.round((seconds * SECOND_NS) / LEAST_ROUNDS / Math.max(runNs, 1) / group);
  return Math.min(MOST_TIMES_A_BLOCK, Math.max(1, times));
}

/** Half of the 95% interval of the median over the median, by order statistics (Conover, 1999, 3.2). */
export function halfWidth(values: readonly number[]): number {
  const ordered = [...values].sort((a, b) => a - b);
  const n = ordered.length;
  const reach = (Z95 * Math.sqrt(n)) / 2;
  const low = ordered[Math.max(0, Math.trunc(n / 2 - reach))]!;
  const high = ordered[Math.min(n - 1, Math.trunc(n / 2 + reach))]!;
  return (high - low) / 2 / Math.max(median(ordered), 1e-9);
}

/** Numbers in [0, 1) that a seed repeats (mulberry32, public domain). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function shuffled<T>(values: readonly T[], random: () => number): T[] {
  const order = [...values];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

export interface Turns {
  seconds: number;
  seed: number;
  precision: number | null;
  onRound: (done: number, total: number) => Promise<void> | void;
}

/** What a block took: the times that were kept, and how long it lasted. */
export interface Dealt {
  times_ns: number[];
  spent_ns: number;
}

/**
 * Let every case compute a block a round, in an order shuffled anew, until 25 rounds and the seconds for each case that
 * is left are reached; with `precision`, until every median is that sure or ten times the seconds are spent.
 * `deal` gives null once a case is lost.
 */
export async function takeTurns(
  deal: (index: number) => Promise<Dealt | null>,
  cases: readonly number[],
  { seconds, seed, precision, onRound }: Turns,
): Promise<void> {
  const random = generator(seed);
  const medians = new Map<number, number[]>(cases.map((index) => [index, []]));
  let rounds = 0;
  let spentNs = 0;
  while (medians.size) {
    for (const index of shuffled(
      [...medians.keys()].sort((a, b) => a - b),
      random,
    )) {
      const block = await deal(index);
      if (block === null) {
        medians.delete(index);
        continue;
      }
      medians.get(index)!.push(median(block.times_ns));
      spentNs += block.spent_ns;
    }
    rounds += 1;
    const wantedNs = seconds * SECOND_NS * medians.size;
    await onRound(rounds, Math.max(LEAST_ROUNDS, Math.ceil((rounds * wantedNs) / Math.max(spentNs, 1)), rounds));
    if (rounds < LEAST_ROUNDS || spentNs < wantedNs) continue;
    const precise = precision === null || [...medians.values()].every((found) => halfWidth(found) <= precision);
    if (precise || spentNs >= MOST_TIMES_LONGER * wantedNs) return;
  }
}
