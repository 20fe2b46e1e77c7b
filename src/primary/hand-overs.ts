// Who waits for the domain to be handed over, until it is known what has become of that.

import { ServiceError } from '../report/error.js';
import type { SwitchoverReport } from '../report/reports.js';
import type { HandOverOutcome } from './life-state.js';

type Settled = (outcome: HandOverOutcome) => void;

export class HandOvers {
  readonly #domain: string;
  readonly #waiting = new Map<number, Settled>();
  #count = 0;

  constructor(domain: string) {
    this.#domain = domain;
  }

  /** `ask`: for the one of that number. @throws ServiceError, a SwitchoverErrorCode */
  ask(ask: (id: number) => void): Promise<SwitchoverReport> {
    const id = ++this.#count;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (outcome) => {
        const domain = this.#domain;
        if (outcome.how !== 'done') {
          reject(new ServiceError(outcome.how, outcome.message, { domain }));
          return;
        }
        const { standby: to, epoch, pauseMs, totalMs } = outcome;
        resolve({ domain, to, epoch, pauseMs, totalMs });
      });
      ask(id);
    });
  }

  settled(id: number, outcome: HandOverOutcome): void {
    this.#waiting.get(id)?.(outcome);
    this.#waiting.delete(id);
  }

  /** Nobody decides any more. */
  end(): void {
    for (const id of [...this.#waiting.keys()]) {
      this.settled(id, { how: 'STOPPED', message: 'the agent was stopped' });
    }
  }
}
