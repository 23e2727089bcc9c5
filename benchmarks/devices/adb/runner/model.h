/* An ONNX file in ONNX Runtime, reached through dlopen, so that one binary serves every version from 1.16 on. */
#ifndef POCKETSHIP_MODEL_H
#define POCKETSHIP_MODEL_H

#include "onnxruntime_c_api.h"
#include "tensors.h"

enum { OLDEST_API = 16, MOST_PORTS = 64 };

typedef struct {
    char *name;
    const Dtype *dtype; /* NULL for what is no tensor, or of a type that numpy lacks */
    size_t rank;
    int64_t shape[MOST_AXES]; /* -1: a free axis */
} Port;

typedef struct {
    OrtSession *session;
    size_t input_count, output_count;
    Port inputs[MOST_PORTS], outputs[MOST_PORTS];
    const char *input_names[MOST_PORTS], *output_names[MOST_PORTS];
    OrtValue *fed[MOST_PORTS], *computed[MOST_PORTS];
} Model;

/* Why something failed: `cause` is one of the causes of docs/results.md, NULL where nothing did. */
typedef struct {
    const char *cause;
    char detail[512];
} Failure;

bool fail(Failure *failure, const char *cause, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Load the library; its version afterwards. Each function is false and fills in `failure` where it fails. */
bool runtime_open(const char *library, Failure *failure);
const char *runtime_version(void);

/* With `profile`, the start of a path, the session keeps a profile of its runs. */
bool model_load(Model *model, const char *path, int threads, const char *profile, Failure *failure);
/* End the profile: where it lies. */
bool model_profile(Model *model, char **path, Failure *failure);
void model_close(Model *model);

/* Feed the tensors that are named as the inputs are: as they are where `rows` is 0, else `rows` rows of their first
   axis from row `from` on, row `end` - 1 again and again behind it. */
bool model_feed(Model *model, const Tensors *tensors, const char *prefix, size_t from, size_t rows, size_t end,
                Failure *failure);
/* Feed seeded numbers from 0 to 1 and, as integers, which are indices and masks, 1; free axes are 16, the first is 1,
   or `rows` where that is not 0. */
bool model_feed_random(Model *model, size_t rows, uint64_t seed, Failure *failure);

bool model_run(Model *model, Failure *failure);
/* Run `count` times: how long each took goes to `times_ns`. Between the two looks at the clock there is the inference
   alone; outputs are released after the second. */
bool model_time(Model *model, size_t count, int64_t *times_ns, Failure *failure);
/* The outputs of the last run: {name: {dtype, shape, data}}; with `rows`, the first `rows` of those outputs that have
   `batch` of them, and false where none has. */
bool model_outputs(Model *model, Text *text, size_t batch, size_t rows, Failure *failure);

#endif
