/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The functions that are patched, each by one word, its site. Each site has a line of its own, of whatever length: maintenance is by lines.
 */
#include <linux/linkage.h>

	.text
	/* All on one page, for one alias. */
	.balign 4096

/* u32 icsan_target_move(void): MOVZ with a constant. */
SYM_FUNC_START(icsan_target_move)
SYM_INNER_LABEL(icsan_site_move, SYM_L_GLOBAL)
	mov	w0, #1
	ret
SYM_FUNC_END(icsan_target_move)

	.balign 2048
/* u32 icsan_target_branch(void): NOP, or B over the first return. */
SYM_FUNC_START(icsan_target_branch)
	mov	w0, #1
SYM_INNER_LABEL(icsan_site_branch, SYM_L_GLOBAL)
	nop
	ret
	mov	w0, #2
	ret
SYM_FUNC_END(icsan_target_branch)
	.balign 2048
