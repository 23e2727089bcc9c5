package pocketship.demo;

/** Which runtimes this APK has: one that was built without LiteRT's library says so, and goes on. */
final class Runtimes {
    private Runtimes() {}

    static boolean hasLiteRt() {
        return has("org.tensorflow.lite.Interpreter");
    }

    static boolean has(String name) {
        try {
            Class.forName(name);
            return true;
        } catch (ClassNotFoundException error) {
            return false;
        }
    }
}
