package android.content.res;

public class Resources {
    public String getString(int id, Object... arguments) {
        throw new UnsupportedOperationException("a declaration");
    }
}
