/* QEMU plugin (TCG plugin API version 1): how often every instruction of one call was executed.
 *
 *   -plugin profile.so,from=ADDRESS,to=ADDRESS,base=ADDRESS,bytes=N,out=FILE     numbers in hexadecimal
 *
 * Counts start anew when the instruction at `from` is reached; the first time that `to` is reached after it, they are
 * written: lines of address and count. Only [base, base + bytes) is counted. The declarations below are of QEMU's
 * documented interface, so that neither its headers nor glib are needed.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0, ADD_U64 = 0 };
typedef void translated(plugin_id id, struct qemu_plugin_tb *block);
typedef void executed(unsigned vcpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translated *callback);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, executed *callback, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int operation, void *to, uint64_t value);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t from, to, base, bytes;
static const char *path;
static uint64_t *counts; /* one for every two bytes */
static enum { WAITING, COUNTING, WRITTEN } state;

static void begin(unsigned vcpu, void *data)
{
    (void)vcpu;
    (void)data;
    if (state != WRITTEN) {
        memset(counts, 0, bytes / 2u * sizeof *counts);
        state = COUNTING;
    }
}

static void end(unsigned vcpu, void *data)
{
    (void)vcpu;
    (void)data;
    if (state != COUNTING) {
        return;
    }
    state = WRITTEN;
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return; /* the caller misses the file */
    }
    for (uint64_t i = 0; i < bytes / 2u; i++) {
        if (counts[i] != 0u) {
            fprintf(file, "%" PRIx64 " %" PRIu64 "\n", base + 2u * i, counts[i]);
        }
    }
    fclose(file);
}

static void translate(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        const uint64_t at = qemu_plugin_insn_vaddr(insn);
        if (at == from) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, NO_REGISTERS, NULL);
        } else if (at == to) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, end, NO_REGISTERS, NULL);
        }
        if (at - base < bytes) {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &counts[(at - base) / 2u], 1);
        }
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        const char *const value = strchr(argv[i], '=');
        if (value == NULL) {
            return -1;
        }
        const size_t name = (size_t)(value - argv[i]);
        uint64_t *const number = strncmp(argv[i], "from", name) == 0   ? &from
                                 : strncmp(argv[i], "to", name) == 0   ? &to
                                 : strncmp(argv[i], "base", name) == 0 ? &base
                                                                       : &bytes;
        if (strncmp(argv[i], "out", name) == 0) {
            path = value + 1;
        } else {
            *number = strtoull(value + 1, NULL, 16);
        }
    }
    counts = path != NULL ? calloc(bytes / 2u + 1u, sizeof *counts) : NULL;
    if (counts == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
