package pocketship.demo.bench;

import java.util.ArrayList;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** What a bench is asked to do: the job.json that `pocketship bench` writes (benchmarks/job.py). */
public final class Job {
    static final int VERSION = 1;

    /** A file to measure; {@code golden} is the key of its golden inputs, null where there are none. */
    public static final class Artifact {
        public final String name;
        public final String format;
        public final String file;
        public final long sizeBytes;
        public final String sha256;
        public final String golden;

        Artifact(JSONObject json) throws JSONException {
            name = json.getString("name");
            format = json.getString("format");
            file = key(json.getString("file"));
            sizeBytes = json.getLong("size_bytes");
            sha256 = json.getString("sha256");
            golden = json.isNull("golden") ? null : key(json.getString("golden"));
        }
    }

    /** An artifact at a number of threads, 0 where the runtime chooses. */
    public static final class Case {
        public final Artifact artifact;
        public final int threads;

        Case(Artifact artifact, int threads) {
            this.artifact = artifact;
            this.threads = threads;
        }
    }

    public final String id;
    public final List<Case> cases = new ArrayList<>();
    public final double seconds;
    public final double warmupS;
    /** Wanted half width of the median's interval over the median, 0 for none. */
    public final double precision;

    public final double sustainedS;
    public final int processes;
    public final long seed;
    /** The fields that a result repeats as they were asked. */
    final JSONObject asked;

    /** @throws JSONException where the text is no job, or asks for what an app cannot do */
    public Job(String text) throws JSONException {
        JSONObject json = new JSONObject(text);
        if (json.optInt("schema_version") != VERSION) {
            throw new JSONException("the job is of another version");
        }
        if (!json.isNull("affinity")) {
            throw new JSONException("an app cannot pin itself to cores: leave --affinity out");
        }
        if (!json.isNull("batch")) {
            throw new JSONException("the app measures golden inputs as they are: leave --batch out");
        }
        asked = json;
        id = json.getString("id");
        seconds = json.getDouble("seconds");
        warmupS = json.getDouble("warmup_s");
        precision = json.isNull("precision") ? 0 : json.getDouble("precision");
        sustainedS = json.isNull("sustained_s") ? 0 : json.getDouble("sustained_s");
        processes = Math.max(1, json.optInt("processes", 1));
        seed = json.optLong("seed");
        List<Artifact> artifacts = new ArrayList<>();
        JSONArray given = json.getJSONArray("artifacts");
        for (int i = 0; i < given.length(); i++) {
            artifacts.add(new Artifact(given.getJSONObject(i)));
        }
        JSONArray wanted = json.getJSONArray("cases");
        for (int i = 0; i < wanted.length(); i++) {
            JSONObject one = wanted.getJSONObject(i);
            int index = one.getInt("artifact");
            if (index < 0 || index >= artifacts.size()) {
                throw new JSONException("a case names no artifact of the job");
            }
            cases.add(new Case(artifacts.get(index), one.isNull("threads") ? 0 : one.getInt("threads")));
        }
    }

    /** The name of a file in one folder, and of nothing else. */
    private static String key(String name) throws JSONException {
        if (!name.matches("[A-Za-z0-9_][A-Za-z0-9_.-]*")) {
            throw new JSONException("an artifact has no name that is one of a file");
        }
        return name;
    }
}
