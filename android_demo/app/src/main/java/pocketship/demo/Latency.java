package pocketship.demo;

import java.util.Arrays;
import java.util.Locale;

/** The latest inferences of this app, and their median and 90th percentile. */
final class Latency {
    /** So many are kept: an older one says little of the phone as it is now. */
    static final int KEPT = 200;

    private final long[] timesNs = new long[KEPT];
    private int count;

    /** Keep how long an inference took. */
    synchronized void add(long ns) {
        timesNs[count % KEPT] = ns;
        count++;
    }

    synchronized void clear() {
        count = 0;
    }

    /**
     * The value below which the share {@code q} of the times lies, interpolated between the two nearest, in ms; as
     * benchmarks/results/stats.py has it. NaN where there is none.
     */
    synchronized double quantileMs(double q) {
        int n = Math.min(count, KEPT);
        if (n == 0) {
            return Double.NaN;
        }
        long[] sorted = Arrays.copyOf(timesNs, n);
        Arrays.sort(sorted);
        double place = q * (n - 1);
        int low = (int) Math.floor(place);
        int high = Math.min(low + 1, n - 1);
        return (sorted[low] + (place - low) * (sorted[high] - sorted[low])) / 1e6;
    }

    /** One line for the screen: median, 90th percentile, and of how many. */
    synchronized String inWords() {
        int n = Math.min(count, KEPT);
        if (n == 0) {
            return "not measured yet";
        }
        return String.format(Locale.ROOT, "p50 %s ms, p90 %s ms (%d runs)", ms(0.5), ms(0.9), n);
    }

    private String ms(double q) {
        double value = quantileMs(q);
        return String.format(Locale.ROOT, value < 10 ? "%.2f" : "%.1f", value);
    }
}
