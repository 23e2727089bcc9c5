/* Text that grows, files read whole, and a strict reader of JSON (RFC 8259). */
#ifndef POCKETSHIP_TEXT_H
#define POCKETSHIP_TEXT_H

#include "system.h"

typedef struct {
    char *bytes; /* ends in NUL */
    size_t length, room;
} Text;

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct Json {
    JsonKind kind;
    double number;
    char *string;
    size_t count; /* of an array's or an object's items */
    struct Json *items;
    char **keys;
} Json;

/* Memory or the end of the process: a bench without memory for its own few bytes has nothing to tell. */
void *grown(void *old, size_t bytes);

void text_clear(Text *text);
void text_bytes(Text *text, const void *bytes, size_t length);
__attribute__((format(printf, 2, 3))) void text_add(Text *text, const char *format, ...);
/* A string in JSON's quotes. */
void text_string(Text *text, const char *string);
/* Numbers in JSON's brackets. */
void text_numbers(Text *text, const int64_t *numbers, size_t count);
/* Bytes in base64, without quotes. */
void text_base64(Text *text, const unsigned char *bytes, size_t length);
/* Write it whole to a file descriptor; false where that is closed or full. */
bool text_write(const Text *text, int file);

/* The file's text into `text`; false where it cannot be read. */
bool text_read(Text *text, const char *path);

/* The value that `bytes` holds and nothing more; false for whatever is no JSON. */
bool json_read(const char *bytes, size_t length, Json *value);
/* The member of an object by its key, NULL where there is none. */
const Json *json_get(const Json *object, const char *key);
const char *json_string(const Json *object, const char *key);
/* A number, or `otherwise` where it is null or missing. */
double json_number(const Json *object, const char *key, double otherwise);

#endif
