package android.app;

import android.content.ContextWrapper;
import android.content.Intent;
import android.os.Bundle;
import android.view.View;

public class Activity extends ContextWrapper {
    public static final int RESULT_OK = -1;

    protected void onCreate(Bundle state) {
        throw new UnsupportedOperationException("a declaration");
    }

    protected void onDestroy() {
        throw new UnsupportedOperationException("a declaration");
    }

    protected void onNewIntent(Intent intent) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setIntent(Intent intent) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Intent getIntent() {
        throw new UnsupportedOperationException("a declaration");
    }

    public void setContentView(int layout) {
        throw new UnsupportedOperationException("a declaration");
    }

    public <T extends View> T findViewById(int id) {
        throw new UnsupportedOperationException("a declaration");
    }

    public final void runOnUiThread(Runnable action) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void startActivityForResult(Intent intent, int request) {
        throw new UnsupportedOperationException("a declaration");
    }

    protected void onActivityResult(int request, int result, Intent data) {
        throw new UnsupportedOperationException("a declaration");
    }

    public boolean isFinishing() {
        throw new UnsupportedOperationException("a declaration");
    }
}
