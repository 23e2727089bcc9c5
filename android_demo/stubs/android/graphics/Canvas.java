package android.graphics;

public class Canvas {
    public Canvas(Bitmap bitmap) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void drawRect(float left, float top, float right, float bottom, Paint paint) {
        throw new UnsupportedOperationException("a declaration");
    }
}
