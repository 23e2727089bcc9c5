package pocketship.demo;

import android.app.Activity;
import android.content.Intent;
import android.widget.Button;

/** The row of buttons that leads from one screen to another. */
final class Screens {
    private Screens() {}

    /** Make the row work on a screen, whose own button is {@code here}. */
    static void connect(Activity activity, int here) {
        connect(activity, here, R.id.tab_sentences, SentencesActivity.class);
        connect(activity, here, R.id.tab_face, FaceActivity.class);
        connect(activity, here, R.id.tab_bench, BenchActivity.class);
    }

    private static void connect(Activity activity, int here, int tab, Class<? extends Activity> screen) {
        Button button = activity.findViewById(tab);
        button.setEnabled(tab != here);
        button.setOnClickListener(view ->
                activity.startActivity(new Intent(activity, screen).addFlags(Intent.FLAG_ACTIVITY_REORDER_TO_FRONT)));
    }
}
