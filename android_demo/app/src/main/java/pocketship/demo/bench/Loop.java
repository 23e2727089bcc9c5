package pocketship.demo.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;

/** The measuring loop of benchmarks/agent/loop.py: warm up until stable, then blocks in turns. The clock is given. */
final class Loop {
    static final int LEAST_ROUNDS = 25;
    static final int MOST_RUNS_A_BLOCK = 1000;
    static final int MOST_TIMES_LONGER = 10;
    static final long WINDOW_NS = 50_000_000L;
    static final int STABLE_WINDOWS = 3;
    static final double STABLE_RATIO = 1.05;
    static final double SECOND_NS = 1e9;
    static final double Z95 = 1.96;

    /** Nanoseconds that never go back. */
    interface Clock {
        long now();
    }

    /** The times of a block of so many runs of a case, null once the case is lost. */
    interface Deal {
        long[] block(int which, int runs);
    }

    /** All runs of a warm-up, and whether it settled. */
    static final class WarmUp {
        final long[] timesNs;
        final boolean stable;

        WarmUp(List<Long> times, boolean stable) {
            timesNs = times.stream().mapToLong(Long::longValue).toArray();
            this.stable = stable;
        }
    }

    private Loop() {}

    static double median(long[] values) {
        long[] ordered = values.clone();
        Arrays.sort(ordered);
        int n = ordered.length;
        return (ordered[(n - 1) / 2] + ordered[n / 2]) / 2.0;
    }

    static long[] timedBlock(Runnable run, int count, Clock clock) {
        long[] times = new long[count];
        for (int i = 0; i < count; i++) {
            long started = clock.now();
            run.run();
            times[i] = clock.now() - started;
        }
        return times;
    }

    /** Run until the medians of three windows of 50 ms lie within 5%, or the limit is over. */
    static WarmUp warmUp(Runnable run, Clock clock, double limitS) {
        List<Long> times = new ArrayList<>();
        List<Double> medians = new ArrayList<>();
        long started = clock.now();
        do {
            List<Long> window = new ArrayList<>();
            long spent = 0;
            while (spent < WINDOW_NS && window.size() < MOST_RUNS_A_BLOCK) {
                long time = timedBlock(run, 1, clock)[0];
                window.add(time);
                spent += time;
            }
            times.addAll(window);
            medians.add(median(window.stream().mapToLong(Long::longValue).toArray()));
            if (medians.size() >= STABLE_WINDOWS) {
                List<Double> latest = medians.subList(medians.size() - STABLE_WINDOWS, medians.size());
                if (Collections.max(latest) <= STABLE_RATIO * Collections.min(latest)) {
                    return new WarmUp(times, true);
                }
            }
        } while (clock.now() - started < limitS * SECOND_NS);
        return new WarmUp(times, false);
    }

    /** So many that {@link #LEAST_ROUNDS} blocks last {@code seconds}, judged by the later half of the warm-up. */
    static int runsABlock(long[] warmupNs, double seconds) {
        double runNs = median(Arrays.copyOfRange(warmupNs, warmupNs.length / 2, warmupNs.length));
        double runs = Math.rint(seconds * SECOND_NS / LEAST_ROUNDS / Math.max(runNs, 1));
        return (int) Math.min(MOST_RUNS_A_BLOCK, Math.max(1, runs));
    }

    /**
     * Let every case compute a block a round, in an order shuffled anew, until {@link #LEAST_ROUNDS} and {@code seconds}
     * a case are reached, and the precision, or ten times the seconds are spent.
     */
    static void takeTurns(Deal deal, int[] blockRuns, double seconds, long seed, double precision) {
        Random random = new Random(seed);
        List<Integer> order = new ArrayList<>();
        List<List<Long>> medians = new ArrayList<>();
        for (int i = 0; i < blockRuns.length; i++) {
            medians.add(new ArrayList<>());
            if (blockRuns[i] > 0) {
                order.add(i);
            }
        }
        double spentNs = 0;
        for (int rounds = 1; !order.isEmpty(); rounds++) {
            Collections.shuffle(order, random);
            for (Integer which : new ArrayList<>(order)) {
                long[] times = deal.block(which, blockRuns[which]);
                if (times == null) {
                    order.remove(which);
                    continue;
                }
                medians.get(which).add((long) median(times));
                spentNs += Arrays.stream(times).sum();
            }
            double wantedNs = seconds * SECOND_NS * order.size();
            if (rounds < LEAST_ROUNDS || spentNs < wantedNs) {
                continue;
            }
            boolean precise = precision <= 0 || order.stream().allMatch(i -> halfWidth(medians.get(i)) <= precision);
            if (precise || spentNs >= MOST_TIMES_LONGER * wantedNs) {
                return;
            }
        }
    }

    /** Half of the 95% interval of the median over the median, by order statistics. */
    static double halfWidth(List<Long> values) {
        long[] ordered = values.stream().mapToLong(Long::longValue).sorted().toArray();
        int n = ordered.length;
        double reach = Z95 * Math.sqrt(n) / 2;
        long low = ordered[Math.max(0, (int) (n / 2.0 - reach))];
        long high = ordered[Math.min(n - 1, (int) (n / 2.0 + reach))];
        return (high - low) / 2.0 / Math.max(median(ordered), 1e-9);
    }
}
