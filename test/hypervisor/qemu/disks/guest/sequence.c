// A guest that writes numbered blocks to its disk, a virtio-blk, and checks them, for ever. Which write goes to which block
// follows from its number, and each fills its block with its number and a random one (the clock's). So the disk of any one
// moment follows from the highest number on it, and what it is of two moments shows by itself:
//
//   write n ──▶ block n · A mod BLOCKS (A is odd): so block b has the last n up to N that is b / A mod BLOCKS
//
// Writes are given eight at a time, in their order, and waited for. Before a block is written to, it is read, and compared
// with what memory knows of it; now and then all are. It says, a line each:
//
//   boot N M     numbers up to N are there, without gaps up to M (of the last eight a crash may leave any)
//   ok N         the disk is as memory knows it, all of it
//   error B      what it wanted of block B has failed, and is tried again
//   BAD ...      the disk is not what it should be; nothing follows
//
// A multiboot image, 32 bits, nothing below it; its clock wakes it 250 times a second.
//
// Build (gcc 12.2.0, in this folder):
//   gcc -m32 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -fcf-protection=none -fno-ident -fno-asynchronous-unwind-tables -mno-sse -mno-mmx -nostdlib -static -no-pie -s -Wl,--build-id=none,-z,noexecstack,-z,norelro,-N,-Ttext=0x100000 -o sequence.elf sequence.c

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { SECTORS = 8, WORDS = 128, BLOCK_BYTES = 4096, BLOCKS = 1024, DEPTH = 8, RING = 256, TICKS_PER_SECOND = 250 };
enum { A = 0x2e5, MAGIC = 0x5e90e7ce, BATCHES = 16, RUN = 16 };

__asm__(
    ".section .text\n"
    ".balign 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n"
    "_start: cli; lgdt gdtr; ljmp $8, $1f\n"
    "1: mov $16, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
    "mov $stack + 8192, %esp; call begin; 2: cli; hlt; jmp 2b\n"
    "on_clock: push %eax; mov $0x20, %al; out %al, $0x20; pop %eax; iret\n"
    "gdtr: .word 23; .long gdt\n"
    ".balign 8\n"
    "gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n");

extern u8 on_clock[];
u8 stack[8192] __attribute__((aligned(16)));

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct queue {
  struct descriptor descriptors[RING];
  struct { u16 flags, index, ring[RING]; } available;
  u8 padding[4096 - 4 - 2 * RING];
  struct { u16 flags; volatile u16 index; struct { u32 id, length; } ring[RING]; } used;
} __attribute__((aligned(4096)));
struct request { u32 type, priority; u64 sector; };
struct block { u32 sequence, nonce; };

// Not in the image: QEMU writes that anew when it resets the machine, as it does before it loads a device state, and looks
// at the queue then.
static struct queue *const queue = (struct queue *)0x400000;
static u32 (*const data)[RUN * BLOCK_BYTES / 4] = (void *)0x500000;
static struct request requests[DEPTH];
static volatile u8 statuses[DEPTH];
static struct block known[BLOCKS];
static u64 idt[256];
static u32 base, inverse, seed;
static u16 seen;

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static u32 in32(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }

static void say(const char *text) { while (*text) out8(0x3f8, (u8)*text++); }

static void say_number(u32 value) {
  char digits[12];
  u32 at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + value % 10); while (value /= 10);
  say(" ");
  say(digits + at);
}

static void fail(const char *what, u32 block, u32 found, u32 expected) {
  say("BAD "), say(what), say(", block"), say_number(block);
  say(", found"), say_number(found), say(", expected"), say_number(expected), say("\n");
  for (;;) __asm__ volatile("cli; hlt");
}

static u32 pci(u32 device, u32 reg) { out32(0xcf8, 0x80000000u | device << 11 | reg); return in32(0xcfc); }

