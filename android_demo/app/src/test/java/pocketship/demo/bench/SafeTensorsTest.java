package pocketship.demo.bench;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import org.junit.Test;
import pocketship.minilm.Tensor;

public final class SafeTensorsTest {
    static byte[] file(String header, byte[] data) {
        byte[] text = header.replace('\'', '"').getBytes(StandardCharsets.US_ASCII);
        ByteBuffer bytes = ByteBuffer.allocate(8 + text.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(text.length);
        bytes.put(text);
        bytes.put(data);
        return bytes.array();
    }

    private static final byte[] GOOD = file(
            "{'0/input/x': {'dtype': 'F32', 'shape': [1, 2], 'data_offsets': [0, 8]}, '0/input/n': {'dtype': 'I64', 'shape': [1], 'data_offsets': [8, 16]}}",
            new byte[] {0, 0, (byte) 0x80, 0x3F, 0, 0, 0, (byte) 0xC0, 5, 0, 0, 0, 0, 0, 0, 0});

    @Test
    public void arraysAreRead() throws IOException {
        Map<String, Tensor> found = SafeTensors.read(GOOD);
        assertArrayEquals(new float[] {1, -2}, found.get("0/input/x").floats(), 0);
        assertArrayEquals(new long[] {5}, found.get("0/input/n").longs());
        assertArrayEquals(new long[] {1, 2}, found.get("0/input/x").shape());
    }

    @Test
    public void everyTruncationIsRefused() {
        for (int length = 0; length < GOOD.length; length++) {
            byte[] cut = Arrays.copyOf(GOOD, length);
            assertThrows(String.valueOf(length), IOException.class, () -> SafeTensors.read(cut));
        }
        assertEquals(GOOD.length, GOOD.length);
    }

    @Test
    public void otherTypesAreRefused() {
        byte[] half = file("{'a': {'dtype': 'F16', 'shape': [2], 'data_offsets': [0, 8]}}", new byte[8]);
        assertThrows(IOException.class, () -> SafeTensors.read(half));
        byte[] huge = file("{'a': {'dtype': 'F32', 'shape': [-1], 'data_offsets': [0, -4]}}", new byte[8]);
        assertThrows(IOException.class, () -> SafeTensors.read(huge));
    }
}
