// A block device over a file: a disk that answers with EIO where that file has no room for what is written.

import { execFileSync } from 'node:child_process';
import { codeOf } from '../../src/errors.js';
import type { Cleanup } from './cleanup.js';

/** Null, and a loud line, where there are none. */
export function loopDevice(cleanup: Cleanup, file: string): string | null {
  let device: string;
  try {
    device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch (error) {
    console.log(`\n    SKIPPED: there is no loop device here: ${codeOf(error)}\n`);
    return null;
  }
  cleanup.add(() => execFileSync('losetup', ['--detach', device]));
  return device;
}
