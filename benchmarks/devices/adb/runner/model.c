#include "model.h"

static const OrtApi *ort;
static const OrtApiBase *base;
static OrtEnv *environment;
enum { FREE_AXIS = 16 };
static OrtMemoryInfo *memory;

bool fail(Failure *failure, const char *cause, const char *format, ...) {
    va_list values;
    va_start(values, format);
    failure->cause = cause;
    vsnprintf(failure->detail, sizeof failure->detail, format, values);
    va_end(values);
    for (char *c = failure->detail; *c; c++)
        if (*c == '\n' || *c == '\t') *c = ' ';
    return false;
}

/* Whether a call of ONNX Runtime succeeded. */
static bool fine(OrtStatus *status, Failure *failure, const char *doing) {
    if (!status) return true;
    const char *message = ort->GetErrorMessage(status);
    bool memory_out = strstr(message, "bad_alloc") || strstr(message, "Failed to allocate memory");
    fail(failure, memory_out ? "out-of-memory" : "refused", "onnxruntime cannot %s: %s", doing, message);
    ort->ReleaseStatus(status);
    return false;
}

bool runtime_open(const char *library, Failure *failure) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return fail(failure, "refused", "onnxruntime's library cannot be loaded: %s", dlerror());
    const OrtApiBase *(*get_base)(void);
    void *symbol = dlsym(handle, "OrtGetApiBase");
    if (!symbol) return fail(failure, "refused", "%s is no onnxruntime", library);
    memcpy(&get_base, &symbol, sizeof symbol);
    base = get_base();
    ort = base->GetApi(OLDEST_API);
    if (!ort) return fail(failure, "refused", "onnxruntime %s is too old", base->GetVersionString());
    return fine(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "pocketship", &environment), failure, "start") &&
           fine(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), failure, "start");
}

const char *runtime_version(void) { return base->GetVersionString(); }

static bool port_of(Model *model, bool input, size_t index, Port *port, Failure *failure) {
    OrtAllocator *allocator;
    OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType dtype;
    const char *doing = "tell its inputs and outputs";
    if (!fine(ort->GetAllocatorWithDefaultOptions(&allocator), failure, doing)) return false;
    if (!fine(input ? ort->SessionGetInputName(model->session, index, allocator, &port->name)
                    : ort->SessionGetOutputName(model->session, index, allocator, &port->name), failure, doing) ||
        !fine(input ? ort->SessionGetInputTypeInfo(model->session, index, &type)
                    : ort->SessionGetOutputTypeInfo(model->session, index, &type), failure, doing))
        return false;
    bool told = fine(ort->CastTypeInfoToTensorInfo(type, &info), failure, doing);
    if (told && info) {
        told = fine(ort->GetTensorElementType(info, &dtype), failure, doing) &&
               fine(ort->GetDimensionsCount(info, &port->rank), failure, doing);
        if (told && port->rank <= MOST_AXES) {
            told = fine(ort->GetDimensions(info, port->shape, port->rank), failure, doing);
            port->dtype = dtype_of_ort(dtype);
        }
    }
    ort->ReleaseTypeInfo(type);
    return told;
}

static bool open_session(Model *model, const char *path, int threads, const char *profile, Failure *failure) {
    OrtSessionOptions *options;
    if (!fine(ort->CreateSessionOptions(&options), failure, "start")) return false;
    bool loaded = fine(ort->SetIntraOpNumThreads(options, threads), failure, "set its threads") &&
                  (!profile || fine(ort->EnableProfiling(options, profile), failure, "profile it")) &&
                  fine(ort->CreateSession(environment, path, options, &model->session), failure, "load it");
    ort->ReleaseSessionOptions(options);
    return loaded;
}

bool model_load(Model *model, const char *path, int threads, const char *profile, Failure *failure) {
    memset(model, 0, sizeof *model);
    if (!open_session(model, path, threads, profile, failure)) return false;
    if (!fine(ort->SessionGetInputCount(model->session, &model->input_count), failure, "tell its inputs") ||
        !fine(ort->SessionGetOutputCount(model->session, &model->output_count), failure, "tell its outputs"))
        return false;
    if (model->input_count > MOST_PORTS || model->output_count > MOST_PORTS)
        return fail(failure, "refused", "it has more than %d inputs or outputs", MOST_PORTS);
    for (size_t i = 0; i < model->input_count; i++) {
        if (!port_of(model, true, i, &model->inputs[i], failure)) return false;
        if (!model->inputs[i].dtype)
            return fail(failure, "refused", "input %s is of a type that no array has", model->inputs[i].name);
        model->input_names[i] = model->inputs[i].name;
    }
    for (size_t i = 0; i < model->output_count; i++) {
        if (!port_of(model, false, i, &model->outputs[i], failure)) return false;
        model->output_names[i] = model->outputs[i].name;
    }
    return true;
}

