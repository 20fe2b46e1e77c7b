// What the process's exit status says, and the error of a command line that cannot be done. Documented in
// docs/OPERATING.md; scripts rely on it.

import { RomulusError } from '../errors.js';

export const ExitCode = {
  /** Done; of an agent: stopped in order. */
  OK: 0,
  /** The job failed: a domain failed, a demo's report is not ok, an image could not be written. */
  FAILED: 1,
  /** The command line, the configuration or the input file is wrong. Of an agent: a domain cannot be made as it is configured. */
  USAGE: 2,
  /** Ended by Ctrl-C or SIGTERM before the job was done (128 + 2, as shells count). */
  INTERRUPTED: 130,
} as const;

/** Of errors of what was given to us: a configuration, what it names, a file. */
const INPUT_CODES: ReadonlySet<string> = new Set([
  ...['BAD_CONFIGURATION', 'UNSUPPORTED', 'BAD_CONTEXT', 'TLS', 'PLAINTEXT_REFUSED', 'TOO_FEW_DESCRIPTORS'],
  ...['BAD_TOKEN', 'ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES', 'EPERM', 'EROFS', 'ECONNREFUSED'],
  ...['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'ENOTFOUND'],
]);

export function isInputCode(code: string): boolean {
  return INPUT_CODES.has(code);
}

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** What was asked on the command line cannot be done. */
export class UsageError extends RomulusError<'USAGE'> {
  constructor(message: string) {
    super('USAGE', message);
  }
}
