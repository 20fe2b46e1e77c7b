// The programs of a Debian system that the guest is made with, and what to install where one is missing.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { asError } from '../../../errors.js';
import { failed, unsupported } from '../../port.js';

const execute = promisify(execFile);

const TIMEOUT_MS = 180_000;
/** The end of what a program said in its trouble: enough to see why. */
const SHOWN_CHARACTERS = 2000;

export interface Program {
  readonly command: string;
  readonly debianPackage: string;
}

export const aptGet: Program = { command: 'apt-get', debianPackage: 'apt' };
export const aptCache: Program = { command: 'apt-cache', debianPackage: 'apt' };
export const dpkgDeb: Program = { command: 'dpkg-deb', debianPackage: 'dpkg' };
export const xz: Program = { command: 'xz', debianPackage: 'xz-utils' };

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly cwd?: string;
  /** Octets of standard output at most; default 1 MiB. */
  readonly maxBuffer?: number;
}

/**
 * What the program wrote to its standard output.
 * @throws HypervisorError UNSUPPORTED where the program is missing, FAILED with the fact `stderr` where it fails or
 *   takes longer than three minutes; the signal's reason once that is aborted
 */
export async function run(program: Program, given: readonly string[], options: RunOptions): Promise<Buffer> {
  const { command, debianPackage } = program;
  const running = execute(command, given, {
    timeout: TIMEOUT_MS,
    // Messages are searched for words.
    env: { ...process.env, LC_ALL: 'C' },
    ...options,
    encoding: 'buffer',
  });
  // An abort fails at once; but as long as the program lives it may write into the folder that the caller removes.
  const { child } = running;
  const closed = new Promise((resolve) => child.once('close', resolve));
  try {
    const { stdout } = await running;
    return stdout;
  } catch (thrown) {
    if (child.pid !== undefined) await closed;
    options.signal.throwIfAborted();
    const cause = asError(thrown);
    if ('code' in cause && cause.code === 'ENOENT') {
      throw unsupported(
        `the test guest is made from Debian's packages, and ${command} is not here: install ${debianPackage} (on Debian), or give a kernel and an initramfs of your own`,
        { command, debianPackage },
        cause,
      );
    }
    const stderr = 'stderr' in cause && Buffer.isBuffer(cause.stderr) ? cause.stderr.toString() : '';
    const facts = { command, given: given.join(' '), stderr: stderr.trim().slice(-SHOWN_CHARACTERS) };
    throw failed(`${command} failed`, facts, cause);
  }
}
