package pocketship.demo.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import pocketship.minilm.Engine;
import pocketship.minilm.ModelException;
import pocketship.minilm.Tensor;

/**
 * Does the job of `pocketship bench` inside an app: the events of docs/results.md as they come, and at the end the file of
 * results. All cases share the app's process, which every result notes.
 */
public final class Bench {
    static final int RESULT_VERSION = 1;
    static final String SHARED = "all cases shared one process, that of the app";

    /** What the bench needs of the machine; in the app Android's, in a test the JVM's. */
    public interface Machine {
        /** The content of a file of the job. */
        byte[] read(String key) throws IOException;

        /** An engine with the file loaded, by its format; null where the app has no such runtime. */
        Engine load(String format, byte[] model, int threads);

        /** The facts of docs/results.md's event `device`. */
        JSONObject facts() throws JSONException;

        /** Nanoseconds that never go back. */
        long now();

        /** UTC, as 2026-01-31T12:00:00+00:00. */
        String date();

        /** Take an event in, as soon as it is there. */
        void told(JSONObject event) throws IOException;
    }

    /** A case while it is measured. */
    private static final class Running {
        final int index;
        final Job.Case asked;
        Engine engine;
        Map<String, Tensor> inputs;
        final List<JSONObject> blocks = new ArrayList<>();
        JSONObject loaded;
        JSONObject warm;
        JSONObject failure;
        boolean stable = true;

        Running(int index, Job.Case asked) {
            this.index = index;
            this.asked = asked;
        }
    }

    private final Job job;
    private final Machine machine;
    private final long started;
    private final List<Running> cases = new ArrayList<>();

    public Bench(Job job, Machine machine) {
        this.job = job;
        this.machine = machine;
        started = machine.now();
        for (int i = 0; i < job.cases.size(); i++) {
            cases.add(new Running(i, job.cases.get(i)));
        }
    }

    /** Do the job; what `pocketship report` reads. */
    public JSONObject run() throws JSONException, IOException {
        String date = machine.date();
        JSONObject facts = machine.facts();
        tell(new JSONObject().put("event", "device").put("facts", facts));
        double seconds = job.seconds / job.processes;
        for (int process = 0; process < job.processes; process++) {
            int[] blockRuns = new int[cases.size()];
            for (Running running : cases) {
                blockRuns[running.index] = prepared(running, process, seconds);
            }
            int round = process;
            if (job.sustainedS > 0) {
                for (Running running : cases) {
                    sustain(running, round);
                }
            } else {
                Loop.Deal deal = (which, runs) -> block(cases.get(which), runs, round);
                Loop.takeTurns(deal, blockRuns, seconds, job.seed + process, job.precision);
            }
            for (Running running : cases) {
                close(running);
            }
        }
        tell(new JSONObject().put("event", "end"));
        JSONArray results = new JSONArray();
        for (Running running : cases) {
            results.put(result(running, facts, date));
        }
        return new JSONObject().put("schema_version", RESULT_VERSION).put("results", results);
    }

    /** Load a case and warm it up: the runs of a block, 0 where it is lost. */
    private int prepared(Running running, int process, double seconds) throws JSONException, IOException {
        if (running.failure != null) {
            return 0;
        }
        Job.Artifact artifact = running.asked.artifact;
        try {
            if (artifact.golden == null) {
                throw new IOException("the app measures golden inputs, and this artifact has none");
            }
            byte[] model = machine.read(artifact.file);
            Map<String, Tensor> golden = SafeTensors.read(machine.read(artifact.golden + ".safetensors"));
            long before = machine.now();
            running.engine = machine.load(artifact.format, model, running.asked.threads);
            if (running.engine == null) {
                throw new IOException("this app has no runtime for " + artifact.format);
            }
            final long loadNs = machine.now() - before;
            running.inputs = sample(golden, 0, artifact.format);
            before = machine.now();
            running.engine.run(running.inputs);
            final long firstNs = machine.now() - before;
            if (process == 0) {
                tellLoaded(running, loadNs, firstNs);
                tellOutputs(running, golden);
            }
            Loop.WarmUp warm = Loop.warmUp(() -> running.engine.run(running.inputs), machine::now, job.warmupS);
            running.stable = running.stable && warm.stable;
            running.warm = event("warm", running).put("warmup_ns", numbers(warm.timesNs)).put("stable", warm.stable);
            tell(running.warm);
            return Loop.runsABlock(warm.timesNs, seconds);
        } catch (IOException | ModelException | IllegalArgumentException | IllegalStateException error) {
            fail(running, "refused", error.getMessage());
        } catch (OutOfMemoryError error) {
            fail(running, "out-of-memory", "the app has no memory left for it");
        }
        return 0;
    }

