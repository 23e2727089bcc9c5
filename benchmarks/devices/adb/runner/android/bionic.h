/* Android's C library (bionic) on 64-bit ARM, as far as the runner uses it, for machines without Android's NDK.

   Written after bionic's public headers; types and numbers are those of its stable ABI since Android 7 (API 24), where
   they differ from glibc's (errno, dlopen's flags, the types of <signal.h>) no header of glibc must be read instead.
   Where the NDK is at hand, its own headers are used and this file is not. */
#ifndef POCKETSHIP_BIONIC_H
#define POCKETSHIP_BIONIC_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__aarch64__)
#error "these declarations are those of 64-bit ARM"
#endif

typedef long ssize_t, off_t, time_t;
typedef int pid_t;
typedef void (*SignalHandler)(int);
typedef struct cpu_set_t cpu_set_t;
struct timespec {
    time_t tv_sec;
    long tv_nsec;
};
struct pollfd {
    int fd;
    short events, revents;
};

int *__errno(void);
#define errno (*__errno())

enum {
    EINTR = 4,
    O_RDONLY = 0, O_RDWR = 2, O_CREAT = 0100, O_CLOEXEC = 02000000,
    SEEK_END = 2,
    STDOUT_FILENO = 1, STDERR_FILENO = 2,
    LOCK_EX = 2, LOCK_NB = 4,
    PROT_READ = 1, MAP_SHARED = 1,
    POSIX_FADV_DONTNEED = 4,
    POLLIN = 1,
    PR_SET_PDEATHSIG = 1,
    SIGILL = 4, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGSEGV = 11, SIGPIPE = 13,
    CLOCK_MONOTONIC = 1,
    RTLD_LOCAL = 0, RTLD_NOW = 2,
};
#define MAP_FAILED ((void *)-1)
#define SIG_IGN ((SignalHandler)1)
#define WEXITSTATUS(status) (((status) & 0xff00) >> 8)
#define WTERMSIG(status) ((status) & 0x7f)
#define WIFEXITED(status) (WTERMSIG(status) == 0)
#define WIFSIGNALED(status) (WTERMSIG((status) + 1) >= 2)

void *malloc(size_t);
void *realloc(void *, size_t);
void free(void *);
void _exit(int) __attribute__((noreturn));
double strtod(const char *, char **);
void qsort(void *, size_t, size_t, int (*)(const void *, const void *));

void *memchr(const void *, int, size_t);
int memcmp(const void *, const void *, size_t);
void *memcpy(void *, const void *, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
char *strchr(const char *, int);
int strcmp(const char *, const char *);
size_t strlen(const char *);
int strncmp(const char *, const char *, size_t);
char *strstr(const char *, const char *);
int snprintf(char *, size_t, const char *, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *, size_t, const char *, va_list) __attribute__((format(printf, 3, 0)));

int open(const char *, int, ...);
int close(int);
int unlink(const char *);
int dup2(int, int);
off_t lseek(int, off_t, int);
ssize_t read(int, void *, size_t);
ssize_t write(int, const void *, size_t);
int pipe(int[2]);
int poll(struct pollfd *, unsigned int, int);
int flock(int, int);
int posix_fadvise(int, off_t, off_t, int);
void *mmap(void *, size_t, int, int, int, off_t);
int munmap(void *, size_t);
int mincore(void *, size_t, unsigned char *);

pid_t fork(void);
pid_t getpid(void);
pid_t getppid(void);
pid_t waitpid(pid_t, int *, int);
int kill(pid_t, int);
SignalHandler signal(int, SignalHandler);
int prctl(int, ...);
int sched_setaffinity(pid_t, size_t, const cpu_set_t *);
int clock_gettime(int, struct timespec *);

void *dlopen(const char *, int);
void *dlsym(void *, const char *);
const char *dlerror(void);

#endif
