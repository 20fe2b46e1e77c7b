// The guest that Romulus brings along for QEMU: a Linux program that is all there is in the machine (/init, pid 1),
// knows at every tick what its memory must hold (memory.h), and serves a counter over TCP (counter.h). It needs no C
// library, no shell and no mounted file system.
//
// Once it has loaded the kernel modules /modules/0, /modules/1, … and set up its network, it says "network IP/N" or
// "network none", and then, each tick,
//   1. rewrites `dirty` pages, scattered over the working set, each with its next generation,
//   2. checks every word of every page,
//   3. prints "tick N ok", or "tick N BAD p" with the number p of pages that are wrong.
// Between ticks it serves its connections, and obeys what comes in on the console:
//     q   say "bye" and power the machine off
//     b   spoil one word of the page rewritten last
//
// Arguments, which the kernel takes from its command line behind "--": romulus.pages= (1024), romulus.dirty= (200, at
// most pages), romulus.tick_ms= (50, 1 to 60000), romulus.ip=A.B.C.D/N (default: no network). Bad ones are refused
// ("bad configuration: …") and the machine powers itself off, as it does when the kernel fails it ("failed: …").
//
// Build (gcc 12.2.0, in this folder):
//   gcc -O2 -fno-tree-vectorize -funroll-loops -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -fcf-protection=none -fno-ident -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -nostdlib -static -no-pie -s -Wa,-mx86-used-note=no -Wl,--build-id=none,-z,noexecstack,-z,norelro,-z,noseparate-code -o init.elf init.c

#include "linux.h"

#include "memory.h"

#include "counter.h"

static u32 dirty = 200;
static u32 tick_ms = 50;
static u32 address, prefix;
static u64 tick_number;

// Behind `name`, if `argument` begins with it.
static const char *value_of(const char *argument, const char *name) {
  while (*name) {
    if (*argument++ != *name++) return 0;
  }
  return argument;
}

// Moves `from` behind the digits; more than `most` is refused.
static u32 read_number(const char **from, u32 most, const char *what) {
  u64 number = 0;
  const char *at = *from;
  while (*at >= '0' && *at <= '9' && number <= most) number = number * 10 + (u64)(*at++ - '0');
  if (at == *from || number > most) refuse(what);
  *from = at;
  return (u32)number;
}

static u32 whole_number(const char *text, u32 most, const char *what) {
  u32 number = read_number(&text, most, what);
  if (*text) refuse(what);
  return number;
}

static void read_address(const char *text) {
  for (int part = 0; part < 4; part++) {
    address = address << 8 | read_number(&text, 255, "romulus.ip");
    if (*text++ != (part < 3 ? '.' : '/')) refuse("romulus.ip");
  }
  prefix = whole_number(text, 32, "romulus.ip");
}

// Others may add arguments of their own: what is not ours is left alone.
static u32 read_arguments(char **arguments) {
  u32 pages = 1024;
  for (; *arguments; arguments++) {
    const char *value;
    if ((value = value_of(*arguments, "romulus.pages="))) pages = whole_number(value, PAGES_MAX, "romulus.pages");
    else if ((value = value_of(*arguments, "romulus.dirty="))) dirty = whole_number(value, PAGES_MAX, "romulus.dirty");
    else if ((value = value_of(*arguments, "romulus.tick_ms="))) tick_ms = whole_number(value, 60000, "romulus.tick_ms");
    else if ((value = value_of(*arguments, "romulus.ip="))) read_address(value);
    else if (value_of(*arguments, "romulus.")) refuse(*arguments);
  }
  if (pages == 0) refuse("romulus.pages");
  if (dirty > pages) refuse("romulus.dirty");
  if (tick_ms == 0) refuse("romulus.tick_ms");
  return pages;
}

// As bytes come and go: no lines, no echo, no newline of two characters, no hanging up.
static void make_console_raw(void) {
  struct termios settings;
  if (CALL3(ioctl, CONSOLE, TCGETS, &settings) < 0) return;
  settings.c_iflag = 0;
  settings.c_oflag = 0;
  settings.c_lflag = 0;
  settings.c_cflag |= CLOCAL;
  settings.c_cc[VMIN] = 1;
  settings.c_cc[VTIME] = 0;
  CALL3(ioctl, CONSOLE, TCSETS, &settings);
}

static void load_modules(void) {
  for (u32 number = 0;; number++) {
    char path[32];
    *put_number(put_text(path, "/modules/"), number) = 0;
    long file = CALL2(open, path, O_RDONLY);
    if (file == -ENOENT) return;
    need(file, path);
    need(CALL3(finit_module, file, "", 0), path);
    CALL1(close, file);
  }
}

static void say_network(void) {
  char line[64];
  char *end = put_text(line, "network ");
  if (address == 0) end = put_text(end, "none");
  for (int part = 3; address != 0 && part >= 0; part--) {
    end = put_number(end, address >> 8 * part & 255);
    end = part > 0 ? put_text(end, ".") : put_number(put_text(end, "/"), prefix);
  }
  say(line, put_text(end, "\n"));
}

static void tick(void) {
  char line[64];
  rewrite_pages(dirty);
  u32 bad = bad_pages();
  char *end = put_number(put_text(line, "tick "), ++tick_number);
  end = bad == 0 ? put_text(end, " ok") : put_number(put_text(end, " BAD "), bad);
  say(line, put_text(end, "\n"));
}

static void obey(void) {
  char commands[16];
  long length = CALL3(read, CONSOLE, commands, sizeof commands);
  if (length <= 0) polled[POLL_CONSOLE].fd = -1;  // nobody is there
  for (long k = 0; k < length; k++) {
    if (commands[k] == 'b') spoil();
    if (commands[k] == 'q') {
      static const char bye[] = "bye\n";
      say(bye, bye + sizeof bye - 1);
      power_off();
    }
  }
}

static u64 now_ns(void) {
  struct timespec now;
  CALL2(clock_gettime, CLOCK_MONOTONIC, &now);
  return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}

static void serve_until(u64 then) {
  do {
    u64 now = now_ns();
    u64 left = then > now ? then - now : 0;
    struct timespec wait = {.tv_sec = (long)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
    polled[POLL_LISTENER].fd = connection_count < CONNECTIONS_MAX ? listener : -1;
    long ready = CALL5(ppoll, polled, POLL_CONNECTIONS + connection_count, &wait, 0, 0);
    if (ready <= 0) continue;
    serve_connections();
    if (polled[POLL_LISTENER].revents != 0) take_connections();
    if (polled[POLL_CONSOLE].revents != 0) obey();
  } while (now_ns() < then);
}

__attribute__((used, noreturn)) static void begin(long *stack) {
  make_console_raw();
  load_modules();
  make_working_set(read_arguments((char **)stack + 2));
  if (address != 0) {
    make_network(address, prefix);
    make_listener();
  }
  say_network();
  polled[POLL_CONSOLE] = (struct pollfd){.fd = CONSOLE, .events = POLLIN};
  polled[POLL_LISTENER] = (struct pollfd){.fd = listener, .events = POLLIN};
  u64 next = now_ns();
  for (;;) {
    tick();
    u64 now = now_ns();
    next += (u64)tick_ms * 1000000u;
    if (next < now) next = now;  // ticks that took too long are not made up for
    serve_until(next);
  }
}

// The kernel leaves the number of arguments and the arguments on the stack.
__asm__(".globl _start\n_start: xor %ebp, %ebp; mov %rsp, %rdi; and $-16, %rsp; call begin\n");
