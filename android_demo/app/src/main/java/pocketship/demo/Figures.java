package pocketship.demo;

import android.app.Activity;
import android.widget.RadioButton;
import android.widget.RadioGroup;
import android.widget.TextView;
import java.util.Locale;

/** The card with the choice of runtime, latency, size and parity. */
final class Figures {
    /** What is to happen when a runtime is chosen. */
    interface OnChosen {
        void chosen(boolean liteRt);
    }

    private static final int GOOD = 0xFF0B6E4F;
    private static final int BAD = 0xFFB3261E;

    private final Activity activity;
    private final TextView latency;
    private final TextView size;
    private final TextView parity;

    Figures(Activity activity, OnChosen onChosen) {
        this.activity = activity;
        latency = activity.findViewById(R.id.latency);
        size = activity.findViewById(R.id.size);
        parity = activity.findViewById(R.id.parity);
        if (!Runtimes.hasLiteRt()) {
            RadioButton liteRt = activity.findViewById(R.id.litert);
            liteRt.setEnabled(false);
            liteRt.setText("LiteRT (not in this APK)");
        }
        RadioGroup group = activity.findViewById(R.id.runtime);
        group.setOnCheckedChangeListener((changed, id) -> onChosen.chosen(id == R.id.litert));
        onChosen.chosen(false);
    }

    void showLatency(Latency times) {
        activity.runOnUiThread(() -> latency.setText(times.inWords()));
    }

    void showModel(String file, long bytes, String precision, String runtime) {
        String line = String.format(Locale.ROOT, "%s, %.2f MB, %s, in %s", file, bytes / 1e6, precision, runtime);
        activity.runOnUiThread(() -> size.setText(line));
    }

    /** The self-test on this phone, beside what Python measured when the model was exported. */
    void showParity(double maxAbsError, int samples, boolean passed, double exported) {
        String line = parityInWords(maxAbsError, samples, passed, exported);
        activity.runOnUiThread(() -> {
            parity.setText(line);
            parity.setTextColor(passed ? GOOD : BAD);
        });
    }

    void showFailure(Exception error) {
        activity.runOnUiThread(() -> {
            parity.setText("not loaded: " + error.getMessage());
            parity.setTextColor(BAD);
        });
    }

    static String parityInWords(double maxAbsError, int samples, boolean passed, double exported) {
        return String.format(
                Locale.ROOT,
                "%s: max error %.2e over %d samples (Python at export: %.2e)",
                passed ? "pass" : "FAIL",
                maxAbsError,
                samples,
                exported);
    }
}
