# A boot sector: 1000 times, compares, goes past a NOP, and branches by the flags. Writes "good" or "BAD" to port 0xe9, and switches off by port 0xf4.
# as --32 -o b.o qemu-plugin-set-pc.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o boot.bin b.o && truncate -s 1M boot.bin
	.code16
	cli
	mov $1000, %cx
	xor %bx, %bx
again:	xor %dx, %dx		# the block ends with the flags of a logical operation
	jmp 1f
1:	mov $1, %dx
	cmp $2, %dx		# CF
	nopw (%bx,%si)		# the plugin goes past this one
	jc 2f
	inc %bx			# CF is lost
2:	loop again
	mov $good, %si
	test %bx, %bx
	jz 3f
	mov $bad, %si
3:
	xor %ax, %ax
	mov %ax, %ds
	cld
4:	lodsb
	out %al, $0xe9
	cmp $'\n', %al
	jne 4b
	out %al, $0xf4
	hlt
good:	.ascii "good\n"
bad:	.ascii "BAD\n"
	.org 510
	.word 0xaa55
