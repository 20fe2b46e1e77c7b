// QEMU and the guest that Romulus brings along for it, for tests that boot real machines.

import { fileURLToPath } from 'node:url';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { prepareGuest, type GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { guestCommandLine, type GuestOptions } from '../../src/hypervisor/qemu/guest/command-line.js';
import { ensureInstalled } from './tools.js';

export const QEMU = 'qemu-system-x86_64';

/** Time that fetching the guest's kernel may take on a slow machine. */
export const GUEST_TIMEOUT_MS = 300_000;

/** The hypervisor's section of a configuration: the guest in a machine that emulates, without a network. */
export function guestMachine({ kernel, initramfs }: GuestFiles, options: GuestOptions) {
  return {
    ...{ kind: 'qemu', accelerator: 'tcg', machine: 'q35', cpu: 'max', memory: '128MiB' },
    arguments: ['-kernel', kernel, '-initrd', initramfs, '-append', guestCommandLine(options)],
  };
}

// Beside what the other tools of the tests are kept in. Seen from dist/test/support.
const cache = fileURLToPath(new URL('../../../node_modules/.cache/romulus-tools/', import.meta.url));

/**
 * The guest's files, and the certainty that QEMU runs. Null, and a loud line on standard output, where QEMU or the
 * guest's kernel cannot be had: only then may a test skip itself.
 */
export async function ensureGuest(): Promise<GuestFiles | null> {
  if ((await ensureInstalled(QEMU, 'qemu-system-x86')) === null) return null;
  try {
    return await prepareGuest({ signal: AbortSignal.timeout(GUEST_TIMEOUT_MS), cache });
  } catch (thrown) {
    if (!(thrown instanceof HypervisorError)) throw thrown;
    const { stderr } = thrown.facts;
    console.log(
      `\n    SKIPPED: the test guest for QEMU cannot be made here: ${thrown.message} ${String(stderr ?? '')}\n`,
    );
    return null;
  }
}
