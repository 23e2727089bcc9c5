package pocketship.demo;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.net.Uri;
import android.os.Bundle;
import android.provider.MediaStore;
import android.widget.Button;
import android.widget.ImageView;
import android.widget.TextView;
import java.io.IOException;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import pocketship.rnet.AndroidAssets;
import pocketship.rnet.Bitmaps;
import pocketship.rnet.ModelException;
import pocketship.rnet.Pixels;
import pocketship.rnet.Rnet;
import pocketship.rnet.SelfTest;

/** A picture, and a frame around each face in it. */
public final class FaceActivity extends Activity {
    private static final int TAKE = 1;
    private static final int CHOOSE = 2;
    private static final int FRAME = 0xFF00C853;
    private static final int FACE = Rnet.CLASSES_LABELS.indexOf("face");

    private final ExecutorService worker = Executors.newSingleThreadExecutor();
    private final Latency latency = new Latency();
    private Figures figures;
    private Rnet model; // of the worker alone

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.face);
        Screens.connect(this, R.id.tab_face);
        figures = new Figures(this, liteRt -> worker.execute(() -> load(liteRt)));
        Button take = findViewById(R.id.take);
        take.setOnClickListener(view -> ask(new Intent(MediaStore.ACTION_IMAGE_CAPTURE), TAKE));
        Button choose = findViewById(R.id.choose);
        choose.setOnClickListener(view ->
                ask(new Intent(Intent.ACTION_GET_CONTENT).setType("image/*").addCategory(Intent.CATEGORY_OPENABLE), CHOOSE));
    }

    private void ask(Intent intent, int request) {
        try {
            startActivityForResult(intent, request);
        } catch (ActivityNotFoundException error) {
            say("No app on this phone does that.");
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        if (result != RESULT_OK || data == null) {
            return;
        }
        if (request == TAKE && data.getExtras() != null) { // the camera app's small picture: a face needs no more
            Bitmap picture = (Bitmap) data.getExtras().get("data");
            worker.execute(() -> find(picture));
        } else if (request == CHOOSE && data.getData() != null) {
            Uri uri = data.getData();
            worker.execute(() -> {
                try {
                    find(Pictures.read(getContentResolver(), uri));
                } catch (IOException error) {
                    say("This picture cannot be read: " + error.getMessage());
                }
            });
        }
    }

    private void load(boolean liteRt) {
        try {
            close();
            Rnet.Runtime runtime = liteRt ? Rnet.Runtime.LITERT : Rnet.Runtime.ONNX;
            model = Rnet.create(new AndroidAssets(this), runtime, 1);
            latency.clear();
            figures.showModel(runtime.file, runtime.sizeBytes, runtime.precision, model.runtimeVersion());
            figures.showLatency(latency);
            SelfTest found = model.selfTest();
            figures.showParity(found.maxAbsError, found.samples, found.passed, runtime.exportedMaxAbsError);
        } catch (IOException | ModelException error) {
            figures.showFailure(error);
        }
    }

    private void find(Bitmap picture) {
        if (model == null || picture == null) {
            return;
        }
        Pixels pixels = Bitmaps.pixels(picture);
        long started = System.nanoTime();
        List<Face> faces = new FaceFinder(this::judge).find(pixels.rgb, pixels.width, pixels.height);
        double seconds = (System.nanoTime() - started) / 1e9;
        Bitmap framed = framed(picture, faces);
        figures.showLatency(latency);
        String what = faces.isEmpty() ? "No face found" : faces.size() == 1 ? "One face found" : faces.size() + " faces found";
        runOnUiThread(() -> {
            ImageView view = findViewById(R.id.picture);
            view.setImageBitmap(framed);
        });
        say(String.format(Locale.ROOT, "%s in %.2f s.", what, seconds));
    }

    private float[] judge(byte[] rgb, int side) {
        long started = System.nanoTime();
        Rnet.Prediction found = model.predict(new Pixels(side, side, rgb));
        latency.add(System.nanoTime() - started);
        float[] box = found.box;
        return new float[] {found.classes.scores[FACE], box[0], box[1], box[2], box[3]};
    }

    private static Bitmap framed(Bitmap picture, List<Face> faces) {
        Bitmap copy = picture.copy(Bitmap.Config.ARGB_8888, true);
        Canvas canvas = new Canvas(copy);
        Paint paint = new Paint(Paint.ANTI_ALIAS_FLAG);
        paint.setStyle(Paint.Style.STROKE);
        paint.setStrokeWidth(Math.max(2, Math.max(copy.getWidth(), copy.getHeight()) / 120f));
        paint.setColor(FRAME);
        for (Face face : faces) {
            canvas.drawRect((float) face.left, (float) face.top, (float) face.right, (float) face.bottom, paint);
        }
        return copy;
    }

    private void say(String line) {
        runOnUiThread(() -> {
            TextView found = findViewById(R.id.found);
            found.setText(line);
        });
    }

    private void close() {
        if (model != null) {
            model.close();
            model = null;
        }
    }

    @Override
    protected void onDestroy() {
        worker.execute(this::close);
        worker.shutdown();
        super.onDestroy();
    }
}
