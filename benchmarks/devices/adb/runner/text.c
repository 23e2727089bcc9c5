#include "text.h"

enum { DEEPEST = 32 };

void *grown(void *old, size_t bytes) {
    void *memory = realloc(old, bytes ? bytes : 1);
    if (!memory) _exit(71);
    return memory;
}

void text_bytes(Text *text, const void *bytes, size_t length) {
    if (text->length + length + 1 > text->room) {
        text->room = (text->length + length + 1) * 2;
        text->bytes = grown(text->bytes, text->room);
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = 0;
}

void text_clear(Text *text) {
    text->length = 0;
    text_bytes(text, "", 0);
}

void text_add(Text *text, const char *format, ...) {
    va_list values;
    va_start(values, format);
    char small[512];
    va_list again;
    va_copy(again, values);
    int length = vsnprintf(small, sizeof small, format, values);
    if (length >= (int)sizeof small) {
        char *large = grown(NULL, (size_t)length + 1);
        vsnprintf(large, (size_t)length + 1, format, again);
        text_bytes(text, large, (size_t)length);
        free(large);
    } else if (length > 0) {
        text_bytes(text, small, (size_t)length);
    }
    va_end(again);
    va_end(values);
}

void text_string(Text *text, const char *string) {
    text_bytes(text, "\"", 1);
    for (const unsigned char *c = (const unsigned char *)string; *c; c++) {
        if (*c == '"' || *c == '\\')
            text_add(text, "\\%c", *c);
        else if (*c < 0x20)
            text_add(text, "\\u%04x", *c);
        else
            text_bytes(text, c, 1);
    }
    text_bytes(text, "\"", 1);
}

void text_numbers(Text *text, const int64_t *numbers, size_t count) {
    text_bytes(text, "[", 1);
    for (size_t i = 0; i < count; i++) text_add(text, "%s%lld", i ? "," : "", (long long)numbers[i]);
    text_bytes(text, "]", 1);
}

void text_base64(Text *text, const unsigned char *bytes, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t three = (uint32_t)bytes[i] << 16;
        if (left > 1) three |= (uint32_t)bytes[i + 1] << 8;
        if (left > 2) three |= bytes[i + 2];
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], '=', '='};
        if (left > 1) four[2] = digits[three >> 6 & 63];
        if (left > 2) four[3] = digits[three & 63];
        text_bytes(text, four, 4);
    }
}

