/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A boot sector of stores to one doubleword, which is 0x11111111 before each. It switches the machine off (q35).
 * as -o boot.o qemu-plugin-store-values.S && ld -Ttext 0x7c00 --oformat binary -e start -o boot.bin boot.o
 */
.code16
.globl start
start:
	cli
	xor %ax, %ax
	mov %ax, %ds
	mov $0x22222222, %ebx
.macro each text:vararg
	movl $0x11111111, 0x7000
	\text
.endm
	each mov %ebx, 0x7000
	each add %ebx, 0x7000
	each xchg %ebx, 0x7000
	mov $0x22222222, %ebx
	each lock addl $2, 0x7000
	each lock incl 0x7000
	each lock orl $2, 0x7000
	each lock xorl $2, 0x7000
	each lock notl 0x7000
	each lock btsl $1, 0x7000
	each lock xadd %ebx, 0x7000
	mov $0x22222222, %ebx
	xor %eax, %eax
	each cmpxchg %ebx, 0x7000
	xor %eax, %eax
	each lock cmpxchg %ebx, 0x7000
	xor %eax, %eax
	xor %edx, %edx
	each lock cmpxchg8b 0x7000
	mov $0x44332211, %ebx
	each movbe %ebx, 0x7000
	mov $0x604, %dx
	mov $0x2000, %ax
	out %ax, %dx
	hlt
.org 510
.word 0xaa55
