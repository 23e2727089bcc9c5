package pocketship.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import org.junit.Test;

public final class SimilarityTest {
    @Test
    public void theAngleCountsAndTheLengthDoesNot() {
        assertEquals(1, Similarity.cosine(new float[] {1, 2}, new float[] {10, 20}), 1e-12);
        assertEquals(-1, Similarity.cosine(new float[] {1, 2}, new float[] {-1, -2}), 1e-12);
        assertEquals(0, Similarity.cosine(new float[] {1, 0}, new float[] {0, 3}), 1e-12);
        assertEquals(Math.sqrt(0.5), Similarity.cosine(new float[] {1, 0}, new float[] {1, 1}), 1e-12);
    }

    @Test
    public void aZeroVectorIsLikeNothing() {
        assertEquals(0, Similarity.cosine(new float[] {0, 0}, new float[] {1, 1}), 0);
    }

    @Test
    public void vectorsOfOtherLengthsAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> Similarity.cosine(new float[1], new float[2]));
    }
}
