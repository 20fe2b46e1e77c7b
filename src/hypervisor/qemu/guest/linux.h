// What the guest program needs of the kernel, without a C library's code: system calls, and words for
// what it says. The library's headers are only read for the shapes of what goes to the kernel.

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <linux/sockios.h>
#include <linux/sysinfo.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { CONSOLE = 0 };

static long system_call(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#define CALL0(name) system_call(__NR_##name, 0, 0, 0, 0, 0, 0)
#define CALL1(name, a) system_call(__NR_##name, (long)(a), 0, 0, 0, 0, 0)
#define CALL2(name, a, b) system_call(__NR_##name, (long)(a), (long)(b), 0, 0, 0, 0)
#define CALL3(name, a, b, c) system_call(__NR_##name, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define CALL4(name, a, b, c, d) system_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define CALL5(name, a, b, c, d, e) \
  system_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define CALL6(name, a, b, c, d, e, f) \
  system_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

// The compiler may call these by itself.
void *memset(void *to, int value, unsigned long length) {
  for (u8 *at = to; length--; at++) *at = (u8)value;
  return to;
}
void *memcpy(void *to, const void *from, unsigned long length) {
  u8 *target = to;
  const u8 *source = from;
  while (length--) *target++ = *source++;
  return to;
}

// Both return where the text ends, to write on from there.
static char *put_text(char *to, const char *text) {
  while (*text) *to++ = *text++;
  return to;
}
static char *put_number(char *to, u64 number) {
  char digits[20];
  int length = 0;
  do digits[length++] = (char)('0' + number % 10);
  while (number /= 10);
  while (length) *to++ = digits[--length];
  return to;
}

static void say(const char *from, const char *end) {
  while (from < end) {
    long written = CALL3(write, CONSOLE, from, end - from);
    if (written <= 0) return;  // no console: there is nobody to tell
    from += written;
  }
}

static __attribute__((noreturn)) void power_off(void) {
  CALL3(ioctl, CONSOLE, TCSBRK, 1);  // until the console has sent everything
  CALL4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
  for (;;) CALL0(pause);
}

static __attribute__((noreturn)) void refuse(const char *what) {
  char line[128];
  char *end = put_text(line, "bad configuration: ");
  end = put_text(end, what);
  say(line, put_text(end, "\n"));
  power_off();
}

// What a system call returned, if it is not an error; an error ends the machine.
static long need(long result, const char *what) {
  if (result >= 0) return result;
  char line[128];
  char *end = put_text(line, "failed: ");
  end = put_text(end, what);
  end = put_text(end, " error ");
  end = put_number(end, (u64)-result);
  say(line, put_text(end, "\n"));
  power_off();
}
