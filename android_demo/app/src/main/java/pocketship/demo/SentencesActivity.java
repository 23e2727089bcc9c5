package pocketship.demo;

import android.app.Activity;
import android.os.Bundle;
import android.widget.Button;
import android.widget.EditText;
import android.widget.ProgressBar;
import android.widget.TextView;
import java.io.IOException;
import java.util.Locale;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import pocketship.minilm.AndroidAssets;
import pocketship.minilm.Minilm;
import pocketship.minilm.ModelException;
import pocketship.minilm.SelfTest;

/** Two sentences, and how alike they are. */
public final class SentencesActivity extends Activity {
    private final ExecutorService worker = Executors.newSingleThreadExecutor();
    private final Latency latency = new Latency();
    private Figures figures;
    private Minilm model; // of the worker alone

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.sentences);
        Screens.connect(this, R.id.tab_sentences);
        figures = new Figures(this, liteRt -> worker.execute(() -> load(liteRt)));
        Button compare = findViewById(R.id.compare);
        compare.setOnClickListener(view -> {
            String first = text(R.id.first);
            String second = text(R.id.second);
            worker.execute(() -> compare(first, second));
        });
    }

    private String text(int id) {
        EditText field = findViewById(id);
        return field.getText().toString();
    }

    private void load(boolean liteRt) {
        try {
            close();
            Minilm.Runtime runtime = liteRt ? Minilm.Runtime.LITERT : Minilm.Runtime.ONNX;
            model = Minilm.create(new AndroidAssets(this), runtime, 0);
            latency.clear();
            figures.showModel(runtime.file, runtime.sizeBytes, runtime.precision, model.runtimeVersion());
            figures.showLatency(latency);
            SelfTest found = model.selfTest();
            figures.showParity(found.maxAbsError, found.samples, found.passed, runtime.exportedMaxAbsError);
        } catch (IOException | ModelException error) {
            figures.showFailure(error);
        }
    }

    private void compare(String first, String second) {
        if (model == null) {
            return;
        }
        try {
            double similarity = Similarity.cosine(embedded(first), embedded(second));
            figures.showLatency(latency);
            runOnUiThread(() -> {
                TextView number = findViewById(R.id.similarity);
                number.setText(String.format(Locale.ROOT, "%.3f", similarity));
                ProgressBar bar = findViewById(R.id.bar);
                bar.setProgress((int) Math.round(1000 * Math.max(0, similarity)));
            });
        } catch (ModelException error) {
            figures.showFailure(error);
        }
    }

    /** From text to vector, timed as a whole. */
    private float[] embedded(String text) {
        long started = System.nanoTime();
        float[] vector = model.embed(text);
        latency.add(System.nanoTime() - started);
        return vector;
    }

    private void close() {
        if (model != null) {
            model.close();
            model = null;
        }
    }

    @Override
    protected void onDestroy() {
        worker.execute(this::close);
        worker.shutdown();
        super.onDestroy();
    }
}
