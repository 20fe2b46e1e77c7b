// QEMU and the guest that Romulus brings along for it, for tests that boot real machines.

import { fileURLToPath } from 'node:url';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { prepareGuest, type GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { ensureInstalled } from './tools.js';

export const QEMU = 'qemu-system-x86_64';

/** Time that fetching the guest's kernel may take on a slow machine. */
export const GUEST_TIMEOUT_MS = 300_000;

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
