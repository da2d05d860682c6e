/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The functions that are patched. Each holds one instruction of five bytes, its site, that is changed while other CPUs may run it.
 *
 * QEMU executes whatever stands in memory at the moment, half-written instructions included, so every mix of the versions of a site that
 * is not written whole must be harmless: only EAX may differ.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>

	.text
	/* What a function begins with differs from kernel to kernel, so sites stand at distances from a chunk, not from the function. */
	/* All on one page, for one alias. */
	.balign 512

/* u32 icsan_target_quad(u32): MOV or OR with a constant. Within one 16-byte chunk, but its operand straddles two quadwords. */
SYM_FUNC_START_NOALIGN(icsan_target_quad)
	xorl	%eax, %eax
	.balign	16
	.nops	4
SYM_INNER_LABEL(icsan_site_quad, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	.byte	0xb8, 1, 1, 1, 1
	RET
SYM_FUNC_END(icsan_target_quad)

	.balign 64
/* u32 icsan_target_chunk(u32): the same, with three bytes in one chunk and two in the next. */
SYM_FUNC_START_NOALIGN(icsan_target_chunk)
	xorl	%eax, %eax
	.balign	16
	.nops	13
SYM_INNER_LABEL(icsan_site_chunk, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	.byte	0xb8, 1, 1, 1, 1
	RET
SYM_FUNC_END(icsan_target_chunk)

	.balign 64
/* u32 icsan_target_jump(u32 other): NOP or JMP, across two chunks like the last one. Only for protocols that nobody sees half-way. */
SYM_FUNC_START_NOALIGN(icsan_target_jump)
	testl	%edi, %edi
	jnz	icsan_jump_to
	movl	$0x01010101, %eax
	.balign	16
	.nops	13
SYM_INNER_LABEL(icsan_site_jump, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	.byte	0x0f, 0x1f, 0x44, 0x00, 0x00
	RET
SYM_INNER_LABEL(icsan_jump_to, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	movl	$0x02020202, %eax
	RET
SYM_FUNC_END(icsan_target_jump)

	.section .rodata
/* What the NOP becomes. */
SYM_DATA_START(icsan_jump_insn)
	.byte	0xe9
	.long	icsan_jump_to - icsan_site_jump - 5
SYM_DATA_END(icsan_jump_insn)
