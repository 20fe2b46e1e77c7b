// A guest that writes to its disks: to up to two virtio-blk from up to two vCPUs, each with a queue of its own and eight
// requests under way: of data, up to 8 KiB; some of zeroes; some flushes; and to one at the first IDE port, a sector at a
// time; to two less often than to one. No two of its runs are alike: the clock is its seed. It says "w" when it has begun.
// A multiboot image, 32 bits, nothing below it; its clock wakes it 250 times a second.
//
// Build (gcc 12.2.0, in this folder):
//   gcc -m32 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -fcf-protection=none -fno-ident -fno-asynchronous-unwind-tables -mno-sse -mno-mmx -nostdlib -static -no-pie -s -Wl,--build-id=none,-z,noexecstack,-z,norelro,-N,-Ttext=0x100000 -o writers.elf writers.c

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { DISKS = 2, CPUS = 2, SLOTS = 8, SECTORS_MAX = 16, RING = 256, TICKS_PER_SECOND = 250 };
enum { TRAMPOLINE = 0x7000, LAPIC = 0xfee00000 };
enum { IDE = 0x1f0, IDE_CONTROL = 0x3f6, IDE_BUSY = 0x80, IDE_WANTS_DATA = 8 };

__asm__(
    ".section .text\n"
    ".balign 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n"
    "_start: cli; lgdt gdtr; ljmp $8, $1f\n"
    "1: mov $16, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
    "mov $stacks + 8192, %esp; call first; 2: hlt; jmp 2b\n"
    ".code16\n"
    "trampoline: cli; xor %ax, %ax; mov %ax, %ds; lgdtl 0x7000 + gdtr - trampoline\n"
    "mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmpl $8, $second_start\n"
    "gdtr: .word 23; .long gdt\n"
    "trampoline_end:\n"
    ".code32\n"
    "second_start: mov $16, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
    "mov $stacks + 16384, %esp; call second\n"
    "on_clock: push %eax; mov $0x20, %al; out %al, $0x20; movl $0xc4040, 0xfee00300; pop %eax; iret\n"
    "on_wake: movl $0, 0xfee000b0; iret\n"
    ".balign 8\n"
    "gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n");

extern u8 trampoline[], trampoline_end[], on_clock[], on_wake[];
u8 stacks[16384] __attribute__((aligned(16)));

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct queue {
  struct descriptor descriptors[RING];
  struct { u16 flags, index, ring[RING]; } available;
  u8 padding[4096 - 4 - 2 * RING];
  struct { u16 flags; volatile u16 index; struct { u32 id, length; } ring[RING]; } used;
} __attribute__((aligned(4096)));
struct request { u32 type, priority; u64 sector; };
struct range { u64 sector; u32 count, flags; };

