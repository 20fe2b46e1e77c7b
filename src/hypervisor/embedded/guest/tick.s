# The guest that Romulus brings along: a multiboot kernel that knows at every tick what each word of its working set
# must hold, so that a page lost, torn or restored from the wrong epoch is seen and said. The same of its disk.
#
#   0x100000  code and constants
#   0x104000  variables, stack
#   0x110000  generation of each page      (u32 each: how often the page was rewritten)
#   next page the working set              (pages x 4096)
#
# Word j of page i in generation g holds  (i+1) * 0x85ebca6b ^ g * 0xc2b2ae35  +  j * 0x9e3779b9  (mod 2^32).
#
# A disk of n blocks (512 bytes) is written to from its first block to its last, and over again, by writes 0, 1, 2, ….
# Word j of the block that write w went to holds  (w+1) * 0x85ebca6b  +  j * 0x9e3779b9; of one that was never written to, 0.
# Memory knows the number of writes, and by that what each block holds: a write that is lost, late or early is seen.
#
# Each tick it
#   1. rewrites `dirty` pages, scattered over the working set, each with its next generation,
#   2. obeys what came in on the serial port:  q = say "bye" and halt for good,
#                                              b = spoil one word of the page rewritten last,
#   3. checks every word of every page,
#   4. writes two blocks of the disk, each of which it checks before it is written over, and checks the next 16 blocks,
#   5. prints "tick N ok", or "tick N BAD p" with the number p of pages and blocks that are wrong,
#   6. halts until the timer says that the tick is over.
#
# Command line: pages= (1024), dirty= (200, at most pages), tick_ms= (50, 1 to 60000), disk= (0, its blocks). What does
# not fit the machine's memory is refused on the serial port ("bad configuration"), and the machine halts; as it does when
# the disk, the first of the first ATA channel, does not do what it is told ("disk failed").
# To halt for good is HLT with interrupts off: on a PC without NMI nothing can end that.
#
# Build (GNU binutils, in this folder):
#   as --32 -o tick.o tick.s && ld -m elf_i386 -N -s -z noexecstack --no-warn-rwx-segments --build-id=none -Ttext=0x100000 -Tdata=0x104000 -e start -o tick.elf tick.o

.intel_syntax noprefix
.text

.set COM1, 0x3f8
.set GENERATIONS, 0x110000
.set PAGE_FACTOR, 0x85ebca6b
.set GENERATION_FACTOR, 0xc2b2ae35
.set WORD_STEP, 0x9e3779b9
.set SCATTER, 389                    # prime: walks over all pages unless their number is a multiple of it
.set PIT_HZ, 1193182
.set IRQ_MS_MAX, 50                  # the 16-bit timer reaches 54 ms; longer ticks take several interrupts
.set ATA, 0x1f0                      # data, features, count, three of the block's number, device, command and status
.set ATA_READ, 0x20
.set ATA_WRITE, 0x30
.set BLOCK_WORDS, 128
.set DISK_WRITES, 2                  # per tick
.set DISK_CHECKS, 16

.set MULTIBOOT_MAGIC, 0x1badb002
.set MULTIBOOT_MEMORY, 2             # flag: give us the memory map
multiboot_header:
    .long MULTIBOOT_MAGIC, MULTIBOOT_MEMORY, -(MULTIBOOT_MAGIC + MULTIBOOT_MEMORY)

.globl start
start:
    cli
    cld
    mov esp, offset stack_top
    lgdt [gdt_pointer]
    ljmp 0x08, offset 1f
1:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov ebp, ebx                     # the multiboot information
    mov eax, cr4
    or eax, 0x600                    # SSE: four words at a time
    mov cr4, eax
    call serial_setup
    call read_command_line
    call check_configuration
    call interrupts_setup
    call fill_working_set
    sti

tick:
    inc dword ptr [tick_number]

    # 1. rewrite
    mov ebx, [dirty]
    test ebx, ebx
    jz rewritten
rewrite_next:
    mov eax, [cursor]
    add eax, [scatter]
    xor edx, edx
    div dword ptr [pages]
    mov [cursor], edx
    mov esi, edx
    inc dword ptr [GENERATIONS + esi * 4]
    call write_page
    dec ebx
    jnz rewrite_next
rewritten:

    # 2. obey
    mov dx, COM1 + 5
    in al, dx
    test al, 1
    jz obeyed
    mov dx, COM1
    in al, dx
    cmp al, 'q'
    je quit
    cmp al, 'b'
    jne rewritten
    mov edi, [cursor]
    shl edi, 12
    add edi, [working_set]
    xor dword ptr [edi + 20], 1
    jmp rewritten
