/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Does an emulator go on executing code that was changed? Two threads on two CPUs: one changes the immediate operand of a MOV, by one aligned
 * 4-byte store of a growing number, and publishes the number in a flag; the other reads the flag and then calls the code. What it gets
 * must never be smaller than what it read:
 *   self    the caller executes CPUID between the read and the call            (x86's rule for the executing processor)
 *   membar  the writer calls membarrier(SYNC_CORE) between store and flag      (Linux's rule)
 *   none    neither: a CPU may be stale here, though none of today's is
 * "rwx": code is written where it runs; "alias": through a second mapping of the same page.
 *
 * cc -O2 -static -pthread -o init stale-translation.c
 * As a program: ./init [ROUNDS]. As /init of a guest (kernel command line: rounds=N): prints the table on the console and powers off.
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

enum order { MEMBAR, NONE, SELF, ORDERS };
static const char *const order_name[] = { "membar", "none", "self" };
enum { STILL = 2000 }; /* calls after a wrong one, to see if it stays wrong */

static struct test {
	enum order order;
	uint32_t (*code)(void);
	_Atomic uint32_t *operand; /* where it is written */
	uint32_t rounds;
	_Atomic uint32_t flag, seen;
	uint32_t wrong, stuck;
} t;

static void on_cpu(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set))
		perror("sched_setaffinity");
}

static void serialize(void)
{
	uint32_t a = 0, b, c, d;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d) : : "memory");
}

static int stale(uint32_t *round)
{
	uint32_t want = atomic_load(&t.flag);
	if (t.order == SELF)
		serialize();
	*round = want;
	return t.code() < want;
}

static void *caller(void *unused)
{
	uint32_t round = 0, last_wrong = 0;
	on_cpu(1);
	do {
		if (stale(&round) && round != last_wrong) {
			int still = 0;
			uint32_t again;
			last_wrong = round;
			t.wrong++;
			for (int i = 0; i < STILL; i++)
				still += stale(&again);
			t.stuck += still > STILL * 9 / 10;
		}
		atomic_store(&t.seen, round);
	} while (round < t.rounds);
	return unused;
}

static uint32_t pause_length(void)
{
	static uint32_t state = 2463534242u;
	state ^= state << 13, state ^= state >> 17, state ^= state << 5;
	return state & 0xfff;
}

static void writer(void)
{
	on_cpu(0);
	for (uint32_t n = 1; n <= t.rounds; n++) {
		while (atomic_load(&t.seen) != n - 1)
			;
		for (volatile uint32_t i = pause_length(); i; i--)
			;
		/* The same value once more makes the caller translate again; the next store shall come while it does. */
		atomic_store_explicit(t.operand, n - 1, memory_order_release);
		if (n % 8 == 7)
			usleep(200);
		for (volatile uint32_t i = pause_length() >> n % 8; i; i--)
			;
		atomic_store_explicit(t.operand, n, memory_order_release);
		if (t.order == MEMBAR && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
			perror("membarrier");
		atomic_store(&t.flag, n);
	}
}

static void run(int alias, enum order order, uint32_t rounds)
{
	/* 3 NOPs, so that the operand is aligned; mov $0,%eax; ret */
	static const uint8_t code[] = { 0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xc3 };
	int fd = memfd_create("code", 0);
	uint8_t *x, *w;
	pthread_t thread;

	if (fd < 0 || ftruncate(fd, 4096))
		perror("memfd");
	x = mmap(NULL, 4096, PROT_READ | PROT_EXEC | (alias ? 0 : PROT_WRITE), MAP_SHARED, fd, 0);
	w = alias ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : x;
	if (x == MAP_FAILED || w == MAP_FAILED) {
		perror("mmap");
		return;
	}
	memcpy(w, code, sizeof code);
	memset(&t, 0, sizeof t);
	t.order = order, t.rounds = rounds;
	t.code = (uint32_t (*)(void))(uintptr_t)x;
	t.operand = (_Atomic uint32_t *)(void *)(w + 4);
	pthread_create(&thread, NULL, caller, NULL);
	writer();
	pthread_join(thread, NULL);
	printf("RESULT %-5s %-6s rounds %u wrong %u stuck %u\n", alias ? "alias" : "rwx", order_name[order], rounds, t.wrong, t.stuck);
	fflush(stdout);
	munmap(x, 4096);
	if (alias)
		munmap(w, 4096);
	close(fd);
}

int main(int argc, char **argv)
{
	uint32_t rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 0;
	const char *only = argc > 2 ? argv[2] : "";

	if (getpid() == 1) {
		static char line[4096];
		FILE *file;
		mount("proc", "/proc", "proc", 0, NULL);
		file = fopen("/proc/cmdline", "r");
		if (file && fgets(line, sizeof line, file) && strstr(line, "rounds="))
			rounds = (uint32_t)atoi(strstr(line, "rounds=") + 7);
	}
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
		perror("membarrier: register");
	for (int alias = 0; alias < 2; alias++)
		for (enum order order = 0; order < ORDERS; order++)
			if (!*only || !strcmp(only, order_name[order]))
				run(alias, order, rounds ? rounds : 3000);
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 0;
}