bool model_profile(Model *model, char **path, Failure *failure) {
    OrtAllocator *allocator;
    return fine(ort->GetAllocatorWithDefaultOptions(&allocator), failure, "profile it") &&
           fine(ort->SessionEndProfiling(model->session, allocator, path), failure, "profile it");
}

static void release_computed(Model *model) {
    for (size_t i = 0; i < model->output_count; i++) {
        if (model->computed[i]) ort->ReleaseValue(model->computed[i]);
        model->computed[i] = NULL;
    }
}

void model_close(Model *model) {
    release_computed(model);
    for (size_t i = 0; i < model->input_count; i++)
        if (model->fed[i]) ort->ReleaseValue(model->fed[i]);
    ort->ReleaseSession(model->session);
    memset(model, 0, sizeof *model);
}

/* --- inputs ------------------------------------------------------------------------------------------------------ */

static void shape_text(char *text, size_t room, const int64_t *shape, size_t rank) {
    size_t at = (size_t)snprintf(text, room, "[");
    for (size_t i = 0; i < rank && at < room; i++) {
        const char *format = shape[i] < 0 ? "%s?" : "%s%lld";
        at += (size_t)snprintf(text + at, room - at, format, i ? ", " : "", (long long)shape[i]);
    }
    if (at < room) snprintf(text + at, room - at, "]");
}

static bool fits(const Port *port, const Tensor *tensor, Failure *failure) {
    bool same = port->rank == tensor->rank;
    for (size_t i = 0; same && i < port->rank; i++) same = port->shape[i] < 0 || port->shape[i] == tensor->shape[i];
    if (!same) {
        char wanted[128], given[128];
        shape_text(wanted, sizeof wanted, port->shape, port->rank);
        shape_text(given, sizeof given, tensor->shape, tensor->rank);
        return fail(failure, "refused", "input %s has shape %s, the artifact takes %s", port->name, given, wanted);
    }
    if (port->dtype != tensor->dtype)
        return fail(failure, "refused", "input %s is %s, the artifact takes %s", port->name, tensor->dtype->dtype,
                    port->dtype->dtype);
    return true;
}

/* The model owns `data` from now on: what is fed lives as long as the process. */
static bool feed_one(Model *model, size_t index, const Tensor *tensor, Failure *failure) {
    if (!fits(&model->inputs[index], tensor, failure)) return false;
    if (model->fed[index]) ort->ReleaseValue(model->fed[index]);
    model->fed[index] = NULL;
    ONNXTensorElementDataType type = (ONNXTensorElementDataType)tensor->dtype->ort;
    return fine(ort->CreateTensorWithDataAsOrtValue(memory, tensor->data, tensor->size_bytes, tensor->shape,
                                                    tensor->rank, type, &model->fed[index]),
                failure, "take its inputs");
}

static Tensor rows_of(const Tensor *tensor, size_t from, size_t rows, size_t end, unsigned char *data) {
    Tensor part = *tensor;
    size_t row_bytes = tensor->size_bytes / (size_t)tensor->shape[0];
    part.shape[0] = (int64_t)rows;
    part.size_bytes = row_bytes * rows;
    part.data = data;
    for (size_t i = 0; i < rows; i++) {
        size_t row = from + i < end ? from + i : end - 1;
        memcpy(data + i * row_bytes, tensor->data + row * row_bytes, row_bytes);
    }
    return part;
}

bool model_feed(Model *model, const Tensors *tensors, const char *prefix, size_t from, size_t rows, size_t end,
                Failure *failure) {
    static unsigned char *rooms[MOST_PORTS];
    for (size_t i = 0; i < model->input_count; i++) {
        Text name = {0};
        text_add(&name, "%s%s", prefix, model->inputs[i].name);
        const Tensor *tensor = tensors_get(tensors, name.bytes);
        free(name.bytes);
        if (!tensor && !*prefix && model->input_count == 1 && tensors->count == 1) tensor = &tensors->items[0];
        if (!tensor) return fail(failure, "refused", "no value for input %s", model->inputs[i].name);
        Tensor part = *tensor;
        if (rows) {
            if (!tensor->rank || !tensor->size_bytes || (size_t)tensor->shape[0] < end)
                return fail(failure, "refused", "input %s has no rows to make a batch of", model->inputs[i].name);
            rooms[i] = grown(rooms[i], tensor->size_bytes / (size_t)tensor->shape[0] * rows);
            part = rows_of(tensor, from, rows, end, rooms[i]);
        }
        if (!feed_one(model, i, &part, failure)) return false;
    }
    return true;
}

