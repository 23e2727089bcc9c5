#include "job.h"

static char *path_of(const char *folder, const char *name, const char *suffix) {
    Text path = {0};
    if (!name) return NULL;
    text_add(&path, "%s/%s%s", folder, name, suffix);
    return path.bytes;
}

/* A key of the job's files is one name in one folder. */
static bool plain(const char *name) { return !name || (*name && *name != '.' && !strchr(name, '/')); }

static const char *case_of(const Json *artifacts, const Json *entry, const char *files, Case *found) {
    double index = json_number(entry, "artifact", -1), threads = json_number(entry, "threads", 0);
    if (index < 0 || index >= (double)artifacts->count) return "a case names no artifact of the job";
    if (threads < 0 || threads > 1024) return "a case has no such number of threads";
    const Json *artifact = &artifacts->items[(size_t)index];
    const char *file = json_string(artifact, "file"), *golden = json_string(artifact, "golden");
    const char *data = json_string(artifact, "data"), *format = json_string(artifact, "format");
    if (!format || strcmp(format, "onnx")) return "this runner runs ONNX files alone";
    if (!file || !plain(file) || !plain(golden) || !plain(data)) return "an artifact has no name that is one of a file";
    found->path = path_of(files, file, "");
    found->golden = path_of(files, golden, ".safetensors");
    found->data = path_of(files, data, ".safetensors");
    found->size_bytes = json_number(artifact, "size_bytes", 0);
    found->threads = (int)threads;
    return "";
}

static const char *affinity_of(const Json *cores, Job *job) {
    if (!cores || cores->kind != JSON_ARRAY) return "";
    if (cores->count > MOST_PINNED) return "too many cores to pin to";
    for (size_t i = 0; i < cores->count; i++) job->affinity[i] = (int)cores->items[i].number;
    job->affinity_count = cores->count;
    return "";
}

const char *job_read(Job *job, const char *folder, const char *files) {
    Text text = {0};
    Json value;
    job->folder = folder;
    char *path = path_of(folder, "job.json", "");
    if (!text_read(&text, path)) return "job.json cannot be read";
    if (!json_read(text.bytes, text.length, &value)) return "job.json is no JSON";
    if (json_number(&value, "schema_version", 0) != JOB_VERSION) return "the job is of another version";
    const Json *artifacts = json_get(&value, "artifacts"), *cases = json_get(&value, "cases");
    if (!artifacts || artifacts->kind != JSON_ARRAY || !cases || cases->kind != JSON_ARRAY)
        return "the job has no cases";
    if (cases->count > MOST_CASES) return "the job has too many cases";
    job->seconds = json_number(&value, "seconds", 2);
    job->warmup_s = json_number(&value, "warmup_s", 10);
    job->precision = json_number(&value, "precision", 0);
    job->sustained_s = json_number(&value, "sustained_s", 0);
    job->data_s = json_number(&value, "data_s", 120);
    job->timeout_s = json_number(&value, "timeout_s", 600);
    job->batch = (size_t)json_number(&value, "batch", 0);
    job->processes = (size_t)json_number(&value, "processes", 1);
    job->seconds /= job->processes ? (double)job->processes : 1;
    const Json *profile = json_get(&value, "profile");
    job->profile = profile && profile->kind == JSON_TRUE;
    job->seed = (uint64_t)json_number(&value, "seed", 0);
    for (size_t i = 0; i < cases->count; i++) {
        const char *fault = case_of(artifacts, &cases->items[i], files, &job->cases[i]);
        if (*fault) return fault;
    }
    job->case_count = cases->count;
    return affinity_of(json_get(&value, "affinity"), job);
}
