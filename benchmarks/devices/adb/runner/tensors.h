/* Tensors in a file: safetensors' layout (8 bytes of length, a header in JSON, raw little-endian data). */
#ifndef POCKETSHIP_TENSORS_H
#define POCKETSHIP_TENSORS_H

#include "text.h"

enum { MOST_AXES = 8 };

typedef struct {
    const char *dtype;    /* numpy's name */
    const char *stored;   /* safetensors' name */
    int ort;              /* ONNXTensorElementDataType */
    size_t size_bytes;
} Dtype;

typedef struct {
    const char *name;
    const Dtype *dtype;
    size_t rank;
    int64_t shape[MOST_AXES];
    unsigned char *data;
    size_t size_bytes;
} Tensor;

typedef struct {
    Tensor *items;
    size_t count;
} Tensors;

const Dtype *dtype_of_ort(int ort);
/* How many elements, or 0 where an axis is empty. */
size_t elements(const int64_t *shape, size_t rank);

/* All tensors of a file; "" or one line that says why they cannot be read. */
const char *tensors_read(const char *path, Tensors *tensors);
const Tensor *tensors_get(const Tensors *tensors, const char *name);

#endif
