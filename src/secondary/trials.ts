// The trials of a domain that stands by: one at a time, for as long as the standby may spare what they take.

import { firstValueFrom } from 'rxjs';
import type { Work } from '../flow/work.js';
import type { TargetDomain, TrialDomain } from '../hypervisor/port.js';
import { ServiceError, type TrialErrorCode } from '../report/error.js';
import type { Logger } from '../report/log.js';
import type { TrialReport, TrialRequest } from '../report/reports.js';
import type { RestoreSteps } from '../restore/steps.js';
import { tryStandby } from './trial.js';
import type { SecondaryState } from './vigil-state.js';
import { trialRefusal } from './vigil-trial.js';

const SECONDS_DEFAULT = 10;
const SECONDS_MAX = 3600;

/** What would be taken over, and what fills it. */
export interface Tried {
  readonly domain: TargetDomain;
  readonly restorer: Pick<RestoreSteps, 'copyTo'> | null;
}

export interface TrialsOptions {
  /** Of the domain. */
  readonly name: string;
  /** Of this host. */
  readonly host: string;
  readonly work: Work;
  readonly log: Logger;
}

export class Trials {
  readonly #options: TrialsOptions;
  #now: AbortController | null = null;

  constructor(options: TrialsOptions) {
    this.#options = options;
  }

  /** Whatever follows from the state does not wait for a trial: that is ended at once. */
  follow(state: SecondaryState): void {
    const refusal = this.#now === null ? null : trialRefusal(state);
    if (refusal !== null) this.#now?.abort(this.#error('INTERRUPTED', `the trial was ended: ${refusal}`));
  }

  /** As AgentService.testFailover() says. */
  async run(
    state: SecondaryState,
    held: Tried | null,
    { seconds = SECONDS_DEFAULT, signal }: TrialRequest,
  ): Promise<TrialReport> {
    if (!(seconds > 0 && seconds <= SECONDS_MAX)) {
      throw this.#error('BAD_SECONDS', `a trial runs for up to ${SECONDS_MAX} seconds, not ${seconds}`);
    }
    const refusal = trialRefusal(state);
    if (refusal !== null) throw this.#error('NOT_PAIRED', refusal);
    const restorer = held?.restorer;
    if (!held || !restorer) {
      throw this.#error('NOT_PAIRED', 'the standby is being filled');
    }
    if (this.#now !== null) throw this.#error('UNDER_WAY', 'the domain is being tried');
    const { work, ...options } = this.#options;
    const ending = (this.#now = new AbortController());
    const leave = () => ending.abort(this.#error('INTERRUPTED', 'whoever asked for the trial has left'));
    if (signal?.aborted === true) leave();
    signal?.addEventListener('abort', leave, { once: true });
    const copyTo = (into: TrialDomain) => restorer.copyTo(into);
    const given = { ...options, standby: held.domain, copyTo, seconds, signal: ending.signal };
    try {
      return await firstValueFrom(work.keep(() => tryStandby(given)));
    } finally {
      this.#now = null;
      signal?.removeEventListener('abort', leave);
    }
  }

  #error(code: TrialErrorCode, message: string): ServiceError {
    const { name: domain, host } = this.#options;
    return new ServiceError(code, message, { domain, host });
  }
}
