package pocketship.demo;

/** How alike two sentences are, by the vectors that the model gives for them. */
final class Similarity {
    private Similarity() {}

    /** The cosine of the angle between two vectors of one length, -1 to 1; 0 where one of them is zero. */
    static double cosine(float[] a, float[] b) {
        if (a.length != b.length) {
            throw new IllegalArgumentException("vectors of " + a.length + " and " + b.length + " numbers");
        }
        double dot = 0;
        double aa = 0;
        double bb = 0;
        for (int i = 0; i < a.length; i++) {
            dot += (double) a[i] * b[i];
            aa += (double) a[i] * a[i];
            bb += (double) b[i] * b[i];
        }
        double lengths = Math.sqrt(aa) * Math.sqrt(bb);
        return lengths == 0 ? 0 : Math.max(-1, Math.min(1, dot / lengths));
    }
}
