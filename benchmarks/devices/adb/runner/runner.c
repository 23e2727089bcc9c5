/* pocketship's runner for phones and boards without Python: it does a job (benchmarks/job.py) with ONNX Runtime and
   prints the events of docs/results.md.

   runner JOB_FOLDER --library LIBONNXRUNTIME.so [--files FOLDER] [--lock FILE] [--sys FOLDER]

   Every case is a process of its own, so that a crash, a hang or a full memory is a `failed` event; the cases compute
   blocks in shuffled turns, one at a time. Exit codes: 0 all done (a case may have failed), 64 wrong arguments, 65 no
   job, 71 no memory or process, 74 nobody reads, 75 another bench holds the lock. */
#include "loop.h"
#include "machine.h"
#include "worker.h"

enum { CONDITION_S = 5, MEMORY_PER_FILE_BYTE = 3, MEMORY_A_CASE = 64 << 20 };

typedef struct {
    pid_t pid;
    int commands, answers;
    Text pending;        /* what was read of the next line */
    bool alive, lost;
    size_t block_runs;
    Times medians;       /* of its blocks */
    int64_t inferences;  /* in its turns, in all processes */
    double joules;
    const char *energy_unknown;
} Child;

static Job job;
static Child children[MOST_CASES];
static int64_t condition_at;

static void print(Text *text) {
    if (!text_write(text, STDOUT_FILENO)) _exit(74); /* its processes die with it */
    text_clear(text);
}

static void complain(const char *what) {
    Text text = {0};
    text_add(&text, "runner: %s\n", what);
    text_write(&text, STDERR_FILENO);
}

static void tell_condition(const char *when) {
    Text text = {0};
    condition_at = now_ns();
    condition_text(&text, job.sys, when, condition_at - job.started_ns);
    print(&text);
    free(text.bytes);
}

static void tell_condition_in_time(void) {
    if (now_ns() - condition_at > CONDITION_S * SECOND_NS) tell_condition("during");
}

static void tell_progress(double done, double total) {
    Text text = {0};
    text_add(&text, "{\"event\":\"progress\",\"done\":%.0f,\"total\":%.0f}\n", done, total);
    print(&text);
    free(text.bytes);
}

/* --- a case's process -------------------------------------------------------------------------------------------- */

static void start(size_t index, size_t process) {
    int commands[2], answers[2];
    Child *child = &children[index];
    if (pipe(commands) || pipe(answers)) _exit(71);
    pid_t parent = getpid();
    child->pid = fork();
    if (child->pid < 0) _exit(71);
    if (!child->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        close(commands[1]);
        close(answers[0]);
        dup2(STDERR_FILENO, STDOUT_FILENO); /* whatever a library prints is no event */
        for (size_t i = 0; i < job.case_count; i++)
            if (i != index && children[i].alive) close(children[i].commands), close(children[i].answers);
        work(&job, index, process, commands[0], answers[1]);
    }
    close(commands[0]);
    close(answers[1]);
    child->commands = commands[1];
    child->answers = answers[0];
    child->alive = true;
    text_clear(&child->pending);
}

static void bury(Child *child) {
    close(child->commands);
    close(child->answers);
    child->alive = false;
}

/* The case is lost; what it told stands. */
static void lose(size_t index, const char *cause, const char *detail) {
    Text text = {0};
    text_add(&text, "{\"event\":\"failed\",\"case\":%zu,\"cause\":", index);
    text_string(&text, cause);
    text_add(&text, ",\"detail\":");
    text_string(&text, detail);
    text_add(&text, "}\n");
    print(&text);
    free(text.bytes);
    bury(&children[index]);
    children[index].lost = true;
}

static void lose_dead(size_t index) {
    static const struct {
        int number;
        const char *name;
    } signals[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"},
                   {SIGFPE, "SIGFPE"}};
    char detail[64];
    int status = 0;
    waitpid(children[index].pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        lose(index, "out-of-memory", "killed by the system (SIGKILL), as it does when memory runs out");
        return;
    }
    if (WIFSIGNALED(status)) {
        snprintf(detail, sizeof detail, "crashed with signal %d", WTERMSIG(status));
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
            if (signals[i].number == WTERMSIG(status))
                snprintf(detail, sizeof detail, "crashed with %s", signals[i].name);
    } else {
        snprintf(detail, sizeof detail, "ended with exit code %d and no answer", WEXITSTATUS(status));
    }
    lose(index, WIFEXITED(status) && WEXITSTATUS(status) == 71 ? "out-of-memory" : "crashed", detail);
}

