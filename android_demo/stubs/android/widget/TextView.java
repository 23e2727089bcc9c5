package android.widget;

import android.view.View;

public class TextView extends View {
    public final void setText(CharSequence text) {
        throw new UnsupportedOperationException("a declaration");
    }

    public final void setText(int id) {
        throw new UnsupportedOperationException("a declaration");
    }

    public CharSequence getText() {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setTextColor(int color) {
        throw new UnsupportedOperationException("a declaration");
    }
}
