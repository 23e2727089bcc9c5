#include "tensors.h"

#include "onnxruntime_c_api.h"

static const Dtype DTYPES[] = {
    {"float32", "F32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4},
    {"float16", "F16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2},
    {"float64", "F64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8},
    {"int8", "I8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1},
    {"int16", "I16", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, 2},
    {"int32", "I32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},
    {"int64", "I64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},
    {"uint8", "U8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1},
    {"uint16", "U16", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, 2},
    {"uint32", "U32", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, 4},
    {"uint64", "U64", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, 8},
    {"bool", "BOOL", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1},
};

enum { DTYPE_COUNT = sizeof DTYPES / sizeof *DTYPES };

const Dtype *dtype_of_ort(int ort) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (DTYPES[i].ort == ort) return &DTYPES[i];
    return NULL;
}

static const Dtype *dtype_of_stored(const char *stored) {
    for (size_t i = 0; stored && i < DTYPE_COUNT; i++)
        if (!strcmp(DTYPES[i].stored, stored)) return &DTYPES[i];
    return NULL;
}

size_t elements(const int64_t *shape, size_t rank) {
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) count *= (size_t)shape[i];
    return count;
}

static bool tensor_of(const char *name, const Json *entry, unsigned char *data, size_t room, Tensor *tensor) {
    const Json *shape = json_get(entry, "shape"), *offsets = json_get(entry, "data_offsets");
    *tensor = (Tensor){.name = name, .dtype = dtype_of_stored(json_string(entry, "dtype"))};
    if (!tensor->dtype || !shape || shape->kind != JSON_ARRAY || shape->count > MOST_AXES) return false;
    if (!offsets || offsets->kind != JSON_ARRAY || offsets->count != 2) return false;
    tensor->rank = shape->count;
    for (size_t i = 0; i < shape->count; i++) {
        if (!(shape->items[i].number >= 0 && shape->items[i].number < 1 << 30)) return false;
        tensor->shape[i] = (int64_t)shape->items[i].number;
    }
    double begin = offsets->items[0].number, end = offsets->items[1].number;
    if (!(begin >= 0 && begin <= end && end <= (double)room)) return false;
    tensor->data = data + (size_t)begin;
    tensor->size_bytes = (size_t)(end - begin);
    return tensor->size_bytes == elements(tensor->shape, tensor->rank) * tensor->dtype->size_bytes;
}

const char *tensors_read(const char *path, Tensors *tensors) {
    Text file = {0};
    *tensors = (Tensors){0};
    if (!text_read(&file, path)) return "its inputs cannot be read";
    uint64_t header;
    if (file.length < sizeof header) return "its inputs are cut off";
    memcpy(&header, file.bytes, sizeof header);
    if (header > file.length - sizeof header) return "its inputs are cut off";
    Json names;
    if (!json_read(file.bytes + sizeof header, header, &names) || names.kind != JSON_OBJECT)
        return "its inputs have no header";
    size_t start = sizeof header + header;
    tensors->items = grown(NULL, names.count * sizeof *tensors->items);
    for (size_t i = 0; i < names.count; i++) {
        unsigned char *data = (unsigned char *)file.bytes + start;
        if (!tensor_of(names.keys[i], &names.items[i], data, file.length - start, &tensors->items[i]))
            return "its inputs are damaged";
        tensors->count++;
    }
    return "";
}

const Tensor *tensors_get(const Tensors *tensors, const char *name) {
    for (size_t i = 0; i < tensors->count; i++)
        if (!strcmp(tensors->items[i].name, name)) return &tensors->items[i];
    return NULL;
}
