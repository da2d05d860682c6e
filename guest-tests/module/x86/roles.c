// SPDX-License-Identifier: GPL-2.0
/*
 * The ways to change code on x86-64, right and wrong. The functions that store have names of their own, for the report to name them.
 *
 * A wrong role has the executor run the old version, stores, and has it run the new one, with interrupts off on that CPU: no tick can
 * serialize it in between and rightly hide the mistake.
 */
#include <linux/irqflags.h>
#include <linux/smp.h>
#include <asm/sync_core.h>

#include "machine.h"

/* All of an instruction's operand, in one store. */
static noinline void icsan_write_operand(u8 *alias, const u8 *bytes)
{
	WRITE_ONCE(*(u32 *)(alias + 1), *(const u32 *)(bytes + 1));
}

/* Some of an instruction, each byte for itself. */
static noinline void icsan_write_bytes(u8 *alias, const u8 *bytes, int from, int to)
{
	int at;

	for (at = from; at < to; at++)
		WRITE_ONCE(alias[at], bytes[at]);
}

/* The kernel's whole protocol. */
static int icsan_role_good(struct icsan_run *run, int version)
{
	int error = icsan_let_run(run);

	if (error)
		return error;
	icsan_poke_protocol(run->site->text, run->site->version[version], ICSAN_LENGTH);
	return icsan_finish(run, version, true);
}

/* INT3, sync, tail, sync, first byte, sync: by hand. */
static int icsan_role_good_own(struct icsan_run *run, int version)
{
	static const u8 int3 = 0xcc;
	struct icsan_site *site = run->site;
	const u8 *bytes = site->version[version];
	int error = icsan_quiet(run);

	if (error)
		return error;
	icsan_expect_int3(site, version);
	icsan_poke(site->text, &int3, 1);
	/* Old bytes and INT3 in one epoch: what a profile without the INT3 exemption has to report. */
	icsan_await_int3();
	error = icsan_tell(run, ICSAN_RUN);
	if (error)
		return error;
	icsan_sync_all();
	icsan_poke(site->text + 1, bytes + 1, ICSAN_LENGTH - 1);
	icsan_sync_all();
	icsan_poke(site->text, bytes, 1);
	icsan_sync_all();
	return icsan_finish(run, version, true);
}

/* text_poke(), and nothing: the caller was meant to send the IPIs. */
static int icsan_role_no_ipi(struct icsan_run *run, int version)
{
	int error = icsan_quiet(run);

	if (error)
		return error;
	icsan_poke(run->site->text, run->site->version[version], ICSAN_LENGTH);
	return icsan_finish(run, version, false);
}

/* text_poke() while the executor stands aside; it serializes before it comes back. */
static int icsan_role_aside(struct icsan_run *run, int version)
{
	int error = icsan_quiet(run) ?: icsan_tell(run, ICSAN_ASIDE_QUIET);

	if (error)
		return error;
	icsan_poke(run->site->text, run->site->version[version], ICSAN_LENGTH);
	error = icsan_tell(run, ICSAN_RUN_QUIET);
	return error ?: icsan_finish(run, version, true);
}

static void icsan_empty(void *unused)
{
}

static void icsan_serialize(void *unused)
{
	sync_core();
}

/* One store while the executor stands aside with interrupts on, and an IPI before it comes back. */
static int icsan_ipi(struct icsan_run *run, int version, smp_call_func_t handler)
{
	int error = icsan_let_run(run) ?: icsan_tell(run, ICSAN_ASIDE);

	if (error)
		return error;
	icsan_write_operand(run->site->alias, run->site->version[version]);
	on_each_cpu(handler, NULL, 1);
	error = icsan_tell(run, ICSAN_RUN);
	return error ?: icsan_finish(run, version, true);
}

/* Only the return from the IPI serializes, if that does. */
static int icsan_role_ipi_no_sync(struct icsan_run *run, int version)
{
	return icsan_ipi(run, version, icsan_empty);
}

static int icsan_role_ipi_sync(struct icsan_run *run, int version)
{
	return icsan_ipi(run, version, icsan_serialize);
}

