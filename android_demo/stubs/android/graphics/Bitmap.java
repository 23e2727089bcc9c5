package android.graphics;

public final class Bitmap {
    public enum Config {
        ARGB_8888
    }

    public int getWidth() {
        throw new UnsupportedOperationException("a declaration");
    }

    public int getHeight() {
        throw new UnsupportedOperationException("a declaration");
    }

    public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Bitmap copy(Config config, boolean mutable) {
        throw new UnsupportedOperationException("a declaration");
    }

    public static Bitmap createBitmap(Bitmap source, int x, int y, int width, int height, Matrix matrix, boolean filter) {
        throw new UnsupportedOperationException("a declaration");
    }
}
