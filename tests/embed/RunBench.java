package pocketship.demo.bench;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import org.json.JSONException;
import org.json.JSONObject;
import pocketship.minilm.Engine;
import pocketship.minilm.OnnxEngine;

/** The demo's bench with the real ONNX Runtime, on this JVM: FOLDER holds job.json and its files. */
public final class RunBench {
    public static void main(String[] arguments) throws Exception {
        Path folder = Paths.get(arguments[0]);
        Path events = folder.resolve("events.jsonl");
        Bench.Machine machine = new Bench.Machine() {
            @Override
            public byte[] read(String key) throws IOException {
                return Files.readAllBytes(folder.resolve(key));
            }

            @Override
            public Engine load(String format, byte[] model, int threads) {
                return format.equals("onnx") ? new OnnxEngine(model, threads) : null;
            }

            @Override
            public JSONObject facts() throws JSONException {
                return new JSONObject()
                        .put("model", "a JVM")
                        .put("family", "desktop")
                        .put("cpu", "unknown")
                        .put("architecture", System.getProperty("os.arch"))
                        .put("cores", Runtime.getRuntime().availableProcessors())
                        .put("memory_bytes", JSONObject.NULL)
                        .put("os", System.getProperty("os.name"))
                        .put("executed", "physical")
                        .put("emulator", "")
                        .put("software", new JSONObject());
            }

            @Override
            public long now() {
                return System.nanoTime();
            }

            @Override
            public String date() {
                return "2026-01-31T12:00:00+00:00";
            }

            @Override
            public void told(JSONObject event) throws IOException {
                byte[] line = (event + "\n").getBytes(StandardCharsets.UTF_8);
                Files.write(events, line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            }
        };
        Job job = new Job(new String(Files.readAllBytes(folder.resolve("job.json")), StandardCharsets.UTF_8));
        Files.write(folder.resolve("results.json"), new Bench(job, machine).run().toString().getBytes(StandardCharsets.UTF_8));
    }
}