/* The child's next whole line without its end, a string that lasts until the next call; NULL once the case is lost. */
static char *next_line(size_t index, double timeout_s) {
    static Text line;
    Child *child = &children[index];
    int64_t deadline = now_ns() + (int64_t)(timeout_s * (double)SECOND_NS);
    char *end;
    size_t looked = 0;
    while (!(end = memchr(child->pending.bytes + looked, '\n', child->pending.length - looked))) {
        looked = child->pending.length;
        struct pollfd waiting = {.fd = child->answers, .events = POLLIN};
        int64_t left_ms = (deadline - now_ns()) / 1000000;
        int ready = poll(&waiting, 1, left_ms < 0 ? 0 : left_ms > 1 << 30 ? 1 << 30 : (int)left_ms);
        char part[65536];
        if (ready < 0 && errno == EINTR) continue;
        ssize_t got = ready > 0 ? read(child->answers, part, sizeof part) : 0;
        if (got > 0) {
            text_bytes(&child->pending, part, (size_t)got);
            continue;
        }
        if (ready > 0) {
            lose_dead(index); /* half a line that a dying process left is dropped */
            return NULL;
        }
        char detail[64];
        snprintf(detail, sizeof detail, "gave no answer within %.0f s and was killed", timeout_s);
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
        lose(index, "timed-out", detail);
        return NULL;
    }
    size_t length = (size_t)(end - child->pending.bytes) + 1;
    text_clear(&line);
    text_bytes(&line, child->pending.bytes, length - 1);
    memmove(child->pending.bytes, child->pending.bytes + length, child->pending.length - length + 1);
    child->pending.length -= length;
    return line.bytes;
}

/* Tell the child to do something and pass its events on; false when the case is lost. */
static bool ask(size_t index, char what, size_t runs, double timeout_s, double *first, double *second) {
    Command command = {.what = what, .runs = (int32_t)runs};
    if (write(children[index].commands, &command, sizeof command) != (ssize_t)sizeof command) {
        lose_dead(index);
        return false;
    }
    char *line;
    while ((line = next_line(index, timeout_s))) {
        if (*line == '=') {
            char *end;
            *first = strtod(line + 1, &end);
            *second = strtod(end, NULL);
            return true;
        }
        if (*line == '!') {
            char *detail = strchr(line, ' ');
            *detail++ = 0;
            waitpid(children[index].pid, NULL, 0);
            lose(index, line + 1, detail);
            return false;
        }
        Text event = {0};
        text_add(&event, "%s\n", line);
        print(&event);
        free(event.bytes);
        if (what == 's') tell_condition_in_time();
    }
    return false;
}

static void prepare(size_t index) {
    double runs, unused;
    double longest = job.timeout_s + job.warmup_s;
    if (ask(index, 'p', 0, longest, &runs, &unused)) children[index].block_runs = (size_t)runs;
    children[index].medians.count = 0;
}

static void end(size_t index) {
    Command command = {.what = 'q'};
    if (!children[index].alive) return;
    if (write(children[index].commands, &command, sizeof command) != (ssize_t)sizeof command)
        kill(children[index].pid, SIGKILL);
    waitpid(children[index].pid, NULL, 0);
    bury(&children[index]);
}

/* --- turns ------------------------------------------------------------------------------------------------------- */

static size_t living(const size_t *group, size_t count, size_t *found) {
    size_t alive = 0;
    for (size_t i = 0; i < count; i++)
        if (children[group[i]].alive) found[alive++] = group[i];
    return alive;
}

static bool precise(const size_t *group, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const Times *medians = &children[group[i]].medians;
        if (half_width(medians->items, medians->count) > job.precision) return false;
    }
    return true;
}

/* Every case computes a block a round, in an order of the round's own, until time and count are met. */
static void take_turns(const size_t *group, size_t count, uint64_t *state) {
    size_t order[MOST_CASES], alive;
    double spent_ns = 0, median, sum;
    for (int rounds = 1; (alive = living(group, count, order)); rounds++) {
        shuffle(order, alive, state);
        for (size_t i = 0; i < alive; i++) {
            Child *child = &children[order[i]];
            if (!ask(order[i], 'b', child->block_runs, job.timeout_s, &median, &sum)) continue;
            int64_t rounded = (int64_t)median;
            times_add(&child->medians, &rounded, 1);
            child->inferences += (int64_t)child->block_runs + (child->block_runs > 1);
            spent_ns += sum;
            tell_condition_in_time();
        }
        alive = living(group, count, order);
        double wanted_ns = job.seconds * (double)SECOND_NS * (double)alive;
        double by_time = rounds * wanted_ns / (spent_ns > 1 ? spent_ns : 1);
        double total = by_time > LEAST_ROUNDS ? by_time : LEAST_ROUNDS;
        tell_progress(rounds, total > rounds ? total : rounds);
        if (rounds < LEAST_ROUNDS || spent_ns < wanted_ns) continue;
        if (!(job.precision > 0) || precise(order, alive) || spent_ns >= MOST_TIMES_LONGER * wanted_ns) return;
    }
}

