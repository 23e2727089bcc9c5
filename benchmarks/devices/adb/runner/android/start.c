/* Where a program begins on Android, as bionic's crtbegin_dynamic has it: hand the kernel's stack to __libc_init. */
#include "bionic.h"

typedef void (*Function)(void);

/* Android 14's order; older versions read the first three alone, and want an end of -1 and 0 in each. */
typedef struct {
    Function *preinit, *init, *fini;
    size_t preinit_count, init_count, fini_count;
} Structors;

void __libc_init(void *stack, Function unused, int (*main)(int, char **, char **), const Structors *structors)
    __attribute__((noreturn));
int main(int count, char **words);

static int main_of_three(int count, char **words, char **environment) {
    (void)environment;
    return main(count, words);
}

__attribute__((used, noreturn)) static void begin(void *stack) {
    static Function none[] = {(Function)-1, NULL};
    static const Structors structors = {none, none, none, 0, 0, 0};
    __libc_init(stack, NULL, main_of_three, &structors);
}

__asm__(
    ".text\n"
    ".global _start\n"
    ".type _start, %function\n"
    "_start:\n"
    "    mov x29, #0\n"
    "    mov x30, #0\n"
    "    mov x0, sp\n"
    "    b begin\n"
    ".size _start, . - _start\n");
