// The command that turns another host off, once. The convention is that of fence agents: it exits with 0 when the host is
// surely off, and with anything else when it is not known to be. It runs in a process group of its own, which is killed
// when its time is over; its standard output goes nowhere, the end of its standard error into the failure.

import { spawn, type ChildProcess } from 'node:child_process';
import { asError, codeOf } from '../../../errors.js';
import { WitnessError } from '../../error.js';

const STANDARD_ERROR_TAIL_BYTES = 2048;
/** After the command has ended, for a child of its that keeps standard error open. */
const DRAIN_MS = 100;

export interface FenceCommand {
  /** Program and arguments; no shell. */
  readonly command: readonly string[];
  readonly timeoutMs: number;
  /** ROMULUS_DOMAIN: for whose sake. */
  readonly domain: string;
  /** ROMULUS_HOST: which is to be turned off. */
  readonly host: string;
}

/**
 * Resolves when the host is off. Aborted: the command is killed.
 * @throws WitnessError FENCE_FAILED; ABORTED
 */
export function runFence(fence: FenceCommand, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const { host, timeoutMs } = fence;
    if (signal.aborted) {
      reject(new WitnessError('ABORTED', `fencing ${host} was given up`));
      return;
    }
    const child = start(fence);
    if (child instanceof Error) {
      reject(failed(host, child.message, { error: codeOf(child) }));
      return;
    }
    let tail = Buffer.alloc(0);
    child.stderr?.on('data', (chunk: Buffer) => {
      tail = Buffer.concat([tail, chunk]).subarray(-STANDARD_ERROR_TAIL_BYTES);
    });
    let why: 'timeout' | 'aborted' | null = null;
    let drain: NodeJS.Timeout | undefined;
    const kill = (reason: 'timeout' | 'aborted') => {
      why ??= reason;
      killGroup(child);
    };
    const abort = () => kill('aborted');
    const limit = setTimeout(() => kill('timeout'), timeoutMs);
    signal.addEventListener('abort', abort, { once: true });
    const done = () => {
      clearTimeout(limit);
      clearTimeout(drain);
      signal.removeEventListener('abort', abort);
    };
    child.once('error', (error) => {
      done();
      reject(failed(host, error.message, { error: codeOf(error) }));
    });
    child.once('exit', () => {
      // What counts is how it ended, and that is known: its time is over only for what it left behind.
      clearTimeout(limit);
      drain = setTimeout(() => child.stderr?.destroy(), DRAIN_MS);
    });
    child.once('close', (exitCode, killedBy) => {
      done();
      const standardError = tail.toString('utf8').trimEnd();
      if (why === 'aborted') reject(new WitnessError('ABORTED', `fencing ${host} was given up`));
      else if (why === 'timeout') reject(failed(host, 'it took too long', { timeoutMs, standardError }));
      else if (exitCode === 0) resolve();
      else reject(failed(host, 'it did not say so', { exitCode, signal: killedBy, standardError }));
    });
  });
}

function start({ command, domain, host }: FenceCommand): ChildProcess | Error {
  const [file = '', ...args] = command;
  try {
    return spawn(file, args, {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ROMULUS_DOMAIN: domain, ROMULUS_HOST: host },
    });
  } catch (thrown) {
    return asError(thrown);
  }
}

function failed(host: string, why: string, facts: WitnessError['facts']): WitnessError {
  return new WitnessError('FENCE_FAILED', `the command that fences ${host}: ${why}`, { host, ...facts });
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (thrown) {
    // Nobody is left in the group: that is what was wanted.
    if (codeOf(thrown) !== 'ESRCH') child.kill('SIGKILL');
  }
}