obeyed:

    # 3. check
    xor esi, esi                     # page
    xor ebp, ebp                     # bad pages
check_page:
    call first_words
    pxor xmm2, xmm2                  # what differs, over the whole page
    mov ecx, 4096 / 128
check_words:
.irp at, 0, 16, 32, 48, 64, 80, 96, 112
    movdqa xmm1, [edi + \at]
    pxor xmm1, xmm0
    por xmm2, xmm1
    paddd xmm0, xmm7
.endr
    add edi, 128
    dec ecx
    jnz check_words
    pxor xmm1, xmm1
    pcmpeqd xmm2, xmm1
    pmovmskb eax, xmm2
    cmp eax, 0xffff
    je page_checked
    inc ebp
page_checked:
    inc esi
    cmp esi, [pages]
    jb check_page

    # 4. the disk
    cmp dword ptr [disk_blocks], 0
    je disk_done
    mov ebx, DISK_WRITES
write_next:
    mov eax, [disk_writes]
    xor edx, edx
    div dword ptr [disk_blocks]
    mov esi, edx
    call check_block
    inc dword ptr [disk_writes]
    call write_block
    dec ebx
    jnz write_next
    mov ebx, DISK_CHECKS
check_next:
    mov esi, [disk_cursor]
    call check_block
    inc esi
    cmp esi, [disk_blocks]
    jb 1f
    xor esi, esi
1:  mov [disk_cursor], esi
    dec ebx
    jnz check_next
disk_done:

    # 5. say
    mov esi, offset text_tick
    call print
    mov eax, [tick_number]
    call print_number
    test ebp, ebp
    jnz say_bad
    mov esi, offset text_ok
    call print
    jmp wait
say_bad:
    mov esi, offset text_bad
    call print
    mov eax, ebp
    call print_number
    mov esi, offset text_newline
    call print

    # 6. wait: the interrupt may come between the comparison and HLT, so interrupts are off until HLT itself
wait:
    cli
    mov eax, [interrupts]
    cmp eax, [interrupts_per_tick]
    jae tick_over
    sti
    hlt
    jmp wait
tick_over:
    mov dword ptr [interrupts], 0    # ticks that took too long are not made up for
    sti
    jmp tick

quit:
    mov esi, offset text_bye
say_and_halt:
    call print
halt_for_good:
    cli
    hlt
    jmp halt_for_good

# esi = page -> xmm0 = its first four words, xmm7 = what to add for the next four, edi = its address. Changes eax.
first_words:
    lea eax, [esi + 1]
    imul eax, eax, PAGE_FACTOR
    imul edi, [GENERATIONS + esi * 4], GENERATION_FACTOR
    xor eax, edi
    movd xmm0, eax
    pshufd xmm0, xmm0, 0
    paddd xmm0, [steps]
    movdqa xmm7, [four_steps]
    mov edi, esi
    shl edi, 12
    add edi, [working_set]
    ret

# esi = page: writes it in its present generation. Changes eax, ecx, edi, xmm0, xmm7.
write_page:
    call first_words
    mov ecx, 4096 / 128
write_words:
.irp at, 0, 16, 32, 48, 64, 80, 96, 112
    movdqa [edi + \at], xmm0
    paddd xmm0, xmm7
.endr
    add edi, 128
    dec ecx
    jnz write_words
    ret

# esi = block -> eax = its first word, edi = what to add for each next one; both 0 if it was never written to. Changes edx.
block_words:
    mov eax, [disk_writes]
    xor edx, edx
    div dword ptr [disk_blocks]      # eax = how often all of them were written, edx = how many since
    cmp esi, edx
    jb 1f
    sub eax, 1
    jc 2f
1:  imul eax, [disk_blocks]
    lea eax, [eax + esi + 1]
    imul eax, eax, PAGE_FACTOR
    mov edi, WORD_STEP
    ret
2:  xor eax, eax
    xor edi, edi
    ret

# esi = block: counts it in ebp if it is wrong. Changes eax, ecx, edx, edi.
check_block:
    mov cl, ATA_READ
    call disk_command
    mov edi, offset block
    mov ecx, BLOCK_WORDS
    mov edx, ATA
    rep insd
    call block_words
    xor ecx, ecx
1:  cmp eax, [block + ecx * 4]
    jne 2f
    add eax, edi
    inc ecx
    cmp ecx, BLOCK_WORDS
    jb 1b
    ret