static void set_up_disk(void) {
  for (u32 device = 0; device < 32; device++) {
    if (pci(device, 0) != 0x10011af4) continue;
    base = pci(device, 0x10) & ~3u;
    u32 command = pci(device, 4);
    out32(0xcf8, 0x80000000u | device << 11 | 4);
    out32(0xcfc, command | 7);
  }
  out8(base + 18, 0);
  out8(base + 18, 3);
  out32(base + 4, 0);
  out16(base + 14, 0);
  out32(base + 8, (u32)queue >> 12);
  out8(base + 18, 7);
  if (in32(base + 20) != BLOCKS * SECTORS) fail("size", 0, in32(base + 20), BLOCKS * SECTORS);
}

static void set_up_clock(void) {
  struct { u16 limit; u32 address; } __attribute__((packed)) idtr = {sizeof idt - 1, (u32)idt};
  u32 handler = (u32)on_clock;
  idt[0x20] = (u64)(handler >> 16) << 48 | 0x8e00ull << 32 | 8u << 16 | (handler & 0xffff);
  __asm__ volatile("lidt %0" ::"m"(idtr));
  out8(0x20, 0x11); out8(0x21, 0x20); out8(0x21, 4); out8(0x21, 1); out8(0x21, 0xfe);
  out8(0xa0, 0x11); out8(0xa1, 0x28); out8(0xa1, 2); out8(0xa1, 1); out8(0xa1, 0xff);
  out8(0x43, 0x34);
  out8(0x40, (1193182 / TICKS_PER_SECOND) & 0xff);
  out8(0x40, (1193182 / TICKS_PER_SECOND) >> 8);
}

/** Of the slot's data: `blocks` from this one on. */
static void submit(u32 slot, u32 is_write, u32 block, u32 blocks) {
  struct descriptor *descriptors = &queue->descriptors[3 * slot];
  requests[slot] = (struct request){is_write, 0, (u64)block * SECTORS};
  statuses[slot] = 0xff;
  u16 first = (u16)(3 * slot);
  descriptors[0] = (struct descriptor){(u32)&requests[slot], sizeof requests[slot], 1, first + 1};
  descriptors[1] = (struct descriptor){(u32)data[slot], blocks * BLOCK_BYTES, is_write ? 1 : 3, first + 2};
  descriptors[2] = (struct descriptor){(u32)&statuses[slot], 1, 2, 0};
  queue->available.ring[queue->available.index % RING] = first;
  __asm__ volatile("mfence" ::: "memory");
  queue->available.index++;
}

static void give_again(u32 slot) {
  say("error"), say_number((u32)requests[slot].sector / SECTORS), say("\n");
  __asm__ volatile("sti; hlt; cli" ::: "memory");
  submit(slot, requests[slot].type, (u32)requests[slot].sector / SECTORS, queue->descriptors[3 * slot + 1].length / BLOCK_BYTES);
}

/** Until all have been done. */
static void wait(u32 count) {
  for (u16 due = (u16)(seen + count);;) {
    __asm__ volatile("mfence" ::: "memory");
    out16(base + 16, 0);
    if (queue->used.index != due) {
      __asm__ volatile("sti; hlt; cli" ::: "memory");
      continue;
    }
    u32 failed = 0;
    for (u32 slot = 0; slot < count; slot++) if (statuses[slot] != 0) give_again(slot), failed++;
    if (failed == 0) break;
    due = (u16)(due + failed);
  }
  seen = queue->used.index;
}

static u32 word(struct block block, u32 sector, u32 at) {
  u32 value = (block.sequence * WORDS * SECTORS + sector * WORDS + at) * 0x9e3779b1u ^ block.nonce;
  return value ^ value >> 15;
}

static void fill(u32 *words, struct block block) {
  for (u32 sector = 0; sector < SECTORS; sector++, words += WORDS) {
    words[0] = MAGIC, words[1] = block.sequence, words[2] = block.nonce;
    for (u32 at = 3; at < WORDS; at++) words[at] = word(block, sector, at);
  }
}

