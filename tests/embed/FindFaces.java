package pocketship.demo;

import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Locale;
import pocketship.rnet.Assets;
import pocketship.rnet.Pixels;
import pocketship.rnet.Rnet;

/** The demo's search with the real model, on this JVM: ASSETS RGB WIDTH HEIGHT; a face a line. */
public final class FindFaces {
    public static void main(String[] arguments) throws Exception {
        Assets assets = file -> Files.readAllBytes(Paths.get(arguments[0], file));
        byte[] rgb = Files.readAllBytes(Paths.get(arguments[1]));
        int face = Rnet.CLASSES_LABELS.indexOf("face");
        int[] windows = {0};
        try (Rnet model = Rnet.create(assets, Rnet.Runtime.ONNX, 1)) {
            FaceFinder.Judge judge = (square, side) -> {
                windows[0]++;
                Rnet.Prediction found = model.predict(new Pixels(side, side, square));
                float[] box = found.box;
                return new float[] {found.classes.scores[face], box[0], box[1], box[2], box[3]};
            };
            int width = Integer.parseInt(arguments[2]);
            int height = Integer.parseInt(arguments[3]);
            for (Face found : new FaceFinder(judge).find(rgb, width, height)) {
                System.out.println(String.format(Locale.ROOT, "%.1f %.1f %.1f %.1f %.4f %d",
                        found.left, found.top, found.right, found.bottom, found.probability, found.windows));
            }
        }
        System.out.println("windows " + windows[0]);
    }
}
