package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.util.Map;

public final class Interpreter implements AutoCloseable {
    public static class Options {
        public Options() {
            throw new UnsupportedOperationException("a declaration");
        }

        public Options setNumThreads(int threads) {
            throw new UnsupportedOperationException("a declaration");
        }
    }

    public Interpreter(ByteBuffer model, Options options) {
        throw new UnsupportedOperationException("a declaration");
    }

    public String[] getSignatureKeys() {
        throw new UnsupportedOperationException("a declaration");
    }

    public String[] getSignatureInputs(String signature) {
        throw new UnsupportedOperationException("a declaration");
    }

    public String[] getSignatureOutputs(String signature) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Tensor getInputTensorFromSignature(String name, String signature) {
        throw new UnsupportedOperationException("a declaration");
    }

    public Tensor getOutputTensorFromSignature(String name, String signature) {
        throw new UnsupportedOperationException("a declaration");
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signature) {
        throw new UnsupportedOperationException("a declaration");
    }

    @Override
    public void close() {
        throw new UnsupportedOperationException("a declaration");
    }
}
