#include "loop.h"

static const int64_t WINDOW_NS = 50000000;
static const double STABLE_RATIO = 1.05;
enum { STABLE_WINDOWS = 3 };

void times_add(Times *times, const int64_t *added, size_t count) {
    if (times->count + count > times->room) {
        times->room = (times->count + count) * 2;
        times->items = grown(times->items, times->room * sizeof *times->items);
    }
    memcpy(times->items + times->count, added, count * sizeof *added);
    times->count += count;
}

static int by_value(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static int64_t *sorted(const int64_t *values, size_t count) {
    int64_t *copy = grown(NULL, count * sizeof *copy);
    memcpy(copy, values, count * sizeof *copy);
    qsort(copy, count, sizeof *copy, by_value);
    return copy;
}

double median_of(const int64_t *values, size_t count) {
    if (!count) return 0;
    int64_t *ordered = sorted(values, count);
    double middle = (double)(ordered[(count - 1) / 2] + ordered[count / 2]) / 2;
    free(ordered);
    return middle;
}

double half_width(const int64_t *values, size_t count) {
    int64_t *ordered = sorted(values, count);
    double root = (double)count; /* Newton's, which spares the mathematics library */
    for (int i = 0; i < 40; i++) root = (root + (double)count / root) / 2;
    double reach = 1.96 * root / 2, low = (double)count / 2 - reach, high = (double)count / 2 + reach;
    size_t from = low > 0 ? (size_t)low : 0, to = high < (double)count - 1 ? (size_t)high : count - 1;
    double middle = (double)(ordered[(count - 1) / 2] + ordered[count / 2]) / 2;
    double half = (double)(ordered[to] - ordered[from]) / 2 / (middle > 0 ? middle : 1);
    free(ordered);
    return half;
}

bool warm_up(Model *model, double limit_s, Times *times, bool *stable, Failure *failure) {
    double medians[STABLE_WINDOWS];
    int64_t window[MOST_RUNS_A_BLOCK], started = now_ns();
    *stable = false;
    for (size_t windows = 0; !windows || (double)(now_ns() - started) < limit_s * (double)SECOND_NS; windows++) {
        size_t runs = 0;
        for (int64_t spent = 0; spent < WINDOW_NS && runs < MOST_RUNS_A_BLOCK; spent += window[runs++])
            if (!model_time(model, 1, &window[runs], failure)) return false;
        times_add(times, window, runs);
        medians[windows % STABLE_WINDOWS] = median_of(window, runs);
        if (windows + 1 < STABLE_WINDOWS) continue;
        double low = medians[0], high = medians[0];
        for (int i = 1; i < STABLE_WINDOWS; i++) {
            if (medians[i] < low) low = medians[i];
            if (medians[i] > high) high = medians[i];
        }
        if ((*stable = high <= STABLE_RATIO * low)) return true;
    }
    return true;
}

size_t runs_a_block(const Times *warmup, double seconds) {
    size_t half = warmup->count / 2;
    double run_ns = median_of(warmup->items + half, warmup->count - half);
    double runs = seconds * (double)SECOND_NS / LEAST_ROUNDS / (run_ns > 1 ? run_ns : 1) + 0.5;
    return runs < 1 ? 1 : runs > MOST_RUNS_A_BLOCK ? MOST_RUNS_A_BLOCK : (size_t)runs;
}

void shuffle(size_t *order, size_t count, uint64_t *state) {
    for (size_t i = count; i > 1; i--) { /* Fisher and Yates; xorshift64* (Vigna 2014) */
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        size_t other = (size_t)((*state * 0x2545f4914f6cdd1du >> 33) % i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}
