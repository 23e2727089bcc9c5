#include "worker.h"

#include "loop.h"
#include "machine.h"

enum { PROFILE_RUNS = 20, PROFILE_S = 5, LEAST_SAMPLES = 2 };

typedef struct {
    const Job *job;
    const Case *measured;
    size_t index, process;
    int answers;
    Model model;
    Tensors golden;
    size_t block_runs;
    int64_t baseline_bytes;
    int64_t *times_ns;  /* MOST_RUNS_A_BLOCK, touched before it is needed */
    Failure failure;
} Worker;

static void tell(Worker *worker, Text *text) {
    if (!text_write(text, worker->answers)) _exit(74);
    text_clear(text);
}

static void answer(Worker *worker, double first, double second) {
    Text text = {0};
    text_add(&text, "=%.0f %.0f\n", first, second);
    tell(worker, &text);
    free(text.bytes);
}

__attribute__((noreturn)) static void give_up(Worker *worker) {
    Text text = {0};
    text_add(&text, "!%s %s\n", worker->failure.cause, worker->failure.detail);
    tell(worker, &text);
    _exit(0);
}

static void need(Worker *worker, bool done) {
    if (!done) give_up(worker);
}

static bool feed(Worker *worker) {
    const Job *job = worker->job;
    if (worker->measured->golden)
        return model_feed(&worker->model, &worker->golden, "0/input/", 0, job->batch, 1, &worker->failure);
    return model_feed_random(&worker->model, job->batch, job->seed, &worker->failure);
}

/* Load the file, and the time that took. */
static int64_t load(Worker *worker) {
    int64_t started = now_ns();
    need(worker, model_load(&worker->model, worker->measured->path, worker->measured->threads, NULL, &worker->failure));
    return now_ns() - started;
}

static void tell_golden(Worker *worker) {
    for (size_t sample = 0;; sample++) {
        Text text = {0}, prefix = {0};
        text_add(&prefix, "%zu/input/", sample);
        bool there = false;
        for (size_t i = 0; !there && i < worker->golden.count; i++)
            there = !strncmp(worker->golden.items[i].name, prefix.bytes, prefix.length);
        if (there) {
            need(worker, model_feed(&worker->model, &worker->golden, prefix.bytes, 0, 0, 0, &worker->failure) &&
                             model_run(&worker->model, &worker->failure));
            text_add(&text, "{\"event\":\"outputs\",\"case\":%zu,\"of\":\"golden\",\"row\":%zu,\"rows\":1,\"outputs\":",
                     worker->index, sample);
            need(worker, model_outputs(&worker->model, &text, 0, 0, &worker->failure));
            text_add(&text, "}\n");
            tell(worker, &text);
        }
        free(text.bytes);
        free(prefix.bytes);
        if (!there) return;
    }
}

static void tell_loaded(Worker *worker, int64_t import_ns, int64_t cold_ns, int64_t warm_ns, int64_t first_ns,
                        bool dropped) {
    Text text = {0};
    const char *inputs = worker->measured->golden ? "golden" : "random";
    text_add(&text, "{\"event\":\"loaded\",\"case\":%zu,\"runtime\":\"onnxruntime\",\"version\":", worker->index);
    text_string(&text, runtime_version());
    text_add(&text, ",\"inputs\":\"%s\",\"import_ns\":%lld,\"load_cold_ns\":%lld,\"load_warm_ns\":%lld", inputs,
             (long long)import_ns, (long long)cold_ns, (long long)warm_ns);
    text_add(&text, ",\"first_inference_ns\":%lld,\"page_cache_dropped\":%s,\"notes\":[", (long long)first_ns,
             dropped ? "true" : "false");
    if (*worker->job->note) text_string(&text, worker->job->note);
    if (!worker->measured->golden)
        text_add(&text, "%s\"random inputs, whose free axes are 16, the first 1\"", *worker->job->note ? "," : "");
    text_add(&text, "]}\n");
    tell(worker, &text);
    free(text.bytes);
}

