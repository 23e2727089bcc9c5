package android.view;

public class View {
    public interface OnClickListener {
        void onClick(View view);
    }

    public void setOnClickListener(OnClickListener listener) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setEnabled(boolean enabled) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setSelected(boolean selected) {
        throw new UnsupportedOperationException("a declaration");
    }
}