// Not in the image: QEMU writes that anew when it resets the machine, as it does before it loads a device state, and looks
// at the queues then.
static struct queue (*const queues)[CPUS] = (struct queue (*)[CPUS])0x400000;
static struct request requests[DISKS][CPUS][SLOTS];
static u32 data[DISKS][CPUS][SLOTS][SECTORS_MAX * 128];
static volatile u8 statuses[DISKS][CPUS][SLOTS];
static u64 idt[256];
static struct { u32 base, sectors, queue_count; } disks[DISKS];
static u32 disk_count, ide_sectors;

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static u8 in8(u16 port) { u8 value; __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static u16 in16(u16 port) { u16 value; __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u32 in32(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }

static u32 pci(u32 device, u32 reg) { out32(0xcf8, 0x80000000u | device << 11 | reg); return in32(0xcfc); }

static void set_up_disk(u32 disk) {
  u32 base = disks[disk].base;
  out8(base + 18, 0);
  out8(base + 18, 3);
  out32(base + 4, in32(base) & (1 << 9 | 1 << 14));  // flush, zeroes
  for (u32 cpu = 0; cpu < CPUS; cpu++) {
    out16(base + 14, cpu);
    if (in16(base + 12) != RING) break;
    out32(base + 8, (u32)&queues[disk][cpu] >> 12);
    disks[disk].queue_count++;
  }
  out8(base + 18, 7);
  disks[disk].sectors = in32(base + 20);
}

static void find_disks(void) {
  for (u32 device = 0; device < 32 && disk_count < DISKS; device++) {
    if (pci(device, 0) != 0x10011af4) continue;
    disks[disk_count].base = pci(device, 0x10) & ~3u;
    u32 command = pci(device, 4);
    out32(0xcf8, 0x80000000u | device << 11 | 4);
    out32(0xcfc, command | 7);
    set_up_disk(disk_count++);
  }
}

static void find_ide(void) {
  out8(IDE_CONTROL, 2);
  out8(IDE + 6, 0xe0);
  out8(IDE + 7, 0xec);
  u8 status = in8(IDE + 7);
  if (status == 0 || status == 0xff) return;
  while (!(in8(IDE + 7) & IDE_WANTS_DATA)) {}
  for (u32 i = 0; i < 256; i++) {
    u32 word = in16(IDE);
    if (i == 60) ide_sectors |= word;
    if (i == 61) ide_sectors |= word << 16;
  }
}

static void set_gate(u32 vector, const u8 *handler) {
  u32 address = (u32)handler;
  idt[vector] = (u64)(address >> 16) << 48 | 0x8e00ull << 32 | 8u << 16 | (address & 0xffff);
}

static void load_idt(void) {
  struct { u16 limit; u32 address; } __attribute__((packed)) idtr = {sizeof idt - 1, (u32)idt};
  __asm__ volatile("lidt %0" ::"m"(idtr));
  *(volatile u32 *)(LAPIC + 0xf0) = 0x1ff;
}

static void set_up_clock(void) {
  out8(0x20, 0x11); out8(0x21, 0x20); out8(0x21, 4); out8(0x21, 1); out8(0x21, 0xfe);
  out8(0xa0, 0x11); out8(0xa1, 0x28); out8(0xa1, 2); out8(0xa1, 1); out8(0xa1, 0xff);
  out8(0x43, 0x34);
  out8(0x40, (1193182 / TICKS_PER_SECOND) & 0xff);
  out8(0x40, (1193182 / TICKS_PER_SECOND) >> 8);
}

static u32 next(u32 *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  *seed ^= *seed << 5;
  return *seed;
}

static void submit(u32 disk, u32 cpu, u32 slot, u32 *seed) {
  struct request *request = &requests[disk][cpu][slot];
  struct queue *queue = &queues[disk][cpu];
  struct descriptor *descriptors = &queue->descriptors[3 * slot];
  u32 *octets = data[disk][cpu][slot];
  u32 count = 1 + next(seed) % SECTORS_MAX;
  u32 sector = next(seed) % (disks[disk].sectors - count);
  u32 kind = next(seed) % 32;
  u32 length = count * 512;
  request->sector = sector;
  if (kind == 0) {
    request->type = 4, request->sector = 0, length = 0;
  } else if (kind == 1) {
    struct range *range = (struct range *)octets;
    range->sector = sector, range->count = count, range->flags = 0;
    request->type = 13, request->sector = 0, length = sizeof *range;
  } else {
    request->type = 1;
    u32 value = next(seed);
    for (u32 i = 0; i < length / 4; i++) octets[i] = value += 0x9e3779b9;
  }
  u16 first = (u16)(3 * slot);
  descriptors[0] = (struct descriptor){(u32)request, sizeof *request, 1, length ? first + 1 : first + 2};
  descriptors[1] = (struct descriptor){(u32)octets, length, 1, first + 2};
  descriptors[2] = (struct descriptor){(u32)&statuses[disk][cpu][slot], 1, 2, 0};
  queue->available.ring[queue->available.index % RING] = first;
  __asm__ volatile("mfence" ::: "memory");
  queue->available.index++;
}

// Unless it is at work still.
static void write_ide(u32 *seed) {
  if (in8(IDE + 7) & (IDE_BUSY | IDE_WANTS_DATA)) return;
  u32 sector = next(seed) % ide_sectors;
  u32 value = next(seed);
  out8(IDE + 2, 1);
  out8(IDE + 3, (u8)sector);
  out8(IDE + 4, (u8)(sector >> 8));
  out8(IDE + 5, (u8)(sector >> 16));
  out8(IDE + 6, 0xe0 | sector >> 24);
  out8(IDE + 7, 0x30);
  while (!(in8(IDE + 7) & IDE_WANTS_DATA)) {}
  for (u32 i = 0; i < 256; i++) out16(IDE, (u16)(value += 0x9e37));
}

static void work(u32 cpu) {
  u32 low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  u32 seed = (low * 2654435761u ^ high ^ cpu << 16) | 1;
  u32 busy[DISKS] = {0};
  u16 seen[DISKS] = {0};
  // Many small writes to many places are much work for a standby.
  u32 share = disk_count > 1 ? 1 : 12;
  for (;;) {
    for (u32 disk = 0; disk < disk_count; disk++) {
      if (cpu >= disks[disk].queue_count) continue;
      struct queue *queue = &queues[disk][cpu];
      for (; seen[disk] != queue->used.index; seen[disk]++) {
        busy[disk] &= ~(1u << queue->used.ring[seen[disk] % RING].id / 3);
      }
      u32 before = busy[disk];
      for (u32 slot = 0; slot < SLOTS; slot++) {
        if (busy[disk] & 1u << slot || next(&seed) % 16 >= share) continue;
        submit(disk, cpu, slot, &seed);
        busy[disk] |= 1u << slot;
      }
      __asm__ volatile("mfence" ::: "memory");
      if (busy[disk] != before) out16(disks[disk].base + 16, (u16)cpu);
    }
    if (cpu == 0 && ide_sectors > 0 && next(&seed) % 4 == 0) write_ide(&seed);
    __asm__ volatile("sti; hlt; cli" ::: "memory");
  }
}

static void pause(u32 count) { while (count--) out8(0x80, 0); }

void second(void) {
  load_idt();
  work(1);
}

void first(void) {
  find_disks();
  find_ide();
  set_gate(0x20, on_clock);
  set_gate(0x40, on_wake);
  load_idt();
  u8 *to = (u8 *)TRAMPOLINE;
  for (const u8 *from = trampoline; from < trampoline_end; from++) *to++ = *from;
  *(volatile u32 *)(LAPIC + 0x300) = 0xc4500;
  pause(20000);
  *(volatile u32 *)(LAPIC + 0x300) = 0xc4600 | TRAMPOLINE >> 12;
  pause(20000);
  set_up_clock();
  out8(0x3f8, 'w');
  out8(0x3f8, '\n');
  work(0);
}
