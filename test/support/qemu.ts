// QEMU and the guest that Romulus brings along for it, for tests that boot real machines.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { prepareGuest, type GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';

const run = promisify(execFile);

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
  try {
    await run(QEMU, ['--version'], { timeout: 10_000 });
  } catch (thrown) {
    console.log(`\n    SKIPPED: ${QEMU} does not run (apt-get install qemu-system-x86): ${String(thrown)}\n`);
    return null;
  }
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
