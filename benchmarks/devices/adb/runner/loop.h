/* The measuring loop, as benchmarks/agent/loop.py has it: the same windows, rounds and limits. */
#ifndef POCKETSHIP_LOOP_H
#define POCKETSHIP_LOOP_H

#include "model.h"

enum { LEAST_ROUNDS = 25, MOST_RUNS_A_BLOCK = 1000, MOST_TIMES_LONGER = 10 };

typedef struct {
    int64_t *items;
    size_t count, room;
} Times;

void times_add(Times *times, const int64_t *added, size_t count);
double median_of(const int64_t *values, size_t count);
/* Half of the 95% interval of the median over the median, by order statistics: ranks n/2 -+ 1.96 sqrt(n)/2.
   (Conover, Practical Nonparametric Statistics, 1999, 3.2.) */
double half_width(const int64_t *values, size_t count);

/* Run until the medians of three windows of 50 ms lie within 5%, or `limit_s` is over. */
bool warm_up(Model *model, double limit_s, Times *times, bool *stable, Failure *failure);
/* So many runs that `LEAST_ROUNDS` blocks last `seconds`, judged by the later half of the warm-up. */
size_t runs_a_block(const Times *warmup, double seconds);
/* The order of `count` cases in a round. */
void shuffle(size_t *order, size_t count, uint64_t *state);

#endif
