package pocketship.demo;

/** A face: its box in the picture's pixels, and the model's probability. */
final class Face {
    final double left;
    final double top;
    final double right;
    final double bottom;
    final double probability;
    /** How many windows agreed on it. */
    final int windows;

    Face(double left, double top, double right, double bottom, double probability, int windows) {
        this.left = left;
        this.top = top;
        this.right = right;
        this.bottom = bottom;
        this.probability = probability;
        this.windows = windows;
    }

    /** The area that two boxes share, over the area that they cover together. */
    double overlap(Face other) {
        double width = Math.min(right, other.right) - Math.max(left, other.left);
        double height = Math.min(bottom, other.bottom) - Math.max(top, other.top);
        if (width <= 0 || height <= 0) {
            return 0;
        }
        double shared = width * height;
        return shared / (area() + other.area() - shared);
    }

    private double area() {
        return (right - left) * (bottom - top);
    }
}
