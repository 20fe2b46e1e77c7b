// An event that QEMU will tell of because of a command: expected from before the command is given, since it may be in the
// same read as the answer; and waited for within limits.

import { Subscription } from 'rxjs';
import { withinAwake } from '../../../flow/awake.js';
import { HypervisorError } from '../../port.js';
import type { QmpClient, QmpEvent } from '../monitor/qmp.js';

/** What it does of itself QEMU does within milliseconds, unless it waits for us. */
const EVENT_MS = 10_000;

export class ExpectedEvent {
  readonly #what: string;
  readonly #event: Promise<QmpEvent>;
  readonly #subscription: Subscription;

  /** `what` is expected, in a sentence: "QEMU does not say that …". */
  constructor(qmp: QmpClient, what: string, isIt: (event: QmpEvent) => boolean) {
    this.#what = what;
    let subscription = Subscription.EMPTY;
    this.#event = new Promise((resolve, reject) => {
      subscription = qmp.events$.subscribe({
        next: (event) => isIt(event) && resolve(event),
        complete: () => reject(new HypervisorError('DOMAIN_GONE', 'QEMU’s monitor is lost')),
      });
    });
    this.#event.catch(() => undefined); // told to who waits, if anybody does
    this.#subscription = subscription;
  }

  /** @throws HypervisorError HUNG, DOMAIN_GONE */
  async come(): Promise<QmpEvent> {
    const facts = { timeoutMs: EVENT_MS };
    const late = () => new HypervisorError('HUNG', `QEMU does not say that ${this.#what}`, facts);
    try {
      return await withinAwake(EVENT_MS, this.#event, late);
    } finally {
      this.drop();
    }
  }

  /** It is not waited for. */
  drop(): void {
    this.#subscription.unsubscribe();
  }
}
