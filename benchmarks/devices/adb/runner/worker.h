/* The process of one case: it does what it is told, one command at a time, and answers in lines. */
#ifndef POCKETSHIP_WORKER_H
#define POCKETSHIP_WORKER_H

#include "job.h"

typedef struct {
    int32_t what;  /* 'p'repare, 'b'lock of `runs`, 's'ustain, 'm'emory, 'd'ata, 'o'perations, 'q'uit */
    int32_t runs;
} Command;

/* Serve the commands of `commands` until they end; never returns. Lines on `answers` are events, but for the last of an
   answer: "=FIRST SECOND" with two numbers, or "!CAUSE DETAIL" when the case is lost. */
void work(const Job *job, size_t index, size_t process, int commands, int answers) __attribute__((noreturn));

#endif
