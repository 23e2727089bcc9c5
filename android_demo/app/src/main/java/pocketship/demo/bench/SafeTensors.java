package pocketship.demo.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.Map;
import java.util.TreeMap;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import pocketship.minilm.Tensor;

/** A file of arrays in safetensors' layout, as `pocketship bench` unpacks golden inputs for a phone. */
final class SafeTensors {
    private SafeTensors() {}

    /** The float32, int32 and int64 arrays of a file, by name. */
    static Map<String, Tensor> read(byte[] content) throws IOException {
        try {
            ByteBuffer bytes = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
            int length = Math.toIntExact(bytes.getLong());
            if (length < 2 || length > bytes.remaining()) {
                throw new IOException("the header of the golden inputs is cut off");
            }
            JSONObject header = new JSONObject(new String(content, 8, length, StandardCharsets.UTF_8));
            Map<String, Tensor> found = new TreeMap<>();
            for (Iterator<String> names = header.keys(); names.hasNext(); ) {
                String name = names.next();
                found.put(name, tensor(header.getJSONObject(name), content, 8 + length));
            }
            return found;
        } catch (JSONException | ArithmeticException | java.nio.BufferUnderflowException error) {
            throw new IOException("the golden inputs are damaged (" + error.getMessage() + ")", error);
        }
    }

    private static Tensor tensor(JSONObject entry, byte[] content, int start) throws JSONException, IOException {
        JSONArray lengths = entry.getJSONArray("shape");
        long[] shape = new long[lengths.length()];
        long count = 1;
        for (int i = 0; i < shape.length; i++) {
            shape[i] = lengths.getLong(i);
            count *= shape[i];
        }
        String type = entry.getString("dtype");
        int width = type.equals("I64") ? 8 : 4;
        long from = entry.getJSONArray("data_offsets").getLong(0);
        long end = entry.getJSONArray("data_offsets").getLong(1);
        if (count < 0 || from < 0 || end - from != count * width || start + end > content.length) {
            throw new IOException("the golden inputs are cut off");
        }
        ByteBuffer bytes = ByteBuffer.wrap(content, (int) (start + from), (int) (end - from)).order(ByteOrder.LITTLE_ENDIAN);
        switch (type) {
            case "F32": {
                float[] values = new float[(int) count];
                bytes.asFloatBuffer().get(values);
                return Tensor.of(values, shape);
            }
            case "I32": {
                int[] values = new int[(int) count];
                bytes.asIntBuffer().get(values);
                return Tensor.of(values, shape);
            }
            case "I64": {
                long[] values = new long[(int) count];
                bytes.asLongBuffer().get(values);
                return Tensor.of(values, shape);
            }
            default:
                throw new IOException("golden inputs of " + type + " are not measured in the app");
        }
    }
}
