/* The loop that a C programmer would write: load a model in ONNX Runtime, run it, print how long each run took.
 *
 *     ort_loop LIBRARY MODEL THREADS INPUT...
 *
 * Each INPUT is a raw file of the values of the model's input with that number. A line of stdin is a number of runs;
 * they are answered with a line of their times in ns. It ends with stdin.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "onnxruntime_c_api.h"

enum { MOST_INPUTS = 16, MOST_OUTPUTS = 16, MOST_AXES = 8 };

static const OrtApi *ort;

static void stop(const char *what, const char *why) {
    fprintf(stderr, "ort_loop: %s: %s\n", what, why);
    exit(1);
}

static void check(OrtStatus *status, const char *what) {
    if (status) stop(what, ort->GetErrorMessage(status));
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static OrtValue *read_input(OrtSession *session, size_t index, OrtMemoryInfo *memory, const char *path) {
    OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType dtype;
    size_t rank;
    int64_t shape[MOST_AXES];
    check(ort->SessionGetInputTypeInfo(session, index, &type), "input");
    check(ort->CastTypeInfoToTensorInfo(type, &info), "input");
    check(ort->GetTensorElementType(info, &dtype), "input");
    check(ort->GetDimensionsCount(info, &rank), "input");
    if (rank > MOST_AXES) stop(path, "too many axes");
    check(ort->GetDimensions(info, shape, rank), "input");
    FILE *file = fopen(path, "rb");
    if (!file) stop(path, "cannot be opened");
    fseek(file, 0, SEEK_END);
    size_t size_bytes = (size_t)ftell(file);
    rewind(file);
    void *data = aligned_alloc(64, (size_bytes + 63) / 64 * 64);
    if (!data || fread(data, 1, size_bytes, file) != size_bytes) stop(path, "cannot be read");
    fclose(file);
    OrtValue *value;
    check(ort->CreateTensorWithDataAsOrtValue(memory, data, size_bytes, shape, rank, dtype, &value), path);
    ort->ReleaseTypeInfo(type);
    return value;
}

int main(int argc, char **argv) {
    if (argc < 5) stop("usage", "ort_loop LIBRARY MODEL THREADS INPUT...");
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) stop(argv[1], dlerror());
    const OrtApiBase *(*get_base)(void);
    *(void **)&get_base = dlsym(library, "OrtGetApiBase");
    if (!get_base) stop(argv[1], "no onnxruntime");
    ort = get_base()->GetApi(ORT_API_VERSION);
    if (!ort) stop(get_base()->GetVersionString(), "older than the header");

    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    OrtAllocator *allocator;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "ort_loop", &env), "environment");
    check(ort->CreateSessionOptions(&options), "options");
    check(ort->SetIntraOpNumThreads(options, atoi(argv[3])), "threads");
    check(ort->CreateSession(env, argv[2], options, &session), argv[2]);
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "memory");
    check(ort->GetAllocatorWithDefaultOptions(&allocator), "allocator");

    size_t inputs, outputs;
    char *input_names[MOST_INPUTS], *output_names[MOST_OUTPUTS];
    OrtValue *fed[MOST_INPUTS], *computed[MOST_OUTPUTS] = {0};
    check(ort->SessionGetInputCount(session, &inputs), "inputs");
    check(ort->SessionGetOutputCount(session, &outputs), "outputs");
    if (inputs > MOST_INPUTS || outputs > MOST_OUTPUTS || inputs != (size_t)argc - 4) stop(argv[2], "other inputs");
    for (size_t i = 0; i < inputs; i++) {
        check(ort->SessionGetInputName(session, i, allocator, &input_names[i]), "inputs");
        fed[i] = read_input(session, i, memory, argv[4 + i]);
    }
    for (size_t i = 0; i < outputs; i++)
        check(ort->SessionGetOutputName(session, i, allocator, &output_names[i]), "outputs");

    long runs;
    while (scanf("%ld", &runs) == 1 && runs > 0) {
        int64_t *times_ns = malloc((size_t)runs * sizeof *times_ns);
        if (!times_ns) stop("times", "out of memory");
        for (long run = 0; run < runs; run++) {
            int64_t started = now_ns();
            OrtStatus *status = ort->Run(session, NULL, (const char *const *)input_names, (const OrtValue *const *)fed,
                                         inputs, (const char *const *)output_names, outputs, computed);
            times_ns[run] = now_ns() - started;
            check(status, "run");
            for (size_t i = 0; i < outputs; i++) {
                ort->ReleaseValue(computed[i]);
                computed[i] = NULL;
            }
        }
        for (long run = 0; run < runs; run++) printf("%lld%c", (long long)times_ns[run], run + 1 < runs ? ' ' : '\n');
        fflush(stdout);
        free(times_ns);
    }
    return 0;
}
