// What the test guest is told on its kernel's command line. What stands behind "--" the kernel hands to /init.

import { isIPv4 } from 'node:net';
import { badConfiguration } from '../../port.js';
import { checkRange, checkWorkload, type Workload } from '../../workload.js';

export interface GuestOptions extends Workload {
  /** Of the first network card, "10.0.0.2/24"; default: no network. */
  readonly address?: string;
  /**
   * Rate of the time-stamp counter in kHz, which is the host's; default: the kernel measures it. A microvm in QEMU's
   * emulation (TCG) should be told: it has no other clock to measure by, and where the measurement fails, as it often
   * does on busy cores ("tsc: Unable to calibrate against PIT"), its kernel waits for ever. Other machines and KVM
   * have other clocks.
   */
  readonly tscKhz?: number;
}

// A kernel that panics reboots, and under -no-reboot ends QEMU. Without IPv6 the guest sends nothing by itself.
const KERNEL_ARGUMENTS = 'console=ttyS0 quiet panic=-1 ipv6.disable=1';

/** For QEMU's -append. @throws HypervisorError BAD_CONFIGURATION and the facts `key`, `value` and what was expected */
export function guestCommandLine(options: GuestOptions = {}): string {
  const { pages, dirty, tickMs } = checkWorkload(options);
  const ours = [`romulus.pages=${pages}`, `romulus.dirty=${dirty}`, `romulus.tick_ms=${tickMs}`];
  if (options.address !== undefined) ours.push(`romulus.ip=${checkAddress(options.address)}`);
  let kernel = KERNEL_ARGUMENTS;
  if (options.tscKhz !== undefined) {
    checkRange('tscKhz', options.tscKhz, 1, 100_000_000);
    kernel += ` tsc_early_khz=${options.tscKhz}`;
  }
  return `${kernel} -- ${ours.join(' ')}`;
}

function checkAddress(value: string): string {
  const [, ip, prefix] = /^([^/]*)\/(\d{1,2})$/.exec(value) ?? [];
  if (ip !== undefined && isIPv4(ip) && ip !== '0.0.0.0' && Number(prefix) <= 32) return value;
  const facts = { key: 'address', value, expected: '10.0.0.2/24' };
  throw badConfiguration('address must be an IPv4 address and a prefix length', facts);
}
