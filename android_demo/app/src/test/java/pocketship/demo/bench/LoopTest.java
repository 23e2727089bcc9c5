package pocketship.demo.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.Test;

public final class LoopTest {
    private long now;

    private Loop.WarmUp warmUp(long... times) {
        int[] next = {0};
        return Loop.warmUp(() -> now += times[Math.min(next[0]++, times.length - 1)], () -> now, 10);
    }

    @Test
    public void itIsWarmWhenThreeWindowsAgree() {
        Loop.WarmUp found = warmUp(900_000_000, 500_000_000, 100_000_000, 100_000_000, 100_000_000);
        assertTrue(found.stable);
        assertEquals(5, found.timesNs.length);
    }

    @Test
    public void theLimitEndsAWarmUpThatDoesNotSettle() {
        long[] falling = new long[60];
        for (int i = 0; i < falling.length; i++) {
            falling[i] = 4_000_000_000L - i * 60_000_000L;
        }
        Loop.WarmUp found = warmUp(falling);
        assertTrue(found.stable || now >= 10_000_000_000L);
        assertFalse(warmUp(6_000_000_000L, 3_000_000_000L, 2_000_000_000L).stable);
    }

    @Test
    public void blocksLastAsLongAsAsked() {
        assertEquals(80, Loop.runsABlock(new long[] {9_000_000, 1_000_000, 1_000_000}, 2));
        assertEquals(1, Loop.runsABlock(new long[] {5_000_000_000L}, 2));
        assertEquals(Loop.MOST_RUNS_A_BLOCK, Loop.runsABlock(new long[] {1}, 2));
    }

    @Test
    public void casesTakeTurnsUntilRoundsAndSecondsAreReached() {
        List<Integer> order = new ArrayList<>();
        Loop.takeTurns((which, runs) -> {
            order.add(which);
            return new long[] {50_000_000, 50_000_000};
        }, new int[] {2, 2, 0}, 2, 1, 0);
        assertEquals(2 * Loop.LEAST_ROUNDS, order.size());
        for (int round = 0; round < Loop.LEAST_ROUNDS; round++) {
            assertEquals(1, order.get(2 * round) + order.get(2 * round + 1));
        }
        assertTrue("shuffled", order.indexOf(1) != order.lastIndexOf(1) && !order.equals(sorted(order)));
    }

    private static List<Integer> sorted(List<Integer> order) {
        List<Integer> regular = new ArrayList<>();
        for (int i = 0; i < order.size(); i++) {
            regular.add(i % 2);
        }
        return regular;
    }

    @Test
    public void aLostCaseLeavesTheOthersTheirTurns() {
        int[] counts = new int[2];
        Loop.takeTurns((which, runs) -> ++counts[which] == 3 && which == 0 ? null : new long[] {100_000_000}, new int[] {1, 1}, 1, 0, 0);
        assertEquals(3, counts[0]);
        assertEquals(Loop.LEAST_ROUNDS, counts[1]);
    }

    @Test
    public void precisionIsOutOfReachAfterTenTimesTheSeconds() {
        int[] count = {0};
        Loop.takeTurns((which, runs) -> new long[] {++count[0] % 2 == 0 ? 100_000_000 : 300_000_000}, new int[] {1}, 1, 0, 0.001);
        assertEquals(50, count[0], 1);
    }

    @Test
    public void halfWidthIsThatOfTheOrderStatistics() {
        List<Long> values = new ArrayList<>();
        for (long i = 1; i <= 100; i++) {
            values.add(i);
        }
        assertEquals((60 - 41 + 1) / 2.0 / 50.5, Loop.halfWidth(values), 0.011);
        assertEquals(0, Loop.halfWidth(Arrays.asList(7L, 7L, 7L)), 0);
    }
}
