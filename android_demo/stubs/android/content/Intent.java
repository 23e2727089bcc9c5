package android.content;

import android.content.Context;
import android.net.Uri;
import android.os.Bundle;

public class Intent {
    public static final String ACTION_GET_CONTENT = "android.intent.action.GET_CONTENT";

    public static final String CATEGORY_OPENABLE = "android.intent.category.OPENABLE";

    public static final int FLAG_ACTIVITY_REORDER_TO_FRONT = 0x00020000;

    public Intent(String action) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Intent(Context context, Class<?> activity) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Intent setType(String type) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Intent addCategory(String category) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Intent addFlags(int flags) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Uri getData() {
        throw new UnsupportedOperationException("a declaration");
    }

    public Bundle getExtras() {
        throw new UnsupportedOperationException("a declaration");
    }

    public String getStringExtra(String name) {
        throw new UnsupportedOperationException("a declaration");
    }

    public boolean hasExtra(String name) {
        throw new UnsupportedOperationException("a declaration");
    }
}