static void prepare(Worker *worker) {
    const Job *job = worker->job;
    bool first = worker->process == 0;
    if (job->affinity_count && !pin_to(job->affinity, job->affinity_count))
        need(worker, fail(&worker->failure, "refused", "it cannot be pinned to the cores asked for"));
    if (worker->measured->golden) {
        const char *fault = tensors_read(worker->measured->golden, &worker->golden);
        if (*fault) need(worker, fail(&worker->failure, "refused", "%s (%s)", fault, worker->measured->golden));
    }
    int64_t started = now_ns();
    need(worker, runtime_open(job->library, &worker->failure));
    int64_t import_ns = now_ns() - started;
    worker->baseline_bytes = status_bytes("VmRSS:");
    bool dropped = first && drop_from_page_cache(worker->measured->path);
    int64_t first_ns, cold_ns = load(worker);
    need(worker, feed(worker) && model_time(&worker->model, 1, &first_ns, &worker->failure));
    if (first) {
        model_close(&worker->model);
        int64_t warm_ns = load(worker);
        tell_loaded(worker, import_ns, cold_ns, warm_ns, first_ns, dropped);
        if (worker->measured->golden) tell_golden(worker);
        need(worker, feed(worker));
    }
    Times warmup = {0};
    bool stable;
    need(worker, warm_up(&worker->model, job->warmup_s, &warmup, &stable, &worker->failure));
    worker->block_runs = runs_a_block(&warmup, job->seconds);
    Text text = {0};
    text_add(&text, "{\"event\":\"warm\",\"case\":%zu,\"warmup_ns\":", worker->index);
    text_numbers(&text, warmup.items, warmup.count);
    text_add(&text, ",\"stable\":%s}\n", stable ? "true" : "false");
    tell(worker, &text);
    free(text.bytes);
    free(warmup.items);
}

static void tell_block(Worker *worker, int64_t at_ns, size_t runs, size_t kept) {
    Text text = {0};
    text_add(&text, "{\"event\":\"block\",\"case\":%zu,\"process\":%zu,\"at_ns\":%lld,\"runs\":%zu,\"times_ns\":",
             worker->index, worker->process, (long long)(at_ns - worker->job->started_ns), runs);
    text_numbers(&text, worker->times_ns, kept);
    text_add(&text, "}\n");
    tell(worker, &text);
    free(text.bytes);
}

static void block(Worker *worker) {
    size_t runs = worker->block_runs;
    if (runs > 1) /* not counted: it finds the caches as another case left them */
        need(worker, model_run(&worker->model, &worker->failure));
    int64_t at_ns = now_ns(), spent_ns = 0;
    need(worker, model_time(&worker->model, runs, worker->times_ns, &worker->failure));
    for (size_t i = 0; i < runs; i++) spent_ns += worker->times_ns[i];
    tell_block(worker, at_ns, runs, runs);
    answer(worker, median_of(worker->times_ns, runs), (double)spent_ns);
}

/* Run without a pause; of each second the first 1,000 times are kept. */
static void sustain(Worker *worker) {
    int64_t begun = now_ns(), spent_ns = 0;
    double wanted_ns = worker->job->sustained_s * (double)SECOND_NS;
    size_t total = 0;
    while ((double)(spent_ns = now_ns() - begun) < wanted_ns) {
        int64_t started = now_ns(), unkept;
        size_t runs = 0;
        for (; now_ns() - started < SECOND_NS; runs++)
            need(worker, model_time(&worker->model, 1, runs < MOST_RUNS_A_BLOCK ? &worker->times_ns[runs] : &unkept,
                                    &worker->failure));
        tell_block(worker, started, runs, runs < MOST_RUNS_A_BLOCK ? runs : MOST_RUNS_A_BLOCK);
        total += runs;
    }
    answer(worker, (double)total, (double)spent_ns);
}

/* Answer the samples in the artifact's own batch, as many as the time allows; the last batch is filled up. */
static void answer_data(Worker *worker) {
    Tensors data;
    const char *fault = tensors_read(worker->measured->data, &data);
    if (*fault) need(worker, fail(&worker->failure, "refused", "%s (%s)", fault, worker->measured->data));
    const Port *first = &worker->model.inputs[0];
    const Tensor *samples = tensors_get(&data, first->name);
    if (!samples && data.count == 1) samples = &data.items[0];
    if (!worker->model.input_count || !samples || !samples->rank || !first->rank)
        need(worker, fail(&worker->failure, "refused", "the data has no rows for its first input"));
    size_t total = (size_t)samples->shape[0], batch = first->shape[0] > 0 ? (size_t)first->shape[0] : 1;
    int64_t started = now_ns();
    for (size_t row = 0; row < total; row += batch) {
        if (row >= LEAST_SAMPLES && (double)(now_ns() - started) > worker->job->data_s * (double)SECOND_NS) break;
        size_t rows = total - row < batch ? total - row : batch;
        need(worker, model_feed(&worker->model, &data, "", row, batch, total, &worker->failure) &&
                         model_run(&worker->model, &worker->failure));
        Text text = {0};
        text_add(&text, "{\"event\":\"outputs\",\"case\":%zu,\"of\":\"data\",\"row\":%zu,\"rows\":%zu,\"outputs\":",
                 worker->index, row, rows);
        need(worker, model_outputs(&worker->model, &text, batch, rows, &worker->failure));
        text_add(&text, "}\n");
        tell(worker, &text);
        free(text.bytes);
    }
    answer(worker, (double)total, (double)(now_ns() - started));
}

/* --- the runtime's own profile ----------------------------------------------------------------------------------- */

typedef struct {
    const char *operation;
    int64_t calls, total_ns;
} Operation;

