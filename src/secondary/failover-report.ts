// The one failover of a domain, as it is reported: started, then completed or failed; or failed at once, where there is
// nothing left to take over.

import type { Logger } from '../report/log.js';
import { monotonicMs } from '../flow/clock.js';
import type { FailoverEvent, FailoverStarted } from '../report/reports.js';
import type { Held } from './vigil-state.js';

/** The code of a failover that could not be. */
export const NO_STANDBY = 'NO_STANDBY';

export class FailoverReport {
  #started: FailoverStarted | null = null;
  /** From the last acknowledgement to the decision; the primary died in this time. */
  #detectMs: number | null = null;
  /** The code that the last attempt failed with. */
  #failure: string | null = null;

  constructor(
    private readonly domain: string,
    private readonly report: (event: FailoverEvent) => void,
    private readonly log: Logger,
  ) {}

  /** `acknowledgedAtMs`: when the last acknowledgement was given. */
  started({ streamUuid, epoch }: Held, reason: string, acknowledgedAtMs: number | null): void {
    const { domain } = this;
    // Tried again: it is the same failover.
    if (this.#started?.streamUuid === streamUuid && this.#started.epoch === epoch) return;
    const atMs = monotonicMs();
    this.#failure = null;
    this.#started = { phase: 'started', domain, streamUuid, epoch, reason, atMs };
    this.#detectMs = acknowledgedAtMs === null ? null : atMs - acknowledgedAtMs;
    this.log.warn({ streamUuid, epoch, reason }, 'failover: taking the domain over');
    this.report(this.#started);
  }

  /** `held`: what it runs from, the epoch that was meant or one before it. */
  completed({ epoch }: Held): void {
    if (!this.#started) return;
    const atMs = monotonicMs();
    const { reason } = this.#started;
    const takeoverMs = atMs - this.#started.atMs;
    const takeoverSeconds = takeoverMs / 1000;
    this.log.warn(
      {
        ...{ epoch, reason, takeoverMs: rounded(takeoverMs) },
        ...(this.#detectMs !== null && {
          detectMs: rounded(this.#detectMs),
          totalMs: rounded(this.#detectMs + takeoverMs),
        }),
      },
      'failover: the domain runs here',
    );
    this.report({ ...this.#started, epoch, phase: 'completed', atMs, takeoverSeconds });
  }

  failed(code: string, message: string): void {
    if (!this.#started) return;
    // Said once for each reason, not for each attempt.
    if (this.#failure === code) return;
    this.#failure = code;
    this.log.error(
      { epoch: this.#started.epoch, code, reason: message },
      'failover: the domain does not start',
    );
    this.report({ ...this.#started, phase: 'failed', atMs: monotonicMs(), error: { code, message } });
  }

  /** There was nothing left to take over: no failover was begun. */
  impossible({ streamUuid, epoch }: Held, reason: string, message: string): void {
    const { domain } = this;
    const error = { code: NO_STANDBY, message };
    this.log.error({ streamUuid, epoch, reason, error }, 'failover: there is no standby to take over');
    this.report({ phase: 'failed', domain, streamUuid, epoch, reason, atMs: monotonicMs(), error });
  }
}

function rounded(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}
