// A file or directory that not even root may change.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Cleanup } from './cleanup.js';

/** Returns how to free it, which the cleanup does, too. Null, and a loud line, where there is no such thing. */
export function immutable(cleanup: Cleanup, file: string): (() => void) | null {
  try {
    execFileSync('chattr', ['+i', file], { stdio: 'ignore' });
  } catch {
    console.log('\n    SKIPPED: nothing can be made immutable here\n');
    return null;
  }
  const free = () => void execFileSync('chattr', ['-i', file]);
  cleanup.add(() => existsSync(file) && free());
  return free;
}