static uint64_t next_random(uint64_t *state) {  /* splitmix64 (Steele, Lea, Flood 2014) */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fill_random(Tensor *tensor, uint64_t *state) {
    for (size_t i = 0; i < tensor->size_bytes / tensor->dtype->size_bytes; i++) {
        uint64_t random = next_random(state);
        double share = (double)(random >> 11) / 9007199254740992.0;
        float single = (float)share;
        unsigned char *to = tensor->data + i * tensor->dtype->size_bytes;
        memset(to, 0, tensor->dtype->size_bytes);
        if (!strcmp(tensor->dtype->dtype, "float32"))
            memcpy(to, &single, sizeof single);
        else if (!strcmp(tensor->dtype->dtype, "float64"))
            memcpy(to, &share, sizeof share);
        else if (!strcmp(tensor->dtype->dtype, "float16"))
            to[1] = 0x38 | (random & 3), to[0] = (unsigned char)(random >> 8);  /* 0.5 to 1 */
        else
            to[0] = 1;
    }
}

bool model_feed_random(Model *model, size_t rows, uint64_t seed, Failure *failure) {
    for (size_t i = 0; i < model->input_count; i++) {
        const Port *port = &model->inputs[i];
        Tensor tensor = {.name = port->name, .dtype = port->dtype, .rank = port->rank};
        for (size_t axis = 0; axis < port->rank; axis++)
            tensor.shape[axis] = port->shape[axis] >= 0 ? port->shape[axis] : axis ? FREE_AXIS : 1;
        if (rows && port->rank) tensor.shape[0] = (int64_t)rows;
        tensor.size_bytes = elements(tensor.shape, tensor.rank) * port->dtype->size_bytes;
        tensor.data = grown(NULL, tensor.size_bytes);
        fill_random(&tensor, &seed);
        if (!feed_one(model, i, &tensor, failure)) return false;
    }
    return true;
}

/* --- runs -------------------------------------------------------------------------------------------------------- */

static OrtStatus *run(Model *model) {
    return ort->Run(model->session, NULL, model->input_names, (const OrtValue *const *)model->fed, model->input_count,
                    model->output_names, model->output_count, model->computed);
}

bool model_run(Model *model, Failure *failure) {
    release_computed(model);
    return fine(run(model), failure, "run it");
}

bool model_time(Model *model, size_t count, int64_t *times_ns, Failure *failure) {
    for (size_t i = 0; i < count; i++) {
        release_computed(model);
        int64_t started = now_ns();
        OrtStatus *status = run(model);
        times_ns[i] = now_ns() - started;
        if (status) return fine(status, failure, "run it");
    }
    return true;
}

/* One output; true where it was left out for having no row a sample. */
static bool output_text(const Model *model, size_t index, Text *text, size_t batch, size_t rows, bool *left_out,
                        Failure *failure) {
    OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType type;
    int64_t shape[MOST_AXES];
    size_t rank;
    void *data;
    const char *name = model->output_names[index], *doing = "tell its outputs";
    int is_tensor = 0;
    *left_out = false;
    if (!fine(ort->IsTensor(model->computed[index], &is_tensor), failure, doing)) return false;
    if (!is_tensor) return fail(failure, "refused", "output %s is no tensor", name);
    if (!fine(ort->GetTensorTypeAndShape(model->computed[index], &info), failure, doing)) return false;
    bool told = fine(ort->GetTensorElementType(info, &type), failure, doing) &&
                fine(ort->GetDimensionsCount(info, &rank), failure, doing);
    if (told && rank > MOST_AXES) told = fail(failure, "refused", "output %s has more than %d axes", name, MOST_AXES);
    told = told && fine(ort->GetDimensions(info, shape, rank), failure, doing) &&
           fine(ort->GetTensorMutableData(model->computed[index], &data), failure, doing);
    ort->ReleaseTensorTypeAndShapeInfo(info);
    if (!told) return false;
    const Dtype *dtype = dtype_of_ort(type);
    if (!dtype) return fail(failure, "refused", "output %s is of a type that no array has", name);
    if (rows) {
        *left_out = !rank || shape[0] != (int64_t)batch;
        if (*left_out) return true;
        shape[0] = (int64_t)rows;
    }
    text_string(text, name);
    text_add(text, ":{\"dtype\":\"%s\",\"shape\":", dtype->dtype);
    text_numbers(text, shape, rank);
    text_add(text, ",\"data\":\"");
    text_base64(text, data, elements(shape, rank) * dtype->size_bytes);
    text_add(text, "\"}");
    return true;
}

bool model_outputs(Model *model, Text *text, size_t batch, size_t rows, Failure *failure) {
    size_t told = 0;
    text_add(text, "{");
    for (size_t i = 0; i < model->output_count; i++) {
        Text output = {0};
        bool left_out, fine_so_far = output_text(model, i, &output, batch, rows, &left_out, failure);
        if (fine_so_far && !left_out) {
            if (told++) text_add(text, ",");
            text_bytes(text, output.bytes, output.length);
        }
        free(output.bytes);
        if (!fine_so_far) return false;
    }
    text_add(text, "}");
    return told || fail(failure, "refused", "no output has a row a sample");
}
