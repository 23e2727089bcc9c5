package android.graphics;

public class Paint {
    public static final int ANTI_ALIAS_FLAG = 1;

    public enum Style {
        FILL,
        STROKE
    }

    public Paint(int flags) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setStyle(Style style) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setStrokeWidth(float width) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setColor(int color) {
        throw new UnsupportedOperationException("a declaration");
    }
}