    private void tellLoaded(Running running, long loadNs, long firstNs) throws JSONException, IOException {
        String[] runtime = running.engine.runtime().split(" (?=[^ ]*$)");
        running.loaded = event("loaded", running)
                .put("runtime", runtime[0])
                .put("version", runtime.length > 1 ? runtime[1] : "")
                .put("inputs", "golden")
                .put("import_ns", JSONObject.NULL)
                .put("load_cold_ns", JSONObject.NULL)
                .put("load_warm_ns", loadNs)
                .put("first_inference_ns", firstNs)
                .put("page_cache_dropped", false)
                .put("notes", new JSONArray().put(SHARED));
        tell(running.loaded);
    }

    private void tellOutputs(Running running, Map<String, Tensor> golden) throws JSONException, IOException {
        for (int row = 0; ; row++) {
            Map<String, Tensor> inputs = sample(golden, row, running.asked.artifact.format);
            if (inputs.isEmpty()) {
                return;
            }
            JSONObject outputs = new JSONObject();
            for (Map.Entry<String, Tensor> output : running.engine.run(inputs).entrySet()) {
                outputs.put(output.getKey(), encoded(output.getValue()));
            }
            tell(event("outputs", running).put("of", "golden").put("row", row).put("rows", 1).put("outputs", outputs));
        }
    }

    private long[] block(Running running, int runs, int process) {
        try {
            if (runs > 1) { // not counted: it finds the caches as another case left them
                running.engine.run(running.inputs);
            }
            long at = machine.now();
            long[] times = Loop.timedBlock(() -> running.engine.run(running.inputs), runs, machine::now);
            tellBlock(running, process, at, runs, times);
            return times;
        } catch (ModelException | JSONException | IOException error) {
            fail(running, "crashed", error.getMessage());
            return null;
        }
    }

    /** Run without a pause; of each second the first 1,000 times are kept. */
    private void sustain(Running running, int process) throws JSONException, IOException {
        long begun = machine.now();
        while (running.failure == null && machine.now() - begun < job.sustainedS * Loop.SECOND_NS) {
            long at = machine.now();
            List<Long> kept = new ArrayList<>();
            int runs = 0;
            for (; machine.now() - at < Loop.SECOND_NS; runs++) {
                long time = Loop.timedBlock(() -> running.engine.run(running.inputs), 1, machine::now)[0];
                if (kept.size() < Loop.MOST_RUNS_A_BLOCK) {
                    kept.add(time);
                }
            }
            tellBlock(running, process, at, runs, kept.stream().mapToLong(Long::longValue).toArray());
        }
    }

    private void tellBlock(Running running, int process, long at, int runs, long[] times) throws JSONException, IOException {
        JSONObject block = new JSONObject()
                .put("process", process)
                .put("at_ns", at - started)
                .put("runs", runs)
                .put("times_ns", numbers(times));
        running.blocks.add(block);
        JSONObject event = event("block", running);
        for (String name : new String[] {"process", "at_ns", "runs", "times_ns"}) {
            event.put(name, block.get(name));
        }
        tell(event);
    }

