/* What the runner needs of the system: the C library's own headers, or for a phone without Android's NDK the few
   declarations of bionic.h. */
#ifndef POCKETSHIP_SYSTEM_H
#define POCKETSHIP_SYSTEM_H

#ifdef POCKETSHIP_BIONIC
#include "bionic.h"
#else
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

#define SECOND_NS 1000000000LL

/* Nanoseconds of the monotonic clock. */
static inline int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

#endif
