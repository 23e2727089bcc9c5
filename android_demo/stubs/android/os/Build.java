package android.os;

public class Build {
    public static final String MANUFACTURER = unknown();

    public static final String MODEL = unknown();

    public static final String HARDWARE = unknown();

    public static final String FINGERPRINT = unknown();

    public static final String[] SUPPORTED_ABIS = {unknown()};

    private static String unknown() {
        throw new UnsupportedOperationException("a declaration");
    }

    public static class VERSION {
        public static final String RELEASE = unknown();
        public static final int SDK_INT = unknown().length();
    }
}
