// What came of a reload, said: once, and in one line.

import type { Reloaded } from '../flow/reloaded.js';
import type { Logger } from './log.js';

export function tellReloaded(reloaded: readonly Reloaded[], log: Logger): void {
  const failed = filesOf(reloaded.filter(({ error }) => error !== null));
  const files = filesOf(reloaded.filter(({ error }) => error === null));
  if (failed.length === 0) {
    log.info({ files }, 'reloaded: output files are opened anew, certificates and token read again');
  } else {
    log.warn({ files, failed }, `reloaded, but for what stays as it was: ${failed.join(', ')}`);
  }
}

/** Domains may share one. */
function filesOf(reloaded: readonly Reloaded[]): string[] {
  return [...new Set(reloaded.map(({ file }) => file))];
}