bool text_write(const Text *text, int file) {
    for (size_t done = 0; done < text->length;) {
        ssize_t wrote = write(file, text->bytes + done, text->length - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return false;
        done += (size_t)wrote;
    }
    return true;
}

bool text_read(Text *text, const char *path) {
    text_clear(text);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    char part[4096];
    ssize_t got;
    while ((got = read(file, part, sizeof part)) > 0) text_bytes(text, part, (size_t)got);
    close(file);
    return got == 0;
}

/* --- JSON ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *at, *end;
} Reader;

static bool read_value(Reader *reader, Json *value, int depth);

static void skip_space(Reader *reader) {
    while (reader->at < reader->end && memchr(" \t\r\n", *reader->at, 4)) reader->at++;
}

static bool take(Reader *reader, char wanted) {
    skip_space(reader);
    if (reader->at >= reader->end || *reader->at != wanted) return false;
    reader->at++;
    return true;
}

static bool read_hex(Reader *reader, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, reader->at++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = reader->at < reader->end && *reader->at ? memchr(digits, *reader->at, 32) : NULL;
        if (!digit) return false;
        *code = *code * 16 + (uint32_t)((digit - digits) % 16);
    }
    return true;
}

/* The character of \uXXXX, or of two that are a surrogate pair, in UTF-8. */
static bool read_unicode(Reader *reader, Text *text) {
    uint32_t code, low;
    if (!read_hex(reader, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000)) return false;
    if (code >= 0xd800 && code < 0xdc00) {
        if (reader->end - reader->at < 2 || reader->at[0] != '\\' || reader->at[1] != 'u') return false;
        reader->at += 2;
        if (!read_hex(reader, &low) || low < 0xdc00 || low >= 0xe000) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    char utf8[4] = {(char)code};
    int length = 1;
    if (code >= 0x80) {
        length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (int i = length - 1; i > 0; i--, code >>= 6) utf8[i] = (char)(0x80 | (code & 0x3f));
        utf8[0] = (char)(first[length] | code);
    }
    text_bytes(text, utf8, (size_t)length);
    return true;
}

static bool read_string(Reader *reader, char **string) {
    Text text = {0};
    text_clear(&text);
    *string = NULL;
    if (!take(reader, '"')) return false;
    while (reader->at < reader->end) {
        char c = *reader->at++;
        if (c == '"') {
            *string = text.bytes;
            return true;
        }
        if ((unsigned char)c < 0x20) return false;
        if (c == '\\') {
            static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
            if (reader->at >= reader->end) return false;
            c = *reader->at++;
            const char *name = c ? strchr(names, c) : NULL;
            if (name)
                text_bytes(&text, meant + (name - names), 1);
            else if (c != 'u' || !read_unicode(reader, &text))
                return false;
            continue;
        }
        text_bytes(&text, &c, 1);
    }
    return false;
}

static bool read_number(Reader *reader, Json *value) {
    char digits[64];
    size_t length = 0;
    while (reader->at < reader->end && length < sizeof digits - 1 && memchr("+-.eE0123456789", *reader->at, 15))
        digits[length++] = *reader->at++;
    digits[length] = 0;
    const char *first = digits + (digits[0] == '-');
    bool leading_zero = first[0] == '0' && first[1] >= '0' && first[1] <= '9';
    char *end = digits;
    value->kind = JSON_NUMBER;
    value->number = strtod(digits, &end);
    return *first >= '0' && *first <= '9' && !leading_zero && !*end && end[-1] >= '0' && end[-1] <= '9';
}

static bool read_items(Reader *reader, Json *value, char close, int depth) {
    value->kind = close == ']' ? JSON_ARRAY : JSON_OBJECT;
    if (take(reader, close)) return true;
    do {
        value->items = grown(value->items, (value->count + 1) * sizeof *value->items);
        memset(&value->items[value->count], 0, sizeof *value->items);
        if (close == '}') {
            value->keys = grown(value->keys, (value->count + 1) * sizeof *value->keys);
            if (!read_string(reader, &value->keys[value->count]) || !take(reader, ':')) return false;
        }
        if (!read_value(reader, &value->items[value->count++], depth)) return false;
    } while (take(reader, ','));
    return take(reader, close);
}

static bool read_value(Reader *reader, Json *value, int depth) {
    static const struct {
        const char *word;
        JsonKind kind;
    } words[] = {{"null", JSON_NULL}, {"false", JSON_FALSE}, {"true", JSON_TRUE}};
    skip_space(reader);
    if (reader->at >= reader->end || depth > DEEPEST) return false;
    if (take(reader, '[')) return read_items(reader, value, ']', depth + 1);
    if (take(reader, '{')) return read_items(reader, value, '}', depth + 1);
    if (*reader->at == '"') {
        value->kind = JSON_STRING;
        return read_string(reader, &value->string);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].word);
        if ((size_t)(reader->end - reader->at) >= length && !memcmp(reader->at, words[i].word, length)) {
            reader->at += length;
            value->kind = words[i].kind;
            return true;
        }
    }
    return read_number(reader, value);
}

bool json_read(const char *bytes, size_t length, Json *value) {
    Reader reader = {bytes, bytes + length};
    memset(value, 0, sizeof *value);
    if (!read_value(&reader, value, 0)) return false;
    skip_space(&reader);
    return reader.at == reader.end;
}

const Json *json_get(const Json *object, const char *key) {
    for (size_t i = 0; object && object->kind == JSON_OBJECT && i < object->count; i++)
        if (!strcmp(object->keys[i], key)) return &object->items[i];
    return NULL;
}

const char *json_string(const Json *object, const char *key) {
    const Json *value = json_get(object, key);
    return value && value->kind == JSON_STRING ? value->string : NULL;
}

double json_number(const Json *object, const char *key, double otherwise) {
    const Json *value = json_get(object, key);
    return value && value->kind == JSON_NUMBER ? value->number : otherwise;
}
