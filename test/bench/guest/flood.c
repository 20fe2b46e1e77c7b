// A guest that writes to its first virtio-blk as fast as it can: "depth=N sectors=N flush=N" in its command line are how
// many requests are under way (1 to 16), how many sectors each has (1 to 128), and after how many writes one is a flush (0:
// none is). Random places, aligned to their size. Its disk tells by an interrupt, so its vCPU sleeps meanwhile. It says "w"
// when it has begun. A multiboot image, 32 bits, nothing below it.
//
// Build (gcc 12.2.0, in this folder):
//   gcc -m32 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -fcf-protection=none -fno-ident -fno-asynchronous-unwind-tables -mno-sse -mno-mmx -nostdlib -static -no-pie -s -Wl,--build-id=none,-z,noexecstack,-z,norelro,-N,-Ttext=0x100000 -o flood.elf flood.c

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { SLOTS = 16, SECTORS_MAX = 128, RING = 256, DRIVER_OK = 7 };

__asm__(
    ".section .text\n"
    ".balign 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n"
    "_start: cli; lgdt gdtr; ljmp $8, $1f\n"
    "1: mov $16, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
    "mov $stack + 8192, %esp; push %ebx; call first; 2: hlt; jmp 2b\n"
    "gdtr: .word 23; .long gdt\n"
    "on_irq: pusha; call acknowledge; popa; iret\n"
    ".balign 8\n"
    "gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n");

extern u8 on_irq[];
u8 stack[8192] __attribute__((aligned(16)));

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct queue {
  struct descriptor descriptors[RING];
  struct { u16 flags, index, ring[RING]; } available;
  u8 padding[4096 - 4 - 2 * RING];
  struct { u16 flags; volatile u16 index; struct { u32 id, length; } ring[RING]; } used;
} __attribute__((aligned(4096)));
struct request { u32 type, priority; u64 sector; };

// Not in the image: QEMU writes that anew when it resets the machine.
static struct queue *const queue = (struct queue *)0x400000;
static struct request requests[SLOTS];
static u8 data[SLOTS][SECTORS_MAX * 512] __attribute__((aligned(4096)));
static volatile u8 statuses[SLOTS];
static u64 idt[256];
static u32 base, sectors;

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static u8 in8(u16 port) { u8 value; __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static u16 in16(u16 port) { u16 value; __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u32 in32(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }

static u32 pci(u32 device, u32 reg) { out32(0xcf8, 0x80000000u | device << 11 | reg); return in32(0xcfc); }

void acknowledge(void) {
  in8(base + 19);
  out8(0xa0, 0x20);
  out8(0x20, 0x20);
}

static void set_up_disk(void) {
  for (u32 device = 0; device < 32 && base == 0; device++) {
    if (pci(device, 0) != 0x10011af4) continue;
    base = pci(device, 0x10) & ~3u;
    u32 command = pci(device, 4);
    out32(0xcf8, 0x80000000u | device << 11 | 4);
    out32(0xcfc, command | 7);
  }
  out8(base + 18, 0);
  out8(base + 18, 3);
  out32(base + 4, in32(base) & 1 << 9);  // flush
  out16(base + 14, 0);
  if (in16(base + 12) != RING) return;
  out32(base + 8, (u32)queue >> 12);
  out8(base + 18, DRIVER_OK);
  sectors = in32(base + 20);
}

static void set_up_interrupts(void) {
  for (u32 vector = 0x20; vector < 0x30; vector++) {
    u32 address = (u32)on_irq;
    idt[vector] = (u64)(address >> 16) << 48 | 0x8e00ull << 32 | 8u << 16 | (address & 0xffff);
  }
  struct { u16 limit; u32 address; } __attribute__((packed)) idtr = {sizeof idt - 1, (u32)idt};
  __asm__ volatile("lidt %0" ::"m"(idtr));
  // All but the clock, the keyboard and the serial ports.
  out8(0x20, 0x11); out8(0x21, 0x20); out8(0x21, 4); out8(0x21, 1); out8(0x21, 0x1b);
  out8(0xa0, 0x11); out8(0xa1, 0x28); out8(0xa1, 2); out8(0xa1, 1); out8(0xa1, 0);
}

/** What the command line says behind `name` and '='. */
static u32 option(const char *line, const char *name, u32 otherwise) {
  for (; *line != 0; line++) {
    const char *at = line, *key = name;
    while (*key != 0 && *at == *key) at++, key++;
    if (*key != 0 || *at++ != '=') continue;
    u32 value = 0;
    for (; *at >= '0' && *at <= '9'; at++) value = 10 * value + (u32)(*at - '0');
    return value;
  }
  return otherwise;
}

static void submit(u32 slot, u32 count, u32 isFlush, u32 place) {
  u32 length = isFlush ? 0 : count * 512;
  requests[slot] = (struct request){isFlush ? 4 : 1, 0, isFlush ? 0 : (u64)place * count};
  u16 first = (u16)(3 * slot);
  struct descriptor *descriptors = &queue->descriptors[first];
  descriptors[0] = (struct descriptor){(u32)&requests[slot], sizeof(struct request), 1, length ? first + 1 : first + 2};
  descriptors[1] = (struct descriptor){(u32)data[slot], length, 1, first + 2};
  descriptors[2] = (struct descriptor){(u32)&statuses[slot], 1, 2, 0};
  queue->available.ring[queue->available.index % RING] = first;
  __asm__ volatile("mfence" ::: "memory");
  queue->available.index++;
}

void first(u32 boot) {
  const char *line = *(const char **)(boot + 16);
  u32 depth = option(line, "depth", 1), count = option(line, "sectors", 8), flush = option(line, "flush", 0);
  set_up_disk();
  set_up_interrupts();
  out8(0x3f8, 'w');
  out8(0x3f8, '\n');
  u32 places = sectors / count, seed = 2463534242u, busy = 0, written = 0;
  u16 seen = 0;
  for (u32 i = 0; i < sizeof data; i++) ((u8 *)data)[i] = (u8)(i * 31 + (i >> 8));
  for (;;) {
    for (; seen != queue->used.index; seen++) busy &= ~(1u << queue->used.ring[seen % RING].id / 3);
    u32 before = busy;
    for (u32 slot = 0; slot < depth; slot++) {
      if (busy & 1u << slot) continue;
      seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
      *(u32 *)data[slot] = seed;
      submit(slot, count, flush != 0 && ++written % flush == 0, seed % places);
      busy |= 1u << slot;
    }
    __asm__ volatile("mfence" ::: "memory");
    if (busy != before) out16(base + 16, 0);
    // Whatever came meanwhile wakes it: interrupts are taken from behind the hlt on.
    if (seen == queue->used.index) __asm__ volatile("sti; hlt; cli" ::: "memory");
  }
}
