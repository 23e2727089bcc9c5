import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import pocketship.conformance.AudioProcessor;
import pocketship.conformance.ClassScores;
import pocketship.conformance.Embeddings;
import pocketship.conformance.ImageProcessor;
import pocketship.conformance.Pixels;
import pocketship.conformance.SeriesProcessor;
import pocketship.conformance.WordPiece;

/** Runs the Android library's processing over the conformance files: Conformance VOCAB UNICODE FOLDER. */
public final class Conformance {
    private static final Map<String, int[]> COUNTS = new TreeMap<>();
    private static byte[] content;

    private static void note(String kind, String name, boolean same) {
        int[] count = COUNTS.computeIfAbsent(kind, key -> new int[2]);
        count[0]++;
        if (!same) {
            count[1]++;
            System.out.println(kind + ": " + name);
        }
    }

    private static ByteBuffer bytes(String place) {
        return ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).position(Integer.parseInt(place.split(":")[1]));
    }

    private static int[] shape(String place) {
        return Arrays.stream(place.split(":")[2].split("x")).mapToInt(Integer::parseInt).toArray();
    }

    private static int count(String place) {
        return Arrays.stream(shape(place)).reduce(1, (a, b) -> a * b);
    }

    private static float[] floats(String place) {
        float[] values = new float[count(place)];
        bytes(place).asFloatBuffer().get(values);
        return values;
    }

    private static double[] numbers(String list) {
        return list.isEmpty() ? new double[0] : Arrays.stream(list.split(",")).mapToDouble(Double::parseDouble).toArray();
    }

    private static float[] singles(String list) {
        double[] wide = numbers(list);
        float[] values = new float[wide.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) wide[i];
        }
        return values;
    }

    private static List<String> words(String list) {
        return list.isEmpty() ? new ArrayList<>() : Arrays.asList(list.split(","));
    }

    private static boolean near(float[] found, float[] wanted, String tolerance) {
        if (found.length != wanted.length) {
            return false;
        }
        for (int i = 0; i < found.length; i++) {
            if (tolerance.equals("ulp")) {
                int apart = Math.abs(Float.floatToIntBits(found[i]) - Float.floatToIntBits(wanted[i]));
                if (found[i] != wanted[i] && apart > 1) {
                    return false;
                }
            } else if (!(Math.abs(found[i] - wanted[i]) <= Double.parseDouble(tolerance) * Math.max(1, Math.abs(wanted[i])))) {
                return false;
            }
        }
        return true;
    }

    private static boolean image(Map<String, String> f) {
        ImageProcessor.Options o = new ImageProcessor.Options();
        o.width = Integer.parseInt(f.get("width"));
        o.height = Integer.parseInt(f.get("height"));
        o.channels = f.get("channels");
        o.layout = f.get("layout");
        o.resize = f.get("resize");
        o.shortestEdge = Integer.parseInt(f.get("shortest_edge"));
        o.interpolation = f.get("interpolation");
        o.cropRounding = f.get("crop_rounding");
        o.fill = Arrays.stream(numbers(f.get("fill"))).mapToInt(x -> (int) x).toArray();
        o.divisor = (float) Double.parseDouble(f.get("divisor"));
        o.mean = singles(f.get("mean"));
        o.std = singles(f.get("std"));
        int[] shape = shape(f.get("pixels"));
        byte[] rgb = new byte[count(f.get("pixels"))];
        bytes(f.get("pixels")).get(rgb);
        float[] found = new ImageProcessor(o).tensor(new Pixels(shape[1], shape[0], rgb));
        return near(found, floats(f.get("expected")), f.get("tolerance"));
    }

    private static boolean audio(Map<String, String> f) {
        AudioProcessor.Options o = new AudioProcessor.Options();
        o.samples = Integer.parseInt(f.get("samples"));
        o.frame = Integer.parseInt(f.get("frame"));
        o.hop = Integer.parseInt(f.get("hop"));
        o.fft = Integer.parseInt(f.get("fft"));
        o.centered = f.get("centered").equals("true");
        o.padding = f.get("padding");
        o.power = Double.parseDouble(f.get("power"));
        o.mels = Integer.parseInt(f.get("mels"));
        o.log = f.get("log");
        o.floor = Double.parseDouble(f.get("floor"));
        o.dropLast = f.get("drop_last").equals("true");
        o.range = f.get("range").isEmpty() ? Double.NaN : Double.parseDouble(f.get("range"));
        o.mean = Double.parseDouble(f.get("mean"));
        o.std = Double.parseDouble(f.get("std"));
        o.layout = f.get("layout");
        byte[] tables = new byte[8 * (count(f.get("tables_window")) + count(f.get("tables_filters")))];
        bytes(f.get("tables_window")).get(tables, 0, 8 * o.frame);
        bytes(f.get("tables_filters")).get(tables, 8 * o.frame, tables.length - 8 * o.frame);
        float[] found = new AudioProcessor(o, tables).tensor(floats(f.get("sound")));
        return near(found, floats(f.get("expected")), f.get("tolerance"));
    }

    private static boolean series(Map<String, String> f) {
        SeriesProcessor.Options o = new SeriesProcessor.Options();
        o.channels = Integer.parseInt(f.get("channels"));
        o.steps = Integer.parseInt(f.get("steps"));
        o.keep = f.get("keep");
        o.pad = Double.parseDouble(f.get("pad"));
        o.scaling = f.get("scaling");
        o.mean = numbers(f.get("mean"));
        o.std = numbers(f.get("std"));
        o.low = numbers(f.get("low"));
        o.high = numbers(f.get("high"));
        o.epsilon = Double.parseDouble(f.get("epsilon"));
        return near(new SeriesProcessor(o).tensor(floats(f.get("series"))), floats(f.get("expected")), "0");
    }

    private static boolean classes(Map<String, String> f) {
        float threshold = (float) Double.parseDouble(f.get("threshold"));
        ClassScores found = ClassScores.of(floats(f.get("values")), words(f.get("labels")), f.get("activation"), threshold);
        String label = found.label == null ? "" : found.label;
        return near(found.scores, floats(f.get("expected")), f.get("tolerance"))
                && label.equals(f.get("label"))
                && found.above.equals(words(f.get("above")));
    }

    private static boolean embedding(Map<String, String> f) {
        long[] mask = null;
        if (f.containsKey("mask")) {
            mask = new long[count(f.get("mask"))];
            bytes(f.get("mask")).asLongBuffer().get(mask);
        }
        int[] shape = shape(f.get("values"));
        boolean normalize = f.get("normalize").equals("true");
        float[] found = Embeddings.of(floats(f.get("values")), shape[shape.length - 1], f.get("pooling"), normalize, mask);
        return near(found, floats(f.get("expected")), f.get("tolerance"));
    }

    private static WordPiece tokenizer(String vocabulary, String unicode, boolean clean) throws IOException {
        WordPiece.Options o = new WordPiece.Options();
        o.lowercase = true;
        o.stripAccents = true;
        o.cleanText = clean;
        o.handleChineseChars = true;
        o.unk = 100;
        o.cls = 101;
        o.sep = 102;
        o.maxTokens = 128;
        o.specialTexts = new String[] {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
        o.specialIds = new int[] {0, 100, 101, 102, 103};
        return new WordPiece(Files.readAllBytes(Paths.get(vocabulary)), Files.readAllBytes(Paths.get(unicode)), o);
    }

    public static void main(String[] arguments) throws IOException {
        Path folder = Paths.get(arguments[2]);
        WordPiece tokenizer = tokenizer(arguments[0], arguments[1], true);
        for (String line : Files.readAllLines(folder.resolve("text.tsv"), StandardCharsets.US_ASCII)) {
            String[] pair = line.split("\t");
            byte[] utf8 = new byte[pair[0].length() / 2];
            for (int i = 0; i < utf8.length; i++) {
                utf8[i] = (byte) Integer.parseInt(pair[0].substring(2 * i, 2 * i + 2), 16);
            }
            int[] wanted = Arrays.stream(pair[1].split(" ")).mapToInt(Integer::parseInt).toArray();
            String name = pair[0].substring(0, Math.min(60, pair[0].length()));
            note("text", name, Arrays.equals(tokenizer.tokens(utf8), wanted));
            note("string", name, Arrays.equals(tokenizer.tokens(new String(utf8, StandardCharsets.UTF_8)), wanted));
        }
        WordPiece kept = tokenizer(arguments[0], arguments[1], false);
        note("surrogates", "lone", Arrays.equals(kept.tokens("a\ud800b\udc00"), kept.tokens("a\ufffdb\ufffd")));
        content = Files.readAllBytes(folder.resolve("cases.bin"));
        for (String line : Files.readAllLines(folder.resolve("cases.tsv"), StandardCharsets.UTF_8)) {
            Map<String, String> fields = new HashMap<>();
            for (String pair : line.split("\t")) {
                fields.put(pair.substring(0, pair.indexOf('=')), pair.substring(pair.indexOf('=') + 1));
            }
            String kind = fields.get("kind");
            boolean same =
                    kind.equals("image") ? image(fields)
                            : kind.equals("audio") ? audio(fields)
                                    : kind.equals("series") ? series(fields)
                                            : kind.equals("classes") ? classes(fields) : embedding(fields);
            note(kind, fields.get("case"), same);
        }
        List<String> said = new ArrayList<>();
        boolean all = true;
        for (Map.Entry<String, int[]> count : COUNTS.entrySet()) {
            said.add(count.getKey() + ": " + count.getValue()[0] + " cases, " + count.getValue()[1] + " differences");
            all = all && count.getValue()[1] == 0;
        }
        System.out.println(String.join("; ", said));
        System.exit(all ? 0 : 1);
    }
}
