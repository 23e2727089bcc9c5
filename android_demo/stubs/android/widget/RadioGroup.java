package android.widget;

public class RadioGroup extends LinearLayout {
    public interface OnCheckedChangeListener {
        void onCheckedChanged(RadioGroup group, int id);
    }

    public void setOnCheckedChangeListener(OnCheckedChangeListener listener) {
        throw new UnsupportedOperationException("a declaration");
    }

    public int getCheckedRadioButtonId() {
        throw new UnsupportedOperationException("a declaration");
    }

    public void check(int id) {
        throw new UnsupportedOperationException("a declaration");
    }
}
