// The hook that is a command. It gets the event twice: in environment variables for shell scripts, as JSON on its
// standard input for everything else. It runs in a process group of its own, so that a timeout ends its children too.
//
// Its standard output goes nowhere (ours may be a domain's console); the end of its standard error goes to the log.

import { type ChildProcess, spawn } from 'node:child_process';
import { asError, codeOf } from '../../errors.js';
import type { HookEvent, HookRun } from './events.js';

const STANDARD_ERROR_TAIL_BYTES = 4096;
/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 500;
/** After the command has ended, for a child of its that keeps standard error open. */
const DRAIN_MS = 100;

export interface CommandHook {
  readonly command: readonly string[];
  readonly timeoutMs: number;
  readonly event: HookEvent;
  /** For standard input. */
  readonly message: string;
  /** Aborted: the command is killed. */
  readonly signal: AbortSignal;
}

/** Never rejects: what goes wrong is the result. */
export function runCommand(hook: CommandHook): Promise<HookRun> {
  return new Promise((resolve) => {
    const child = spawnHook(hook);
    if (child instanceof Error) {
      resolve(failure(child));
      return;
    }
    let tail = Buffer.alloc(0);
    child.stderr?.on('data', (chunk: Buffer) => {
      tail = Buffer.concat([tail, chunk]).subarray(-STANDARD_ERROR_TAIL_BYTES);
    });
    // EPIPE: the command does not read its input, as is its right.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(hook.message);

    let why: 'timeout' | 'cancelled' | null = null;
    let grace: NodeJS.Timeout | undefined;
    let drain: NodeJS.Timeout | undefined;
    const end = (reason: 'timeout' | 'cancelled') => {
      if (why !== null) return;
      why = reason;
      signalGroup(child, 'SIGTERM');
      grace = setTimeout(() => signalGroup(child, 'SIGKILL'), GRACE_MS);
    };
    const cancel = () => end('cancelled');
    const limit = setTimeout(() => end('timeout'), hook.timeoutMs);
    hook.signal.addEventListener('abort', cancel, { once: true });

    const finish = (run: HookRun) => {
      clearTimeout(limit);
      clearTimeout(grace);
      clearTimeout(drain);
      hook.signal.removeEventListener('abort', cancel);
      // What the command left behind of its group after it was told to end.
      if (why !== null) signalGroup(child, 'SIGKILL');
      resolve(run);
    };
    child.once('error', (error) => finish(failure(error)));
    child.once('exit', () => {
      drain = setTimeout(() => child.stderr?.destroy(), DRAIN_MS);
    });
    child.once('close', (code, signal) =>
      finish({
        result: why ?? (code === 0 ? 'success' : 'failure'),
        details: { exitCode: code, signal, standardError: tail.toString('utf8').trimEnd() },
      }),
    );
  });
}

function failure(error: Error): HookRun {
  return { result: 'failure', details: { error: codeOf(error), message: error.message } };
}

function spawnHook({ command, event, ...hook }: CommandHook): ChildProcess | Error {
  const [file = '', ...args] = command;
  try {
    return spawn(file, args, {
      detached: true,
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { ...process.env, ...environment(event), ROMULUS_TIMEOUT_MS: String(hook.timeoutMs) },
    });
  } catch (thrown) {
    return asError(thrown);
  }
}

function environment(event: HookEvent): Record<string, string> {
  return {
    ROMULUS_EVENT: event.event,
    ROMULUS_DOMAIN: event.domain,
    ROMULUS_STREAM_UUID: event.streamUuid ?? '',
    ROMULUS_EPOCH: event.epoch === null ? '' : String(event.epoch),
    ROMULUS_REASON: event.reason,
    ROMULUS_PLANNED: event.planned === undefined ? '' : String(event.planned),
    ROMULUS_TIME: event.time,
    ROMULUS_TAKEOVER_SECONDS: event.takeoverSeconds === undefined ? '' : String(event.takeoverSeconds),
    ROMULUS_ERROR: event.error?.code ?? '',
  };
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (thrown) {
    // Nobody is left in the group: that is what was wanted.
    if (codeOf(thrown) !== 'ESRCH') child.kill(signal);
  }
}
