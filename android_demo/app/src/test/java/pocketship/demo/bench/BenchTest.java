package pocketship.demo.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.json.JSONException;
import org.json.JSONObject;
import org.junit.Test;
import pocketship.minilm.Engine;
import pocketship.minilm.ModelException;
import pocketship.minilm.Tensor;

public final class BenchTest {
    private final List<JSONObject> events = new ArrayList<>();
    private final Map<String, byte[]> files = new HashMap<>();
    private long now;
    private int runs;
    private int closed;
    private int failAt = Integer.MAX_VALUE;

    /** y = 2 x, in 10 ms of a clock that only it moves. */
    private final class Doubling implements Engine {
        @Override
        public Map<String, Tensor> run(Map<String, Tensor> inputs) {
            now += 10_000_000;
            if (++runs >= failAt) {
                throw new ModelException("it fell over", null);
            }
            float[] values = inputs.get("x").floats();
            return Collections.singletonMap("y", Tensor.of(new float[] {2 * values[0], 2 * values[1]}, 1, 2));
        }

        @Override
        public String runtime() {
            return "Twice 1.5";
        }

        @Override
        public void close() {
            closed++;
        }
    }

    private final class Desk implements Bench.Machine {
        @Override
        public byte[] read(String key) throws IOException {
            if (!files.containsKey(key)) {
                throw new IOException(key + " is not here");
            }
            return files.get(key);
        }

        @Override
        public Engine load(String format, byte[] model, int threads) {
            return format.equals("onnx") ? new Doubling() : null;
        }

        @Override
        public JSONObject facts() throws JSONException {
            return new JSONObject().put("executed", "physical");
        }

        @Override
        public long now() {
            return now;
        }

        @Override
        public String date() {
            return "2026-01-31T12:00:00+00:00";
        }

        @Override
        public void told(JSONObject event) {
            events.add(event);
        }
    }

    private JSONObject result(String job) throws JSONException, IOException {
        byte[] data = {0, 0, (byte) 0x80, 0x3F, 0, 0, 0, (byte) 0xC0};
        files.put("cd-golden.safetensors", SafeTensorsTest.file("{'0/input/x': {'dtype': 'F32', 'shape': [1, 2], 'data_offsets': [0, 8]}}", data));
        return new Bench(new Job(job), new Desk()).run().getJSONArray("results").getJSONObject(0);
    }

    private long count(String event) {
        return events.stream().filter(told -> told.optString("event").equals(event)).count();
    }

    @Test
    public void aJobBecomesEventsAndAResult() throws JSONException, IOException {
        files.put("ab-model.onnx", new byte[3]);
        JSONObject found = result(JobTest.JOB);
        assertTrue(found.isNull("failure"));
        assertEquals("Twice", found.getJSONObject("executed_by").getString("runtime"));
        assertEquals("1.5", found.getJSONObject("executed_by").getString("version"));
        assertEquals(2 * Loop.LEAST_ROUNDS, found.getJSONObject("samples").getJSONArray("blocks").length());
        assertEquals(10_000_000, found.getJSONObject("samples").getLong("first_inference_ns"));
        assertEquals(2, found.getJSONObject("settings").getInt("threads"));
        assertEquals("device", events.get(0).getString("event"));
        assertEquals("end", events.get(events.size() - 1).getString("event"));
        assertEquals(1, count("outputs"));
        assertEquals(2, count("warm"));
        assertEquals(2, closed);
    }

    @Test
    public void whatCannotBeReadIsAFailureWithItsCause() throws JSONException, IOException {
        JSONObject failure = result(JobTest.JOB).getJSONObject("failure");
        assertEquals("refused", failure.getString("cause"));
        assertEquals("ab-model.onnx is not here", failure.getString("detail"));
        assertEquals(1, count("failed"));
    }

    @Test
    public void aRuntimeThatTheAppLacksIsSaid() throws JSONException, IOException {
        files.put("ab-model.onnx", new byte[3]);
        JSONObject failure = result(JobTest.JOB.replace("'onnx'", "'tflite'")).getJSONObject("failure");
        assertEquals("this app has no runtime for tflite", failure.getString("detail"));
    }

    @Test
    public void aModelThatFailsLaterKeepsWhatItTold() throws JSONException, IOException {
        files.put("ab-model.onnx", new byte[3]);
        failAt = 60;
        JSONObject found = result(JobTest.JOB);
        assertEquals("crashed", found.getJSONObject("failure").getString("cause"));
        assertTrue(found.getJSONObject("samples").getJSONArray("blocks").length() > 0);
        assertEquals(1, closed);
    }

    @Test
    public void sustainedRunsKeepTheFirstThousandOfASecond() throws JSONException, IOException {
        files.put("ab-model.onnx", new byte[3]);
        JSONObject found = result(JobTest.JOB.replace("'sustained_s': null", "'sustained_s': 3.0").replace("'processes': 2", "'processes': 1"));
        assertEquals(3, found.getJSONObject("samples").getJSONArray("blocks").length());
        assertEquals(100, found.getJSONObject("samples").getJSONArray("blocks").getJSONObject(0).getInt("runs"));
    }
}
