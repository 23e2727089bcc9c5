package android.content;

import android.content.res.AssetManager;
import android.content.res.Resources;
import java.io.File;

public class ContextWrapper extends Context {
    @Override
    public AssetManager getAssets() {
        throw new UnsupportedOperationException("a declaration");
    }

    @Override
    public Resources getResources() {
        throw new UnsupportedOperationException("a declaration");
    }

    @Override
    public ContentResolver getContentResolver() {
        throw new UnsupportedOperationException("a declaration");
    }

    @Override
    public File getExternalFilesDir(String type) {
        throw new UnsupportedOperationException("a declaration");
    }

    @Override
    public File getCacheDir() {
        throw new UnsupportedOperationException("a declaration");
    }

    @Override
    public void startActivity(Intent intent) {
        throw new UnsupportedOperationException("a declaration");
    }
}
