package pocketship.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import org.junit.Test;

public final class LatencyTest {
    @Test
    public void quantilesAreInterpolated() {
        Latency latency = new Latency();
        for (long ms = 1; ms <= 10; ms++) {
            latency.add(ms * 1_000_000);
        }
        assertEquals(5.5, latency.quantileMs(0.5), 1e-9);
        assertEquals(9.1, latency.quantileMs(0.9), 1e-9);
        assertEquals("p50 5.50 ms, p90 9.10 ms (10 runs)", latency.inWords());
    }

    @Test
    public void onlyTheLatestAreKept() {
        Latency latency = new Latency();
        latency.add(1_000_000_000_000L);
        for (int i = 0; i < Latency.KEPT; i++) {
            latency.add(20_000_000);
        }
        assertEquals("p50 20.0 ms, p90 20.0 ms (200 runs)", latency.inWords());
    }

    @Test
    public void noneIsSaidAndNotZero() {
        Latency latency = new Latency();
        latency.add(5);
        latency.clear();
        assertTrue(Double.isNaN(latency.quantileMs(0.5)));
        assertEquals("not measured yet", latency.inWords());
    }
}
