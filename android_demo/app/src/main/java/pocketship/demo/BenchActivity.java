package pocketship.demo;

import android.app.Activity;
import android.content.Intent;
import android.os.Build;
import android.os.Bundle;
import android.widget.Button;
import android.widget.TextView;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.text.SimpleDateFormat;
import java.util.Date;
import java.util.Locale;
import java.util.TimeZone;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.json.JSONException;
import org.json.JSONObject;
import pocketship.demo.bench.Bench;
import pocketship.demo.bench.Job;
import pocketship.minilm.Engine;
import pocketship.minilm.LiteRtEngine;
import pocketship.minilm.OnnxEngine;

/**
 * Does the job that lies in this app's folder `bench`: job.json and its files, as `pocketship bench --on adb` pushes them.
 * events.jsonl and results.json appear beside it.
 */
public final class BenchActivity extends Activity {
    static final String START = "start";

    private final ExecutorService worker = Executors.newSingleThreadExecutor();

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.bench);
        Screens.connect(this, R.id.tab_bench);
        TextView folder = findViewById(R.id.folder);
        folder.setText(String.valueOf(folder()));
        Button start = findViewById(R.id.start);
        start.setOnClickListener(view -> worker.execute(this::run));
        if (getIntent().hasExtra(START)) {
            worker.execute(this::run);
        }
    }

    @Override
    protected void onNewIntent(Intent intent) {
        super.onNewIntent(intent);
        setIntent(intent);
        if (intent.hasExtra(START)) {
            worker.execute(this::run);
        }
    }

    private File folder() {
        return getExternalFilesDir("bench");
    }

    private void run() {
        File folder = folder();
        File events = new File(folder, "events.jsonl");
        File results = new File(folder, "results.json");
        say("Running; keep the screen on and other apps closed.");
        try (OutputStream stream = new FileOutputStream(events)) {
            Files.deleteIfExists(results.toPath());
            Job job = new Job(new String(Files.readAllBytes(new File(folder, "job.json").toPath()), StandardCharsets.UTF_8));
            JSONObject found = new Bench(job, new Phone(folder, stream)).run();
            File part = new File(folder, "results.json.part");
            Files.write(part.toPath(), found.toString().getBytes(StandardCharsets.UTF_8));
            if (!part.renameTo(results)) {
                throw new IOException("results.json cannot be written");
            }
            say("Done: " + results);
        } catch (IOException | JSONException error) {
            say("Not done: " + error.getMessage());
        }
    }

    private void say(String line) {
        runOnUiThread(() -> {
            TextView progress = findViewById(R.id.progress);
            progress.setText(line);
        });
    }

    @Override
    protected void onDestroy() {
        worker.shutdownNow();
        super.onDestroy();
    }

    /** This phone, as the bench sees it. */
    private static final class Phone implements Bench.Machine {
        private final File folder;
        private final OutputStream events;

        Phone(File folder, OutputStream events) {
            this.folder = folder;
            this.events = events;
        }

        @Override
        public byte[] read(String key) throws IOException {
            return Files.readAllBytes(new File(folder, key).toPath());
        }

        @Override
        public Engine load(String format, byte[] model, int threads) {
            if (format.equals("onnx")) {
                return new OnnxEngine(model, threads);
            }
            return format.equals("tflite") && Runtimes.hasLiteRt() ? new LiteRtEngine(model, threads) : null;
        }

        @Override
        public JSONObject facts() throws JSONException {
            boolean emulated = Build.HARDWARE.equals("ranchu") || Build.HARDWARE.equals("goldfish");
            return new JSONObject()
                    .put("model", Build.MANUFACTURER + " " + Build.MODEL)
                    .put("family", "phone")
                    .put("cpu", Build.HARDWARE)
                    .put("architecture", Build.SUPPORTED_ABIS[0])
                    .put("cores", java.lang.Runtime.getRuntime().availableProcessors())
                    .put("memory_bytes", JSONObject.NULL)
                    .put("os", "Android " + Build.VERSION.RELEASE + " (API " + Build.VERSION.SDK_INT + ")")
                    .put("executed", emulated ? "emulated" : "physical")
                    .put("emulator", emulated ? "Android's emulator (QEMU)" : "")
                    .put("software", new JSONObject().put("android", Build.VERSION.RELEASE));
        }

        @Override
        public long now() {
            return System.nanoTime();
        }

        @Override
        public String date() {
            SimpleDateFormat format = new SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'+00:00'", Locale.ROOT);
            format.setTimeZone(TimeZone.getTimeZone("UTC"));
            return format.format(new Date());
        }

        @Override
        public void told(JSONObject event) throws IOException {
            events.write((event + "\n").getBytes(StandardCharsets.UTF_8));
            events.flush();
        }
    }
}