2:  inc ebp
    ret

# esi = block: writes what it holds by the number of writes. Changes eax, ecx, edx, edi.
write_block:
    mov cl, ATA_WRITE
    call disk_command
    call block_words
    xor ecx, ecx
1:  mov [block + ecx * 4], eax
    add eax, edi
    inc ecx
    cmp ecx, BLOCK_WORDS
    jb 1b
    push esi
    mov esi, offset block
    mov edx, ATA
    rep outsd
    pop esi
    ret

# cl = command, esi = block: returns when the disk takes the data, or has them. Changes eax, edx.
disk_command:
    mov edx, ATA + 2
    mov al, 1
    out dx, al
    mov eax, esi
    inc edx
    out dx, al
    shr eax, 8
    inc edx
    out dx, al
    shr eax, 8
    inc edx
    out dx, al
    shr eax, 8
    or al, 0xe0                      # the first disk, by the number of the block
    inc edx
    out dx, al
    mov al, cl
    inc edx
    out dx, al
1:  in al, dx
    cmp al, 0xff                     # nobody there, or no such block
    je disk_failed
    test al, 0x80                    # busy
    jnz 1b
    test al, 0x08                    # data
    jz disk_failed
    ret
disk_failed:
    mov esi, offset text_disk_failed
    jmp say_and_halt

fill_working_set:
    xor esi, esi
fill_next:
    mov dword ptr [GENERATIONS + esi * 4], 0
    call write_page
    inc esi
    cmp esi, [pages]
    jb fill_next
    ret

# ebp = multiboot information. Reads "name=number" words.
read_command_line:
    test dword ptr [ebp], 4
    jz command_line_read
    mov esi, [ebp + 16]
next_option:
    mov ebx, offset options
try_option:
    mov edi, [ebx]                   # the option's name, zero-terminated
    test edi, edi
    jz skip_word
    mov ecx, esi
compare_name:
    mov al, [edi]
    test al, al
    jz read_value
    cmp al, [ecx]
    jne other_option
    inc edi
    inc ecx
    jmp compare_name
other_option:
    add ebx, 8
    jmp try_option
read_value:
    xor eax, eax
read_digit:
    movzx edx, byte ptr [ecx]
    sub edx, '0'
    cmp edx, 9
    ja value_read
    imul eax, eax, 10
    add eax, edx
    inc ecx
    jmp read_digit
value_read:
    mov edi, [ebx + 4]
    mov [edi], eax
skip_word:
    mov al, [esi]
    test al, al
    jz command_line_read
    inc esi
    cmp al, ' '
    jne skip_word
    jmp next_option
command_line_read:
    ret

# Works out where things lie and how long a tick is; refuses what cannot be. ebp = multiboot information.
check_configuration:
    mov eax, [pages]
    test eax, eax
    jz refuse
    cmp eax, 0x40000                 # 1 GiB
    ja refuse
    cmp [dirty], eax
    ja refuse
    lea ecx, [GENERATIONS + eax * 4 + 4095]
    and ecx, -4096
    mov [working_set], ecx
    shl eax, 12
    add ecx, eax                     # the first byte that we do not need

    # the memory that begins where we were loaded, or before
    test dword ptr [ebp], 64
    jz refuse
    mov esi, [ebp + 48]
    mov edi, [ebp + 44]
    add edi, esi
find_memory:
    cmp esi, edi
    jae refuse
    mov eax, [esi + 4]               # base
    mov edx, [esi + 12]              # length
    add edx, eax
    cmp eax, offset multiboot_header
    ja other_memory
    cmp edx, ecx
    jae memory_found
other_memory:
    add esi, [esi]
    add esi, 4
    jmp find_memory
memory_found:

    mov eax, [pages]
    xor edx, edx
    mov ecx, SCATTER
    div ecx
    test edx, edx
    jnz scatter_found
    mov dword ptr [scatter], 1
scatter_found:

    # as few interrupts as the timer allows: n = ceil(tick_ms / 50), each of tick_ms * PIT_HZ / 1000 / n counts
    mov eax, [tick_ms]
    test eax, eax
    jz refuse
    cmp eax, 60000
    ja refuse
    add eax, IRQ_MS_MAX - 1
    xor edx, edx
    mov ecx, IRQ_MS_MAX
    div ecx
    mov [interrupts_per_tick], eax
    imul ecx, eax, 1000
    mov eax, [tick_ms]
    mov edx, PIT_HZ
    mul edx
    div ecx
    mov [timer_reload], eax
    ret
