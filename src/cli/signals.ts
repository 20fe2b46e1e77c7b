// What the operating system's signals mean to us.
//
//   SIGINT, SIGTERM, SIGQUIT, SIGPWR   end in order; a second one: at once, should the cleaning up itself hang
//   SIGHUP                             an agent opens its files anew. A job that has a terminal ends with it, in order;
//                                      one that has none (nohup, cron) does not care for terminals
//   SIGUSR1, SIGUSR2, SIGALRM, …       nothing. Left alone, the first makes Node open its debugger to whoever is on
//                                      this host, and the others end the process without a word to the other side
//   SIGPIPE                            Node's own way: the write fails with EPIPE
//
// A signal that was ignored when we were started (nohup) is not seen to be: Node sets it to its default before any of
// our code runs. So what is right does not depend on it.

import { close as closeDebugger, url as debuggerUrl } from 'node:inspector';
import { isatty } from 'node:tty';
import { RomulusError } from '../errors.js';
import { ExitCode } from './exit-codes.js';

const ENDING = ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGPWR'] as const;
const HARMLESS = ['SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGVTALRM', 'SIGIO', 'SIGSTKFLT'] as const;
const AGENTS: ReadonlySet<string | undefined> = new Set(['agent', 'primary', 'secondary']);

export class InterruptedError extends RomulusError<'INTERRUPTED'> {
  constructor(signal: NodeJS.Signals) {
    super('INTERRUPTED', `ended by ${signal}`, { signal });
  }
}

export interface Interruption {
  readonly signal: AbortSignal;
  /** Stops listening; the default behaviour of the signals is back. */
  dispose(): void;
}

/**
 * For the first moment of the process, and until its end: what must not happen to it, whatever it is started for. An
 * agent is spared a hang-up, too: nothing is open yet that could be opened anew.
 */
export function shieldFromSignals(): void {
  const ignore = (): void => undefined;
  for (const name of HARMLESS) process.on(name, ignore);
  if (AGENTS.has(process.argv[2])) process.on('SIGHUP', ignore);
  closeUnwantedDebugger();
  // One that came just before has told Node's debugger thread; we hear of it a turn later.
  setImmediate(closeUnwantedDebugger);
}

/** The debugger that SIGUSR1 opened while Node itself was starting, when nobody had asked for one (--inspect). */
function closeUnwantedDebugger(): void {
  const asked = [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].some((option) =>
    option.includes('--inspect'),
  );
  if (!asked && debuggerUrl() !== undefined) closeDebugger();
}

/** `onHangUp`: what SIGHUP is for, instead of an end. */
export function onInterruption(onHangUp?: () => void): Interruption {
  const controller = new AbortController();
  const end = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(ExitCode.INTERRUPTED);
    controller.abort(new InterruptedError(name));
  };
  // Asked now: when it has hung up, it is none any more.
  const hasTerminal = [0, 1, 2].some((fd) => isatty(fd));
  const lostTerminal = (): void => {
    // Both the kernel and the shell may say so: that is no second wish.
    if (hasTerminal && !controller.signal.aborted) end('SIGHUP');
  };
  const hangUp = onHangUp ?? lostTerminal;
  for (const name of ENDING) process.on(name, end);
  process.on('SIGHUP', hangUp);
  return {
    signal: controller.signal,
    dispose: () => {
      for (const name of ENDING) process.off(name, end);
      process.off('SIGHUP', hangUp);
    },
  };
}

/** Does the job, which a signal ends in order. */
export async function interruptible<Result>(
  job: (signal: AbortSignal) => Promise<Result>,
  onHangUp?: () => void,
): Promise<Result> {
  const interruption = onInterruption(onHangUp);
  try {
    return await job(interruption.signal);
  } finally {
    interruption.dispose();
  }
}

/** Resolves when the signal is aborted (at once if it is already). */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