static void add_energy(const size_t *group, size_t count, const Battery *before) {
    Battery after = battery_read(job.sys);
    double joules = (before->charge_uah - after.charge_uah) * 3.6e-3 * (before->voltage_uv + after.voltage_uv) / 2e6;
    const char *unknown = !before->told || !after.told ? "there is no battery that tells its charge"
                          : !before->discharging || !after.discharging ? "the battery was not discharging"
                          : job.case_count > 1 && job.sustained_s <= 0
                              ? "artifacts took turns, and a battery's counter is too slow to tell them apart"
                          : joules <= 0 ? "the battery's counter did not move"
                                        : NULL;
    for (size_t i = 0; i < count; i++) {
        children[group[i]].joules += joules;
        if (unknown) children[group[i]].energy_unknown = unknown;
    }
}

static void tell_energy(size_t index) {
    Text text = {0};
    const Child *child = &children[index];
    text_add(&text, "{\"event\":\"energy\",\"case\":%zu,\"joules\":", index);
    if (child->energy_unknown)
        text_add(&text, "null");
    else
        text_add(&text, "%.6g", child->joules);
    text_add(&text, ",\"inferences\":%lld,\"source\":\"battery\",\"note\":", (long long)child->inferences);
    text_string(&text, child->energy_unknown ? child->energy_unknown : "");
    text_add(&text, "}\n");
    print(&text);
    free(text.bytes);
}

/* After the turns: memory, then once what would have changed it. */
static void finish(size_t index, bool first) {
    double unused;
    bool alive = ask(index, 'm', 0, job.timeout_s, &unused, &unused);
    if (alive && first && job.cases[index].data)
        alive = ask(index, 'd', 0, job.data_s + job.timeout_s, &unused, &unused);
    if (alive && first && job.profile) ask(index, 'o', 0, job.timeout_s, &unused, &unused);
    end(index);
}

/* Cases that live at the same time, from their start to their end. */
static void measure(const size_t *group, size_t count, size_t process, uint64_t *state) {
    size_t alive[MOST_CASES];
    double total, unused;
    for (size_t i = 0; i < count; i++) {
        if (children[group[i]].lost) continue;
        start(group[i], process);
        prepare(group[i]);
    }
    Battery before = battery_read(job.sys);
    if (job.sustained_s <= 0)
        take_turns(group, count, state);
    else if (children[*group].alive && ask(*group, 's', 0, job.timeout_s, &total, &unused))
        children[*group].inferences += (int64_t)total;
    size_t left = living(group, count, alive);
    add_energy(alive, left, &before);
    for (size_t i = 0; i < left; i++) {
        finish(alive[i], process == 0);
        if (process + 1 == job.processes) tell_energy(alive[i]);
    }
}

/* Whether all cases fit into the memory at once; with a note where they do not. */
static bool fit_together(void) {
    double needed = 0, available = (double)available_bytes();
    for (size_t i = 0; i < job.case_count; i++)
        needed += job.cases[i].size_bytes * MEMORY_PER_FILE_BYTE + MEMORY_A_CASE;
    if (available < 0 || needed <= available || job.case_count < 2) return true;
    snprintf(job.note, sizeof job.note,
             "measured one by one instead of in turns: %.0f MB of memory are free, all need %.0f", available / 1e6,
             needed / 1e6);
    return false;
}

static bool arguments(int count, char **words, const char **folder, const char **files, const char **lock) {
    job.sys = "/sys";
    if (count < 2) return false;
    *files = *folder = words[1];
    for (int i = 2; i < count; i += 2) {
        const char **option = !strcmp(words[i], "--library") ? &job.library
                              : !strcmp(words[i], "--files") ? files
                              : !strcmp(words[i], "--lock")  ? lock
                              : !strcmp(words[i], "--sys")   ? &job.sys
                                                             : NULL;
        if (!option || i + 1 == count) return false;
        *option = words[i + 1];
    }
    return job.library != NULL;
}

static bool locked(const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    return file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0; /* it stays open: the lock ends with this process */
}

int main(int count, char **words) {
    const char *folder, *files, *lock = NULL;
    if (!arguments(count, words, &folder, &files, &lock)) {
        complain("give JOB_FOLDER --library FILE [--files FOLDER] [--lock FILE] [--sys FOLDER]");
        return 64;
    }
    const char *fault = job_read(&job, folder, files);
    if (*fault) {
        complain(fault);
        return 65;
    }
    if (lock && !locked(lock)) {
        complain("another bench is running here");
        return 75;
    }
    signal(SIGPIPE, SIG_IGN); /* a case that died while it waited is found by what `write` returns */
    job.started_ns = now_ns();
    uint64_t state = (job.seed * 2 + 1) * 0x9e3779b97f4a7c15u;
    size_t all[MOST_CASES];
    for (size_t i = 0; i < job.case_count; i++) all[i] = i;
    bool together = job.sustained_s <= 0 && fit_together();
    tell_condition("before");
    for (size_t process = 0; process < job.processes; process++) {
        if (together) measure(all, job.case_count, process, &state);
        for (size_t i = 0; !together && i < job.case_count; i++) measure(&all[i], 1, process, &state);
    }
    tell_condition("after");
    Text text = {0};
    text_add(&text, "{\"event\":\"end\"}\n");
    print(&text);
    return 0;
}
