/* The job, as benchmarks/job.py writes it in JSON. */
#ifndef POCKETSHIP_JOB_H
#define POCKETSHIP_JOB_H

#include "text.h"

enum { JOB_VERSION = 1, MOST_CASES = 256, MOST_PINNED = 256 };

typedef struct {
    char *path;         /* of the artifact */
    char *golden;       /* of its golden inputs, NULL where there are none */
    char *data;         /* of the samples that it answers, NULL where there are none */
    double size_bytes;
    int threads;        /* 0: the runtime chooses */
} Case;

typedef struct {
    Case cases[MOST_CASES];
    size_t case_count;
    double seconds, warmup_s, precision, sustained_s, data_s, timeout_s; /* precision and sustained_s: 0 for none */
    size_t batch, processes;
    bool profile;
    uint64_t seed;
    int affinity[MOST_PINNED];
    size_t affinity_count;
    const char *library, *sys, *folder;
    int64_t started_ns;
    char note[256];     /* of the way in which all cases are measured */
} Job;

/* Read `folder`/job.json, whose files lie in `files`; "" or one line that says what is wrong. */
const char *job_read(Job *job, const char *folder, const char *files);

#endif