/* In place, across two chunks, under a CPU that runs it. */
static int icsan_role_no_int3(struct icsan_run *run, int version)
{
	int error = icsan_quiet(run);

	if (error)
		return error;
	icsan_write_bytes(run->site->alias, run->site->version[version], 0, ICSAN_LENGTH);
	return icsan_finish(run, version, false);
}

/* The tail before the INT3 that should have guarded it. */
static int icsan_role_wrong_order(struct icsan_run *run, int version)
{
	static const u8 int3 = 0xcc;
	struct icsan_site *site = run->site;
	const u8 *bytes = site->version[version];
	int error = icsan_quiet(run);

	if (error)
		return error;
	icsan_write_bytes(site->alias, bytes, 1, ICSAN_LENGTH);
	error = icsan_let_run(run) ?: icsan_tell(run, ICSAN_RUN);
	if (error)
		return error;
	icsan_sync_all();
	icsan_expect_int3(site, version);
	icsan_write_bytes(site->alias, &int3, 0, 1);
	icsan_sync_all();
	icsan_write_bytes(site->alias, bytes, 0, 1);
	icsan_sync_all();
	return icsan_finish(run, version, true);
}

/* This CPU writes through the direct map and executes through the module's own address. */
static int icsan_own(struct icsan_run *run, int version, bool sync)
{
	struct icsan_site *site = run->site;
	unsigned long flags;
	u32 value;

	local_irq_save(flags);
	icsan_call(site);
	icsan_write_operand(site->alias, site->version[version]);
	if (sync)
		sync_core();
	value = icsan_call(site);
	local_irq_restore(flags);
	icsan_check(run, value, version, sync);
	return 0;
}

static int icsan_role_direct_map(struct icsan_run *run, int version)
{
	return icsan_own(run, version, false);
}

static int icsan_role_direct_map_sync(struct icsan_run *run, int version)
{
	return icsan_own(run, version, true);
}

/* One store through the direct map under another CPU that runs the code. */
static int icsan_role_direct_map_cross(struct icsan_run *run, int version)
{
	int error = icsan_quiet(run);

	if (error)
		return error;
	icsan_write_operand(run->site->alias, run->site->version[version]);
	return icsan_finish(run, version, false);
}

/* The same while the executor stands aside; it serializes before it comes back. */
static int icsan_role_direct_map_cross_sync(struct icsan_run *run, int version)
{
	int error = icsan_quiet(run) ?: icsan_tell(run, ICSAN_ASIDE_QUIET);

	if (error)
		return error;
	icsan_write_operand(run->site->alias, run->site->version[version]);
	error = icsan_tell(run, ICSAN_RUN_QUIET);
	return error ?: icsan_finish(run, version, true);
}

const struct icsan_role icsan_roles[] = {
	{ "good", &icsan_jump, .patch = icsan_role_good },
	{ "good-own", &icsan_chunk, .patch = icsan_role_good_own },
	{ "no-ipi", &icsan_quad, .patch = icsan_role_no_ipi },
	{ "aside", &icsan_quad, .sync_on_return = true, .patch = icsan_role_aside },
	{ "ipi-no-sync", &icsan_quad, .patch = icsan_role_ipi_no_sync },
	{ "ipi-sync", &icsan_quad, .patch = icsan_role_ipi_sync },
	{ "no-int3", &icsan_chunk, .patch = icsan_role_no_int3 },
	{ "wrong-order", &icsan_chunk, .patch = icsan_role_wrong_order },
	{ "direct-map", &icsan_quad, .own = true, .patch = icsan_role_direct_map },
	{ "direct-map-sync", &icsan_quad, .own = true, .patch = icsan_role_direct_map_sync },
	{ "direct-map-cross", &icsan_quad, .patch = icsan_role_direct_map_cross },
	{ "direct-map-cross-sync", &icsan_quad, .sync_on_return = true, .patch = icsan_role_direct_map_cross_sync },
};
const unsigned int icsan_role_count = ARRAY_SIZE(icsan_roles);
