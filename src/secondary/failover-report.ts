// The one failover of a domain, as it is reported: started, then completed or failed; or failed at once, where there is
// nothing left to take over.

import type { TimestampProvider } from 'rxjs';
import type { Logger } from '../report/log.js';
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

  readonly #domain: string;
  readonly #clock: TimestampProvider;
  readonly #log: Logger;

  constructor(domain: string, clock: TimestampProvider, log: Logger) {
    this.#domain = domain;
    this.#clock = clock;
    this.#log = log;
  }

  /** `acknowledgedAtMs`: when the last acknowledgement was given. Null if it is tried again: it is the same failover. */
  started(
    { streamUuid, epoch }: Held,
    reason: string,
    acknowledgedAtMs: number | null,
  ): FailoverEvent | null {
    if (this.#started?.streamUuid === streamUuid && this.#started.epoch === epoch) return null;
    const domain = this.#domain;
    const atMs = this.#clock.now();
    this.#failure = null;
    this.#started = { phase: 'started', domain, streamUuid, epoch, reason, atMs };
    this.#detectMs = acknowledgedAtMs === null ? null : atMs - acknowledgedAtMs;
    this.#log.warn({ streamUuid, epoch, reason }, 'failover: taking the domain over');
    return this.#started;
  }

  /** `held`: what it runs from, the epoch that was meant or one before it. */
  completed({ epoch }: Held): FailoverEvent | null {
    if (!this.#started) return null;
    const atMs = this.#clock.now();
    const { reason } = this.#started;
    const takeoverMs = atMs - this.#started.atMs;
    const takeoverSeconds = takeoverMs / 1000;
    this.#log.warn(
      {
        epoch,
        reason,
        takeoverMs: rounded(takeoverMs),
        ...(this.#detectMs !== null && {
          detectMs: rounded(this.#detectMs),
          totalMs: rounded(this.#detectMs + takeoverMs),
        }),
      },
      'failover: the domain runs here',
    );
    return { ...this.#started, epoch, phase: 'completed', atMs, takeoverSeconds };
  }

  /** Said once for each reason, not for each attempt. */
  failed(code: string, message: string): FailoverEvent | null {
    if (!this.#started || this.#failure === code) return null;
    this.#failure = code;
    this.#log.error(
      { epoch: this.#started.epoch, code, reason: message },
      'failover: the domain does not start',
    );
    return { ...this.#started, phase: 'failed', atMs: this.#clock.now(), error: { code, message } };
  }

  /** There was nothing left to take over: no failover was begun. */
  impossible({ streamUuid, epoch }: Held, reason: string, message: string): FailoverEvent {
    const domain = this.#domain;
    const error = { code: NO_STANDBY, message };
    this.#log.error({ streamUuid, epoch, reason, error }, 'failover: there is no standby to take over');
    return { phase: 'failed', domain, streamUuid, epoch, reason, atMs: this.#clock.now(), error };
  }
}

function rounded(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}
