package pocketship.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.junit.Test;

public final class FaceFinderTest {
    /** Sure of a square whose middle is red and whose corners are not, if two fifths of it are red. */
    private static float[] red(byte[] rgb, int side) {
        int count = 0;
        for (int i = 0; i < rgb.length; i += 3) {
            count += rgb[i] != 0 ? 1 : 0;
        }
        int last = side - 1;
        boolean corners = rgb[0] != 0 || rgb[3 * last] != 0 || rgb[3 * side * last] != 0 || rgb[3 * (side * side - 1)] != 0;
        boolean middle = rgb[3 * (side / 2 * side + side / 2)] != 0;
        return new float[] {middle && !corners && 5 * count > 2 * side * side ? 0.99f : 0.1f, 0, 0, 0, 0};
    }

    private static byte[] picture(int width, int height, int left, int top, int side) {
        byte[] rgb = new byte[3 * width * height];
        for (int y = top; y < top + side; y++) {
            for (int x = left; x < left + side; x++) {
                rgb[3 * (y * width + x)] = (byte) 255;
            }
        }
        return rgb;
    }

    private static void assertFound(int width, int height, int left, int top, int side) {
        List<Face> faces = new FaceFinder(FaceFinderTest::red).find(picture(width, height, left, top, side), width, height);
        assertEquals(1, faces.size());
        Face wanted = new Face(left, top, left + side, top + side, 1, 1);
        assertTrue("overlap " + faces.get(0).overlap(wanted), faces.get(0).overlap(wanted) > 0.4);
    }

    @Test
    public void aSquareIsFoundWhereItIs() {
        assertFound(200, 160, 90, 40, 60);
        assertFound(160, 200, 20, 110, 60);
    }

    @Test
    public void aLargePictureIsMadeSmallerAndTheBoxIsInItsOwnPixels() {
        assertFound(1280, 960, 700, 300, 400);
    }

    @Test
    public void anEmptyPictureHasNone() {
        assertEquals(Collections.emptyList(), new FaceFinder(FaceFinderTest::red).find(new byte[3 * 64 * 64], 64, 64));
    }

    @Test
    public void onePixelIsSearchedWithoutAnError() {
        assertEquals(Collections.emptyList(), new FaceFinder(FaceFinderTest::red).find(new byte[3], 1, 1));
    }

    @Test
    public void theCorrectionMovesTheBox() {
        FaceFinder.Judge judge = (rgb, side) -> {
            float[] said = red(rgb, side);
            return new float[] {said[0], 0.5f, 0, 0.5f, 0};
        };
        Face plain = new FaceFinder(FaceFinderTest::red).find(picture(200, 160, 60, 40, 60), 200, 160).get(0);
        Face moved = new FaceFinder(judge).find(picture(200, 160, 60, 40, 60), 200, 160).get(0);
        assertTrue(moved.left > plain.left + 15);
        assertEquals(plain.top, moved.top, 3);
    }

    @Test
    public void windowsThatOverlapAreOneFaceAndALonelyOneIsNone() {
        Face a = new Face(0, 0, 10, 10, 0.99, 1);
        Face b = new Face(1, 0, 11, 10, 0.97, 1);
        Face c = new Face(0, 1, 10, 11, 0.96, 1);
        Face lonely = new Face(50, 50, 60, 60, 0.999, 1);
        List<Face> faces = FaceFinder.merged(Arrays.asList(a, lonely, b, c));
        assertEquals(1, faces.size());
        assertEquals(3, faces.get(0).windows);
        assertEquals(0.99, faces.get(0).probability, 1e-9);
        assertEquals((0.97 * 1) / (0.99 + 0.97 + 0.96), faces.get(0).left, 1e-9);
    }

    @Test
    public void agreementWithoutCertaintyIsNone() {
        Face a = new Face(0, 0, 10, 10, 0.9, 1);
        assertEquals(Collections.emptyList(), FaceFinder.merged(Arrays.asList(a, a, a, a)));
    }

    @Test
    public void boxesWithoutAnAreaEndTheSearch() {
        Face empty = new Face(5, 5, 5, 5, 0.99, 1);
        assertEquals(Collections.emptyList(), FaceFinder.merged(Arrays.asList(empty, empty, empty)));
    }

    @Test
    public void bytesThatAreNoPictureAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> new FaceFinder(FaceFinderTest::red).find(new byte[5], 2, 1));
    }
}
