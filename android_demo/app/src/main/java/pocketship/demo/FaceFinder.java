package pocketship.demo;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

/**
 * Finds faces with a network that judges one square: windows of many sizes slide over the picture, what the network
 * takes for a face is moved by the correction that it gives, and windows that overlap are one face.
 *
 * <p>The network is RNet of MTCNN (Zhang et al., 2016), which there refines what a smaller network proposes; alone it
 * errs more often, so that a face counts only where several windows agree.
 */
final class FaceFinder {
    /** What the network says of one square of the picture. */
    interface Judge {
        /**
         * @param rgb {@code side x side} pixels, 3 bytes each, row by row
         * @return the probability of a face, then the corrections of left, top, right and bottom, in sides
         */
        float[] judge(byte[] rgb, int side);
    }

    /** The longer side of the picture that is searched: a larger one is made smaller by whole factors first. */
    static final int LONGEST = 320;

    static final double LARGEST_SIDE = 0.9;
    static final double SMALLEST_SIDE = 0.12;
    static final int LEAST_SIDE = 20;
    static final double SHRINK = 1.3;
    static final double STEP = 0.16;
    static final double PROBABLE = 0.7;
    static final double SAME = 0.3;
    static final int AGREEING = 3;
    static final double SURE = 0.95;

    private final Judge judge;

    FaceFinder(Judge judge) {
        this.judge = judge;
    }

    /**
     * The faces of a picture, the surest first.
     *
     * @param rgb {@code width x height} pixels, 3 bytes each, row by row from the top
     */
    List<Face> find(byte[] rgb, int width, int height) {
        if (width < 1 || height < 1 || rgb.length != 3L * width * height) {
            throw new IllegalArgumentException(rgb.length + " bytes are no picture of " + width + "x" + height);
        }
        int factor = Math.max(1, (Math.max(width, height) + LONGEST - 1) / LONGEST);
        int w = width / factor;
        int h = height / factor;
        byte[] small = factor == 1 ? rgb : reduced(rgb, width, w, h, factor);
        List<Face> windows = new ArrayList<>();
        int shorter = Math.min(w, h);
        int least = Math.max(LEAST_SIDE, (int) (SMALLEST_SIDE * shorter));
        for (double side = LARGEST_SIDE * shorter; side >= least; side /= SHRINK) {
            slide(small, w, h, (int) side, windows);
        }
        List<Face> faces = new ArrayList<>();
        for (Face face : merged(windows)) {
            faces.add(new Face(
                    Math.max(0, face.left * factor),
                    Math.max(0, face.top * factor),
                    Math.min(width, face.right * factor),
                    Math.min(height, face.bottom * factor),
                    face.probability,
                    face.windows));
        }
        return faces;
    }

    private void slide(byte[] rgb, int width, int height, int side, List<Face> found) {
        int step = Math.max(1, (int) Math.round(STEP * side));
        byte[] square = new byte[3 * side * side];
        for (int y = 0; y + side <= height; y += step) {
            for (int x = 0; x + side <= width; x += step) {
                for (int row = 0; row < side; row++) {
                    System.arraycopy(rgb, 3 * ((y + row) * width + x), square, 3 * row * side, 3 * side);
                }
                float[] said = judge.judge(square, side);
                if (said[0] >= PROBABLE) {
                    found.add(new Face(
                            x + said[1] * side,
                            y + said[2] * side,
                            x + side + said[3] * side,
                            y + side + said[4] * side,
                            said[0],
                            1));
                }
            }
        }
    }

    /** Windows that overlap the surest one of a group are that group; its box is their mean, weighted by probability. */
    static List<Face> merged(List<Face> windows) {
        List<Face> left = new ArrayList<>(windows);
        left.sort(Comparator.comparingDouble((Face face) -> -face.probability));
        List<Face> faces = new ArrayList<>();
        while (!left.isEmpty()) {
            Face surest = left.get(0);
            List<Face> group = new ArrayList<>();
            List<Face> others = new ArrayList<>();
            for (Face face : left) {
                (surest.overlap(face) >= SAME ? group : others).add(face);
            }
            if (group.isEmpty()) { // a box without an area overlaps nothing, itself included
                others.remove(surest);
            } else if (group.size() >= AGREEING && surest.probability >= SURE) {
                faces.add(mean(group, surest.probability));
            }
            left = others;
        }
        faces.sort(Comparator.comparingInt((Face face) -> -face.windows));
        return Collections.unmodifiableList(faces);
    }

    private static Face mean(List<Face> group, double probability) {
        double[] box = new double[4];
        double sum = 0;
        for (Face face : group) {
            double[] edges = {face.left, face.top, face.right, face.bottom};
            for (int i = 0; i < 4; i++) {
                box[i] += face.probability * edges[i];
            }
            sum += face.probability;
        }
        return new Face(box[0] / sum, box[1] / sum, box[2] / sum, box[3] / sum, probability, group.size());
    }

    /** The picture made smaller by a whole factor: each pixel is the mean of {@code factor x factor}. */
    private static byte[] reduced(byte[] rgb, int width, int w, int h, int factor) {
        byte[] small = new byte[3 * w * h];
        int count = factor * factor;
        for (int y = 0; y < h; y++) {
            for (int x = 0; x < w; x++) {
                for (int c = 0; c < 3; c++) {
                    int sum = count / 2;
                    for (int dy = 0; dy < factor; dy++) {
                        for (int dx = 0; dx < factor; dx++) {
                            sum += rgb[3 * ((y * factor + dy) * width + x * factor + dx) + c] & 0xff;
                        }
                    }
                    small[3 * (y * w + x) + c] = (byte) (sum / count);
                }
            }
        }
        return small;
    }
}
