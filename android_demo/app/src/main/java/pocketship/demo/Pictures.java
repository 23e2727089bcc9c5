package pocketship.demo;

import android.content.ContentResolver;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.graphics.Matrix;
import android.media.ExifInterface;
import android.net.Uri;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Reads a picture that the user chose, small enough for the screen and the right way up. */
final class Pictures {
    private static final int LONGEST = 1280;

    private Pictures() {}

    static Bitmap read(ContentResolver resolver, Uri uri) throws IOException {
        byte[] file = content(resolver, uri);
        BitmapFactory.Options options = new BitmapFactory.Options();
        options.inJustDecodeBounds = true;
        BitmapFactory.decodeByteArray(file, 0, file.length, options);
        options.inJustDecodeBounds = false;
        options.inSampleSize = sampling(Math.max(options.outWidth, options.outHeight));
        Bitmap picture = BitmapFactory.decodeByteArray(file, 0, file.length, options);
        if (picture == null) {
            throw new IOException("it is no picture that Android knows");
        }
        int orientation = new ExifInterface(new ByteArrayInputStream(file))
                .getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL);
        Matrix matrix = new Matrix();
        if (mirrored(orientation)) {
            matrix.postScale(-1, 1);
        }
        matrix.postRotate(degrees(orientation));
        return Bitmap.createBitmap(picture, 0, 0, picture.getWidth(), picture.getHeight(), matrix, true);
    }

    private static byte[] content(ContentResolver resolver, Uri uri) throws IOException {
        try (InputStream stream = resolver.openInputStream(uri)) {
            if (stream == null) {
                throw new IOException("the app that has it does not answer");
            }
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            byte[] part = new byte[1 << 16];
            for (int count = stream.read(part); count >= 0; count = stream.read(part)) {
                content.write(part, 0, count);
            }
            return content.toByteArray();
        }
    }

    /** The power of two by which a side is to be divided. */
    static int sampling(int side) {
        int factor = 1;
        while (side / factor > LONGEST) {
            factor *= 2;
        }
        return factor;
    }

    /** EXIF's orientations 2, 4, 5 and 7 are mirrored; the turn comes after. */
    static boolean mirrored(int orientation) {
        return orientation == 2 || orientation == 4 || orientation == 5 || orientation == 7;
    }

    static int degrees(int orientation) {
        switch (orientation) {
            case 3:
            case 4:
                return 180;
            case 5:
            case 8:
                return 270;
            case 6:
            case 7:
                return 90;
            default:
                return 0;
        }
    }
}
