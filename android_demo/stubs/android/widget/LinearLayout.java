package android.widget;

import android.view.View;

public class LinearLayout extends View {

}
