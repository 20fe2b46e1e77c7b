// Directories of a process, for its sockets and what it makes: named after it, so that whoever makes the next one knows
// those that were left by processes which were killed, and removes them.
//
//     PARENT/KIND-PID-XXXXXX/

import { lstat, mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';

/** What mkdtemp() makes of the path of a directory: as long as this. */
export function ownDirectoryPath(parent: string, kind: string): string {
  return join(parent, `${kind}-${process.pid}-XXXXXX`);
}

/** @throws the system's error */
export async function makeOwnDirectory(parent: string, kind: string): Promise<string> {
  await removeLeftovers(parent, kind);
  return mkdtemp(ownDirectoryPath(parent, kind).replace(/X+$/, ''));
}

/** What is not to be removed (another user's) stays. @throws the system's error if there is no such parent */
export async function removeLeftovers(parent: string, kind: string): Promise<void> {
  const ours = new RegExp(`^${kind}-(\\d+)-`);
  for (const entry of await readdir(parent)) {
    const maker = ours.exec(entry)?.[1];
    if (maker === undefined || isAlive(Number(maker))) continue;
    const directory = join(parent, entry);
    try {
      if (!(await isServed(directory))) await rm(directory, { recursive: true, force: true });
    } catch {
      // Another user's, or another process was faster.
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: alive, and another user's.
    return error instanceof Error && 'code' in error && error.code !== 'ESRCH';
  }
}

/** Somebody listens at a socket there: who is dead as far as we see may live where processes have other numbers. */
async function isServed(directory: string): Promise<boolean> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    if ((await lstat(path)).isSocket() && (await answers(path))) return true;
  }
  return false;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
