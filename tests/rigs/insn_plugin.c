/* Counts the guest instructions that qemu-user executes, by whole blocks.

   INSN_OUT names a file of 8 bytes, the count so far in the machine's byte order, that anybody may read while the process
   runs and after it; without it nothing is counted. Programs that the process starts add to the same file. Threads that
   run at once share the counter without a lock: count with one thread. Debian has no qemu-plugin.h, so the part of its
   API (version 1) that is used here is declared by hand. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *counter, uint64_t);

EXPORTED int qemu_plugin_version = 1;

static uint64_t *instructions;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, instructions,
                                             qemu_plugin_tb_n_insns(block));
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    const char *path = getenv("INSN_OUT");
    if (path == NULL)
        return 0;
    int file = open(path, O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, sizeof *instructions) != 0) {
        perror(path);
        return 1;
    }
    instructions = mmap(NULL, sizeof *instructions, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (instructions == MAP_FAILED) {
        perror(path);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