refuse:
    mov esi, offset text_refused
    jmp say_and_halt

interrupts_setup:
    # exceptions 0 to 31 say so and halt, 32 (interrupt line 0) is the timer, the others are masked
    mov edi, offset idt
    mov ecx, 32
    mov eax, offset exception
    call idt_entries
    mov ecx, 1
    mov eax, offset timer_interrupt
    call idt_entries
    lidt [idt_pointer]
    # both interrupt controllers: lines at 32 to 47, all masked but the timer
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    # timer 0: rate generator
    mov al, 0x34
    out 0x43, al
    mov eax, [timer_reload]
    out 0x40, al
    mov al, ah
    out 0x40, al
    ret

# edi = first entry, ecx = number of entries, eax = handler. Leaves edi after the last.
idt_entries:
    mov [edi], ax
    mov word ptr [edi + 2], 0x08
    mov word ptr [edi + 4], 0x8e00   # present, 32-bit interrupt gate
    mov edx, eax
    shr edx, 16
    mov [edi + 6], dx
    add edi, 8
    dec ecx
    jnz idt_entries
    ret

timer_interrupt:
    push eax
    inc dword ptr [interrupts]
    mov al, 0x20
    out 0x20, al
    pop eax
    iretd

exception:
    mov esi, offset text_exception
    jmp say_and_halt

serial_setup:
    mov dx, COM1 + 1
    xor eax, eax
    out dx, al                       # no interrupts
    mov dx, COM1 + 3
    mov al, 0x80
    out dx, al
    mov dx, COM1
    mov al, 1                        # 115200 baud
    out dx, al
    mov dx, COM1 + 1
    xor eax, eax
    out dx, al
    mov dx, COM1 + 3
    mov al, 3                        # 8 data bits, no parity, 1 stop bit
    out dx, al
    mov dx, COM1 + 2
    mov al, 0x07                     # queues on and emptied
    out dx, al
    ret

# al = character. Changes dx.
print_character:
    push eax
    mov dx, COM1 + 5
1:  in al, dx
    test al, 0x20
    jz 1b
    pop eax
    mov dx, COM1
    out dx, al
    ret

# esi = text, zero-terminated. Changes eax, edx, esi.
print:
    lodsb
    test al, al
    jz 1f
    call print_character
    jmp print
1:  ret

# eax = number. Changes eax, ecx, edx, edi.
print_number:
    mov edi, 10
    xor ecx, ecx
1:  xor edx, edx
    div edi
    push edx
    inc ecx
    test eax, eax
    jnz 1b
2:  pop eax
    add al, '0'
    call print_character
    dec ecx
    jnz 2b
    ret

.balign 8, 0
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff         # code: 4 GiB from 0
    .quad 0x00cf92000000ffff         # data: 4 GiB from 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
idt_pointer:
    .word 33 * 8 - 1
    .long idt

.balign 16, 0
steps:      .long 0, WORD_STEP, 2 * WORD_STEP & 0xffffffff, 3 * WORD_STEP & 0xffffffff
four_steps: .fill 4, 4, 4 * WORD_STEP & 0xffffffff

options:
    .long text_pages_option, pages
    .long text_dirty_option, dirty
    .long text_tick_ms_option, tick_ms
    .long text_disk_option, disk_blocks
    .long 0

text_pages_option:   .asciz "pages="
text_dirty_option:   .asciz "dirty="
text_tick_ms_option: .asciz "tick_ms="
text_disk_option:    .asciz "disk="
text_tick:           .asciz "tick "
text_ok:             .asciz " ok\n"
text_bad:            .asciz " BAD "
text_newline:        .asciz "\n"
text_bye:            .asciz "bye\n"
text_refused:        .asciz "bad configuration\n"
text_disk_failed:    .asciz "disk failed\n"
text_exception:      .asciz "unexpected exception\n"

# What changes must not share a page with code: a write to a page with code throws away what was translated from it.
.data
pages:               .long 1024
dirty:               .long 200
tick_ms:             .long 50
scatter:             .long SCATTER

.bss
.balign 16
tick_number:         .skip 4
cursor:              .skip 4
disk_blocks:         .skip 4
disk_writes:         .skip 4
disk_cursor:         .skip 4
working_set:         .skip 4
interrupts:          .skip 4
interrupts_per_tick: .skip 4
timer_reload:        .skip 4
idt:                 .skip 33 * 8
block:               .skip BLOCK_WORDS * 4
stack:               .skip 1024
.balign 16
stack_top:
