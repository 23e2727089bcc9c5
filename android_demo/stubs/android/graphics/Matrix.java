package android.graphics;

public class Matrix {
    public boolean postRotate(float degrees) {
        throw new UnsupportedOperationException("a declaration");
    }

    public boolean postScale(float x, float y) {
        throw new UnsupportedOperationException("a declaration");
    }
}
