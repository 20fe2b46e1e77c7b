// What the demo runs: the embedded machine, which needs nothing, or a stock guest in QEMU. Both tick on their consoles
// in the same words.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { asError, codeOf } from '../../errors.js';
import { parseSize } from '../../config/units.js';
import { workingSet } from '../machine.js';
import { prepareGuest, type GuestFiles } from '../../hypervisor/qemu/guest/build.js';
import { guestCommandLine } from '../../hypervisor/qemu/guest/command-line.js';
import { UsageError } from '../exit-codes.js';

export interface DemoMachine {
  /** For people: the beginning of a sentence. */
  readonly description: string;
  /** The section of both configurations. */
  readonly hypervisor: object;
  /** It boots before it ticks: the demo's checkpoints are counted from its first tick on. */
  readonly boots: boolean;
}

export interface LoadOptions {
  /** As the configuration takes it, "64MiB". */
  readonly memory: string;
  /** Pages that the guest rewrites per tick. */
  readonly dirtyPages: number;
}

const QEMU = 'qemu-system-x86_64';
/** Pages that the guest checks at each tick, if it need not rewrite more. */
const WORKING_SET_PAGES = 1024;

export function embeddedMachine({ memory, dirtyPages }: LoadOptions): DemoMachine {
  const guest = workingSet(parseSize(memory) ?? 0, dirtyPages);
  return {
    description: `A machine of ${memory}`,
    hypervisor: { kind: 'embedded', memory, guest },
    boots: false,
  };
}

/**
 * Debian's kernel in QEMU, without KVM so that it runs anywhere; its network card is there to be held. The first time
 * the kernel is downloaded.
 * @throws UsageError where something must be installed first; else as prepareGuest()
 */
export async function qemuMachine(
  { memory, dirtyPages }: LoadOptions,
  signal: AbortSignal,
): Promise<DemoMachine> {
  const version = await qemuVersion(signal);
  const { kernel, initramfs } = await guestFiles(signal);
  const workingSetPages = Math.max(WORKING_SET_PAGES, dirtyPages);
  const commandLine = guestCommandLine({ dirtyPages, workingSetPages });
  return {
    description: `Debian's kernel in a QEMU ${version} of ${memory}`,
    hypervisor: {
      kind: 'qemu',
      accelerator: 'tcg',
      machine: 'q35',
      cpu: 'max',
      memory,
      arguments: ['-kernel', kernel, '-initrd', initramfs, '-append', commandLine],
      network: [{ id: 'net', user: 'restrict=on' }],
    },
    boots: true,
  };
}

async function qemuVersion(signal: AbortSignal): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(QEMU, ['--version'], { signal, timeout: 10_000 });
    return /version (\S+)/.exec(stdout)?.[1] ?? '';
  } catch (error) {
    signal.throwIfAborted();
    const why = `${QEMU} does not run here (${asError(error).message})`;
    throw new UsageError(`${why}; install it first: apt-get install qemu-system-x86`);
  }
}

async function guestFiles(signal: AbortSignal): Promise<GuestFiles> {
  try {
    return await prepareGuest({ signal });
  } catch (error) {
    if (codeOf(error) === 'UNSUPPORTED') throw new UsageError(asError(error).message);
    throw error;
  }
}