/** Which write it is of, all of it. */
static struct block read_block(const u32 *words, u32 number) {
  struct block block = {words[1], words[2]};
  if (words[0] == 0) {
    for (u32 at = 0; at < BLOCK_BYTES / 4; at++) if (words[at]) fail("not blank", number, words[at], 0);
    return (struct block){0, 0};
  }
  for (u32 sector = 0; sector < SECTORS; sector++, words += WORDS) {
    if (words[0] != MAGIC) fail("no block", number, words[0], MAGIC);
    if (words[1] != block.sequence) fail("torn", number, words[1], block.sequence);
    if (words[2] != block.nonce) fail("torn within a number", number, words[2], block.nonce);
    for (u32 at = 3; at < WORDS; at++)
      if (words[at] != word(block, sector, at)) fail("torn within a sector", number, at, block.sequence);
  }
  return block;
}

static void compare(const u32 *words, u32 number) {
  struct block is = read_block(words, number), was = known[number];
  if (is.sequence != was.sequence) fail("another write", number, is.sequence, was.sequence);
  if (is.nonce != was.nonce) fail("another time", number, is.nonce, was.nonce);
}

static u32 block_of(u32 sequence) { return sequence * A % BLOCKS; }

/** The last write up to this one that went to the block; 0: none did. */
static u32 last_of(u32 block, u32 sequence) {
  u32 back = (sequence - block * inverse) % BLOCKS;
  return back < sequence ? sequence - back : 0;
}

static void all_blocks(void (*use)(const u32 *words, u32 number)) {
  for (u32 block = 0; block < BLOCKS; block += DEPTH * RUN) {
    for (u32 slot = 0; slot < DEPTH; slot++) submit(slot, 0, block + slot * RUN, RUN);
    wait(DEPTH);
    for (u32 i = 0; i < DEPTH * RUN; i++) use(data[i / RUN] + i % RUN * (BLOCK_BYTES / 4), block + i);
  }
}

static void learn(const u32 *words, u32 number) { known[number] = read_block(words, number); }

/** Up to which number there are no gaps. */
static u32 find(void) {
  u32 last = 0;
  all_blocks(learn);
  for (u32 block = 0; block < BLOCKS; block++) if (known[block].sequence > last) last = known[block].sequence;
  u32 whole = last;
  for (u32 block = 0; block < BLOCKS; block++) {
    u32 due = last_of(block, last), is = known[block].sequence;
    if (is == due) continue;
    if (due + DEPTH <= last || is != last_of(block, due - 1)) fail("a mix", block, is, due);
    if (due - 1 < whole) whole = due - 1;
  }
  say("boot"), say_number(last), say_number(whole), say("\n");
  return whole;
}

static void write_eight(u32 sequence) {
  for (u32 slot = 0; slot < DEPTH; slot++) submit(slot, 0, block_of(sequence + slot), 1);
  wait(DEPTH);
  for (u32 slot = 0; slot < DEPTH; slot++) compare(data[slot], block_of(sequence + slot));
  struct block written[DEPTH];
  for (u32 slot = 0; slot < DEPTH; slot++) {
    seed = seed * 1664525 + 1013904223;
    written[slot] = (struct block){sequence + slot, seed};
    fill(data[slot], written[slot]);
    submit(slot, 1, block_of(sequence + slot), 1);
  }
  wait(DEPTH);
  for (u32 slot = 0; slot < DEPTH; slot++) known[block_of(sequence + slot)] = written[slot];
}

void begin(void) {
  u32 low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  seed = low * 2654435761u ^ high;
  for (inverse = 1; inverse * A % BLOCKS != 1;) inverse += 2;
  set_up_disk();
  set_up_clock();
  for (u32 sequence = find();;) {
    for (u32 batch = 0; batch < BATCHES; batch++, sequence += DEPTH) write_eight(sequence + 1);
    all_blocks(compare);
    say("ok"), say_number(sequence), say("\n");
  }
}