/* Add up ONNX Runtime's trace: one event a kernel and run, `dur` in microseconds; what lies before the end of the first
   run is left out. */
static size_t add_up(const Json *trace, Operation *operations, size_t room) {
    static const char ending[] = "_kernel_time";
    size_t found = 0, i;
    bool counts = false;
    for (size_t event = 0; event < trace->count; event++) {
        const Json *entry = &trace->items[event];
        const char *name = json_string(entry, "name"), *operation = json_string(json_get(entry, "args"), "op_name");
        size_t length = name ? strlen(name) : 0;
        if (name && !strcmp(name, "model_run")) counts = true;
        if (!counts || !operation || length < sizeof ending) continue;
        if (strcmp(name + length - (sizeof ending - 1), ending)) continue;
        for (i = 0; i < found && strcmp(operations[i].operation, operation); i++) continue;
        if (i == room) continue;
        if (i == found) operations[found++] = (Operation){.operation = operation};
        operations[i].calls++;
        operations[i].total_ns += (int64_t)(json_number(entry, "dur", 0) * 1000);
    }
    return found;
}

/* Of a session of its own, since a profile slows every run. */
static void profile(Worker *worker) {
    Text path = {0}, trace = {0}, text = {0};
    Operation operations[128];
    Json events;
    char *written;
    int64_t run_ns, unkept;
    text_add(&path, "%s/profile-%zu", worker->job->folder, worker->index);
    need(worker, model_time(&worker->model, 1, &run_ns, &worker->failure));
    double fitting = PROFILE_S * (double)SECOND_NS / (double)(run_ns > 1 ? run_ns : 1);
    size_t runs = fitting < 1 ? 1 : fitting > PROFILE_RUNS ? PROFILE_RUNS : (size_t)fitting;
    model_close(&worker->model);
    const Case *measured = worker->measured;
    need(worker, model_load(&worker->model, measured->path, measured->threads, path.bytes, &worker->failure));
    need(worker, feed(worker));
    for (size_t i = 0; i < runs + 1; i++) need(worker, model_time(&worker->model, 1, &unkept, &worker->failure));
    need(worker, model_profile(&worker->model, &written, &worker->failure));
    bool whole = text_read(&trace, written) && json_read(trace.bytes, trace.length, &events);
    unlink(written);
    if (whole) { /* a full disk leaves half a trace, which tells nothing */
        size_t count = add_up(&events, operations, sizeof operations / sizeof *operations);
        text_add(&text, "{\"event\":\"profile\",\"case\":%zu,\"operations\":[", worker->index);
        for (size_t i = 0; i < count; i++) {
            text_add(&text, "%s{\"operation\":", i ? "," : "");
            text_string(&text, operations[i].operation);
            text_add(&text, ",\"calls\":%lld,\"total_ns\":%lld,\"runs\":%zu}", (long long)operations[i].calls,
                     (long long)operations[i].total_ns, runs);
        }
        text_add(&text, "]}\n");
        tell(worker, &text);
    }
    answer(worker, (double)whole, 0);
}

/* --- the end ----------------------------------------------------------------------------------------------------- */

static void bytes_or_null(Text *text, const char *name, int64_t bytes) {
    if (bytes < 0)
        text_add(text, ",\"%s\":null", name);
    else
        text_add(text, ",\"%s\":%lld", name, (long long)bytes);
}

static void tell_memory(Worker *worker) {
    Text text = {0};
    text_add(&text, "{\"event\":\"memory\",\"case\":%zu", worker->index);
    bytes_or_null(&text, "baseline_bytes", worker->baseline_bytes);
    bytes_or_null(&text, "steady_bytes", status_bytes("VmRSS:"));
    bytes_or_null(&text, "peak_bytes", status_bytes("VmHWM:"));
    text_add(&text, "}\n");
    tell(worker, &text);
    free(text.bytes);
}

void work(const Job *job, size_t index, size_t process, int commands, int answers) {
    static Worker worker;
    worker = (Worker){.job = job, .measured = &job->cases[index], .index = index, .process = process};
    worker.answers = answers;
    worker.times_ns = grown(NULL, MOST_RUNS_A_BLOCK * sizeof *worker.times_ns);
    memset(worker.times_ns, 1, MOST_RUNS_A_BLOCK * sizeof *worker.times_ns);
    Command command;
    while (read(commands, &command, sizeof command) == (ssize_t)sizeof command) {
        switch (command.what) {
        case 'p':
            prepare(&worker);
            answer(&worker, (double)worker.block_runs, 0);
            break;
        case 'b': block(&worker); break;
        case 's': sustain(&worker); break;
        case 'd': answer_data(&worker); break;
        case 'o': profile(&worker); break;
        case 'm': tell_memory(&worker); answer(&worker, 0, 0); break;
        default:
            _exit(0); /* the libraries' own exit handlers are not ours to trust */
        }
    }
    _exit(0);
}