    private void fail(Running running, String cause, String detail) {
        try {
            String line = detail == null ? "no reason was given" : detail.replaceAll("\\s+", " ");
            running.failure = new JSONObject().put("cause", cause).put("detail", line);
            tell(event("failed", running).put("cause", cause).put("detail", line));
            close(running);
        } catch (JSONException | IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void close(Running running) {
        if (running.engine != null) {
            running.engine.close();
            running.engine = null;
        }
    }

    private static JSONObject event(String name, Running running) throws JSONException {
        return new JSONObject().put("event", name).put("case", running.index);
    }

    private void tell(JSONObject event) throws IOException {
        machine.told(event);
    }

    /** The inputs of a golden sample; TFLite files take int32 where PyTorch takes int64. */
    private static Map<String, Tensor> sample(Map<String, Tensor> golden, int row, String format) {
        String prefix = row + "/input/";
        Map<String, Tensor> inputs = new LinkedHashMap<>();
        for (Map.Entry<String, Tensor> entry : golden.entrySet()) {
            if (entry.getKey().startsWith(prefix)) {
                Tensor value = entry.getValue();
                boolean narrow = format.equals("tflite") && value.values instanceof java.nio.LongBuffer;
                String name = entry.getKey().substring(prefix.length());
                inputs.put(name, narrow ? Tensor.of(value.ints(), value.shape()) : value);
            }
        }
        return inputs;
    }

    private static JSONObject encoded(Tensor tensor) throws JSONException {
        boolean isFloat = tensor.values instanceof java.nio.FloatBuffer;
        boolean isInt = tensor.values instanceof java.nio.IntBuffer;
        int count = tensor.values.capacity();
        ByteBuffer bytes = ByteBuffer.allocate(count * (isFloat || isInt ? 4 : 8)).order(ByteOrder.LITTLE_ENDIAN);
        if (isFloat) {
            bytes.asFloatBuffer().put(tensor.floats());
        } else if (isInt) {
            bytes.asIntBuffer().put(tensor.ints());
        } else {
            bytes.asLongBuffer().put(tensor.longs());
        }
        return new JSONObject()
                .put("dtype", isFloat ? "float32" : isInt ? "int32" : "int64")
                .put("shape", numbers(tensor.shape()))
                .put("data", Base64.getEncoder().encodeToString(bytes.array()));
    }

    private static JSONArray numbers(long[] values) {
        JSONArray array = new JSONArray();
        for (long value : values) {
            array.put(value);
        }
        return array;
    }

    /** docs/results.schema.json; statistics and parity are left to who reads it, since samples and outputs are raw. */
    private JSONObject result(Running running, JSONObject facts, String date) throws JSONException {
        JSONObject settings = new JSONObject();
        for (String name : new String[] {"seconds", "warmup_s", "batch", "affinity", "sustained_s", "precision", "processes", "seed"}) {
            settings.put(name, job.asked.isNull(name) ? JSONObject.NULL : job.asked.get(name));
        }
        settings.put("threads", running.asked.threads == 0 ? JSONObject.NULL : (Object) running.asked.threads);
        settings.put("inputs", running.loaded == null ? "" : "golden");
        Job.Artifact artifact = running.asked.artifact;
        JSONObject file = new JSONObject()
                .put("name", artifact.name)
                .put("format", artifact.format)
                .put("size_bytes", artifact.sizeBytes)
                .put("sha256", artifact.sha256);
        Object by = JSONObject.NULL;
        Object samples = JSONObject.NULL;
        if (running.loaded != null) {
            by = new JSONObject()
                    .put("runtime", running.loaded.get("runtime"))
                    .put("version", running.loaded.get("version"))
                    .put("kind", facts.get("executed"));
            samples = samples(running);
        }
        return new JSONObject()
                .put("schema_version", RESULT_VERSION)
                .put("id", java.util.UUID.nameUUIDFromBytes((job.id + "/app/" + running.index).getBytes()).toString())
                .put("started_at", date)
                .put("target", "app")
                .put("device", facts)
                .put("executed_by", by)
                .put("artifact", file)
                .put("settings", settings)
                .put("samples", samples)
                .put("notes", new JSONArray().put(SHARED))
                .put("failure", running.failure == null ? JSONObject.NULL : running.failure);
    }

    private static JSONObject samples(Running running) throws JSONException {
        JSONObject found = new JSONObject();
        for (String name : new String[] {"import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns", "page_cache_dropped"}) {
            found.put(name, running.loaded.get(name));
        }
        return found.put("warmup_ns", running.warm == null ? new JSONArray() : running.warm.get("warmup_ns"))
                .put("stable", running.stable)
                .put("blocks", new JSONArray(running.blocks));
    }
}
