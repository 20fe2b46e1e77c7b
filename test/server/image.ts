// The Debian server of this test, made by guest/build.sh from Debian's packages, once, and kept where the next run finds it:
//
//     CACHE/server-HASH/      HASH says what it was made by
//     CACHE/making-PID-…/     under way; renamed when whole, so that a server is there whole or not at all

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { asError } from '../../src/errors.js';
import { isAlive } from '../support/processes.js';
import { ensureInstalled } from '../support/tools.js';

const run = promisify(execFile);

// Seen from dist/test/server: what is not compiled stays in the source tree.
const RECIPE = fileURLToPath(new URL('../../../test/server/guest/', import.meta.url));
const SCRIPTS = ['build.sh', 'before.sh', 'customise.sh'] as const;
/** What they are made with. */
const PROGRAMS = [
  ['mmdebstrap', 'mmdebstrap'],
  ['mke2fs', 'e2fsprogs'],
  ['qemu-img', 'qemu-utils'],
  ['ssh-keygen', 'openssh-client'],
] as const;
/** On a machine that is slow, from an archive that is far away. */
export const BUILD_TIMEOUT_MS = 1_200_000;
/** Of the virtual disk, as build.sh makes it. */
export const DISK_BYTES = 2 * 2 ** 30;

export interface ServerFiles {
  readonly kernel: string;
  readonly initrd: string;
  /** qcow2. Nobody writes to it: each run has a copy. */
  readonly disk: string;
  /** A private key that the server takes for root's. */
  readonly key: string;
  /** As it is in the server, for use outside: its words begin a command. */
  readonly pgbench: readonly string[];
}

/** `address`: of the server, with the length of its network's prefix. Null, and a loud line, where it cannot be made. */
export async function ensureServer(address: string): Promise<ServerFiles | null> {
  for (const [program, debianPackage] of PROGRAMS) {
    if ((await ensureInstalled(program, debianPackage)) === null) return null;
  }
  const hash = createHash('sha256').update(address);
  for (const script of SCRIPTS) hash.update(await readFile(join(RECIPE, script)));
  const cache = userCache();
  const folder = join(cache, `server-${hash.digest('hex').slice(0, 12)}`);
  try {
    if (!existsSync(folder)) await make(folder, cache, address);
  } catch (thrown) {
    const { message, stderr } = asError(thrown) as Error & { stderr?: string };
    console.log(
      `\n    SKIPPED: the Debian server cannot be made here: ${message} ${stderr?.slice(-2000) ?? ''}\n`,
    );
    return null;
  }
  const lib = join(folder, 'lib');
  return {
    kernel: join(folder, 'kernel'),
    initrd: join(folder, 'initrd'),
    disk: join(folder, 'root.qcow2'),
    key: join(folder, 'key'),
    pgbench: [join(lib, 'ld-linux-x86-64.so.2'), '--library-path', lib, join(folder, 'pgbench')],
  };
}

async function make(folder: string, cache: string, address: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  await removeLeftovers(cache);
  const work = await mkdtemp(join(cache, `making-${process.pid}-`));
  const began = performance.now();
  try {
    await run(join(RECIPE, 'build.sh'), [work, address], { timeout: BUILD_TIMEOUT_MS });
    await rename(work, folder).catch((error: unknown) => {
      // Another process was faster, and its server is as good.
      if (!existsSync(folder)) throw error;
    });
    console.log(
      `      the server was made in ${((performance.now() - began) / 1000).toFixed(0)} s: ${folder}`,
    );
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What processes left that were killed while they made one. */
async function removeLeftovers(cache: string): Promise<void> {
  for (const entry of await readdir(cache)) {
    const maker = /^making-(\d+)-/.exec(entry)?.[1];
    if (maker === undefined || isAlive(Number(maker))) continue;
    await rm(join(cache, entry), { recursive: true, force: true });
  }
}

/** Beside what is fetched by Romulus itself; `npm ci` does not empty it. */
function userCache(): string {
  const given = process.env['XDG_CACHE_HOME'] ?? '';
  return join(isAbsolute(given) ? given : join(homedir(), '.cache'), 'romulus-test');
}
