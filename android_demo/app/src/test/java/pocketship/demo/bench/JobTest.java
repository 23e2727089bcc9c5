package pocketship.demo.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import org.json.JSONException;
import org.junit.Test;

public final class JobTest {
    static final String JOB = "{'schema_version': 1, 'id': 'x', 'artifacts': [{'name': 'm', 'format': 'onnx', 'file': 'ab-model.onnx',"
            + " 'size_bytes': 3, 'sha256': 'ab', 'golden': 'cd-golden', 'data': null}], 'cases': [{'artifact': 0, 'threads': 2}],"
            + " 'seconds': 1.0, 'warmup_s': 2.0, 'precision': null, 'batch': null, 'affinity': null, 'sustained_s': null,"
            + " 'data_s': 1.0, 'timeout_s': 60.0, 'profile': true, 'processes': 2, 'seed': 7}";

    private static void assertRefused(String said, String from, String to) {
        JSONException error = assertThrows(JSONException.class, () -> new Job(JOB.replace(from, to)));
        assertTrue(error.getMessage(), error.getMessage().contains(said));
    }

    @Test
    public void aJobOfTheBenchIsRead() throws JSONException {
        Job job = new Job(JOB);
        assertEquals(1, job.cases.size());
        assertEquals("ab-model.onnx", job.cases.get(0).artifact.file);
        assertEquals(2, job.cases.get(0).threads);
        assertEquals(2, job.processes);
        assertNull(new Job(JOB.replace("'cd-golden'", "null")).cases.get(0).artifact.golden);
    }

    @Test
    public void whatAnAppCannotDoIsRefused() {
        assertRefused("another version", "'schema_version': 1", "'schema_version': 2");
        assertRefused("pin itself", "'affinity': null", "'affinity': [0]");
        assertRefused("golden inputs as they are", "'batch': null", "'batch': 8");
        assertRefused("no artifact of the job", "'artifact': 0", "'artifact': 1");
        assertRefused("one of a file", "ab-model.onnx", "../model.onnx");
        assertRefused("one of a file", "cd-golden", "/etc/passwd");
        assertThrows(JSONException.class, () -> new Job("{"));
    }
}
