// The test guest for QEMU: Debian's kernel, and an initramfs with our program (init.c) and the modules that it loads.
// Made once and kept:
//
//     CACHE/qemu-guest-HASH/    kernel, initramfs; HASH says what they were made from
//     CACHE/making-PID-…/       under way; renamed when whole, so that a guest is there whole or not at all

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeOwnDirectory } from '../process/own-directory.js';
import { unpackKernel } from './debian.js';
import { Initramfs } from './initramfs.js';
import { GUEST_MODULES, modulesInOrder } from './modules.js';

// The compiled file is dist/src/hypervisor/qemu/guest/build.js; assets stay in the source tree.
export const guestProgramFile = fileURLToPath(
  new URL('../../../../../src/hypervisor/qemu/guest/init.elf', import.meta.url),
);

export interface GuestFiles {
  /** For QEMU's -kernel: a bzImage. */
  readonly kernel: string;
  /** For QEMU's -initrd. */
  readonly initramfs: string;
}

export interface PrepareOptions {
  readonly signal: AbortSignal;
  /** Where guests are kept; default: `romulus` in the user's cache folder. */
  readonly cache?: string;
}

/**
 * The guest's files. The first call downloads a kernel of 27 MB by apt; later calls need neither apt nor network.
 * @throws HypervisorError UNSUPPORTED where this is no Debian (the message says what to install), FAILED where the
 *   kernel cannot be had; the signal's reason once that is aborted
 */
export async function prepareGuest(options: PrepareOptions): Promise<GuestFiles> {
  const { signal } = options;
  const cache = options.cache ?? userCache();
  const program = await readFile(guestProgramFile);
  const hash = createHash('sha256').update(JSON.stringify(GUEST_MODULES)).update(program).digest('hex');
  const folder = join(cache, `qemu-guest-${hash.slice(0, 12)}`);
  if (!existsSync(folder)) await make(folder, cache, program, signal);
  return { kernel: join(folder, 'kernel'), initramfs: join(folder, 'initramfs') };
}

async function make(folder: string, cache: string, program: Buffer, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await mkdir(cache, { recursive: true });
  const work = await makeOwnDirectory(cache, 'making');
  try {
    const tree = await unpackKernel(work, signal);
    const files = new Initramfs().file('init', program);
    for (const [number, bytes] of (await modulesInOrder(tree.modules, GUEST_MODULES, signal)).entries()) {
      files.file(`modules/${number}`, bytes);
    }
    const made = join(work, 'made');
    await mkdir(made);
    await copyFile(tree.kernel, join(made, 'kernel'));
    await writeFile(join(made, 'initramfs'), files.bytes(), { signal });
    await rename(made, folder).catch((error: unknown) => {
      // Another process was faster, and its guest is as good.
      if (!existsSync(folder)) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** By the XDG base directory specification, which has relative paths ignored. */
function userCache(): string {
  const given = process.env['XDG_CACHE_HOME'] ?? '';
  return join(isAbsolute(given) ? given : join(homedir(), '.cache'), 'romulus');
}
