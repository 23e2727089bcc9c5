/* What the machine tells of itself: frequencies, temperature, battery, memory; below /sys and /proc. */
#ifndef POCKETSHIP_MACHINE_H
#define POCKETSHIP_MACHINE_H

#include "text.h"

typedef struct {
    bool told;            /* whether there is a counter at all */
    bool discharging;
    double charge_uah;    /* microampere hours */
    double voltage_uv;    /* microvolts */
} Battery;

/* The line of a `condition` event; `sys` is /sys. */
void condition_text(Text *text, const char *sys, const char *when, int64_t at_ns);
Battery battery_read(const char *sys);

/* A field of /proc/self/status in bytes, or -1. */
int64_t status_bytes(const char *field);
/* MemAvailable in bytes, or -1. */
int64_t available_bytes(void);
/* Take a file out of the page cache; whether none of it is left there. */
bool drop_from_page_cache(const char *path);
/* Pin this process to `cores`; false where the system refuses. */
bool pin_to(const int *cores, size_t count);

#endif
