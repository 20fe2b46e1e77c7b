// Hosts that are turned off, each by one command at a time, which is tried a few times. Domains that need the same host
// off at the same time share what comes of it; it is given up when none of them waits any more.

import { setTimeout as sleep } from 'node:timers/promises';
import { asError } from '../../../errors.js';
import { WitnessError } from '../../error.js';
import { runFence } from './command.js';

export interface FencerOptions {
  /** Program and arguments, no shell; it exits with 0 when the host in ROMULUS_HOST is surely off. */
  readonly command: readonly string[];
  /** Of one attempt; then it is killed, with its children. */
  readonly timeoutMs: number;
  /** At least 1. */
  readonly attempts: number;
  readonly retryDelayMs: number;
}

interface Running {
  readonly off: Promise<void>;
  readonly given: AbortController;
  waiting: number;
}

export class Fencer {
  readonly #options: FencerOptions;
  readonly #running = new Map<string, Running>();

  constructor(options: FencerOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the host is off.
   * @throws WitnessError FENCE_FAILED: of the last attempt; ABORTED
   */
  async fence(domain: string, host: string, signal: AbortSignal): Promise<void> {
    const running = this.#running.get(host) ?? this.#begin(domain, host);
    running.waiting++;
    let leave: () => void = () => undefined;
    const left = new Promise<never>((_, reject) => {
      leave = () => reject(new WitnessError('ABORTED', `fencing ${host} was given up`));
    });
    signal.addEventListener('abort', leave, { once: true });
    if (signal.aborted) leave();
    try {
      await Promise.race([running.off, left]);
    } finally {
      signal.removeEventListener('abort', leave);
      running.waiting--;
      if (running.waiting === 0) this.#giveUp(host, running);
    }
  }

  #begin(domain: string, host: string): Running {
    const given = new AbortController();
    const off = this.#attempts(domain, host, given.signal);
    const running: Running = { off, given, waiting: 0 };
    const over = () => this.#forget(host, running);
    off.then(over, over); // told to those who wait
    this.#running.set(host, running);
    return running;
  }

  /** Whoever comes now needs a command of its own: this one is over, or is being killed. */
  #giveUp(host: string, running: Running): void {
    this.#forget(host, running);
    running.given.abort();
  }

  #forget(host: string, running: Running): void {
    if (this.#running.get(host) === running) this.#running.delete(host);
  }

  async #attempts(domain: string, host: string, signal: AbortSignal): Promise<void> {
    const { command, timeoutMs, attempts, retryDelayMs } = this.#options;
    const before: Error[] = [];
    for (let attempt = 1; ; attempt++) {
      try {
        await runFence({ command, timeoutMs, domain, host }, signal);
        return;
      } catch (thrown) {
        const error = asError(thrown);
        if (attempt >= attempts || signal.aborted) {
          if (error instanceof WitnessError) error.suppressed.push(...before);
          throw error;
        }
        before.push(error);
      }
      await sleep(retryDelayMs, undefined, { signal }).catch(() => {
        throw new WitnessError('ABORTED', `fencing ${host} was given up`);
      });
    }
  }
}
