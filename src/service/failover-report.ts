// The one failover of a domain, as it is reported: started, then completed or failed.

import type { Logger } from './log.js';
import { monotonicMs } from './clock.js';
import type { FailoverEvent, FailoverStarted } from './reports.js';
import type { Held } from './secondary-state.js';

export class FailoverReport {
  #started: FailoverStarted | null = null;

  constructor(
    private readonly domain: string,
    private readonly report: (event: FailoverEvent) => void,
    private readonly log: Logger,
  ) {}

  started({ streamUuid, epoch }: Held, reason: string): void {
    const { domain } = this;
    this.#started = { phase: 'started', domain, streamUuid, epoch, reason, atMs: monotonicMs() };
    this.log.warn({ streamUuid, epoch, reason }, 'failover: taking the domain over');
    this.report(this.#started);
  }

  completed(): void {
    if (!this.#started) return;
    const atMs = monotonicMs();
    const takeoverSeconds = (atMs - this.#started.atMs) / 1000;
    this.log.warn({ epoch: this.#started.epoch, takeoverSeconds }, 'failover: the domain runs here');
    this.report({ ...this.#started, phase: 'completed', atMs, takeoverSeconds });
  }

  failed(code: string, message: string): void {
    if (!this.#started) return;
    this.log.error({ epoch: this.#started.epoch, code }, 'failover: the domain does not start');
    this.report({ ...this.#started, phase: 'failed', atMs: monotonicMs(), error: { code, message } });
  }
}
