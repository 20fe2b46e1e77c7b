// A domain may have to stand still for several reasons at once: a checkpoint is being captured, the gate is full, a
// secondary that is out of sight may run it, it is handed over. It is suspended with the first and resumed with the last. Somebody else may let
// it run meanwhile: a reason that is there already and is added again suspends it again, but never under a checkpoint that
// is being captured.

import { codeOf } from '../errors.js';
import { InOrder } from '../flow/in-order.js';
import type { SourceDomain } from './port.js';

export type StopReason = 'checkpoint' | 'pressure' | 'unlinked' | 'handed-over';

export class DomainStop {
  readonly #domain: Pick<SourceDomain, 'suspend' | 'resume' | 'info'>;
  readonly #reasons = new Set<StopReason>();
  readonly #order = new InOrder();

  constructor(domain: Pick<SourceDomain, 'suspend' | 'resume' | 'info'>) {
    this.#domain = domain;
  }

  /** Resolves when the domain stands still. @throws as suspend(), and then the reason is not kept */
  add(reason: StopReason): Promise<void> {
    return this.#order.do(async () => {
      const captured = this.#reasons.has('checkpoint') && reason !== 'checkpoint';
      if (this.#reasons.size === 0 || (!captured && (await this.#runs()))) await this.#domain.suspend();
      this.#reasons.add(reason);
    });
  }

  /** Takes a reason away, if it is there. */
  remove(reason: StopReason): Promise<void> {
    return this.#order.do(async () => {
      if (!this.#reasons.delete(reason) || this.#reasons.size > 0) return;
      try {
        await this.#domain.resume();
      } catch (error) {
        if (codeOf(error) !== 'WRONG_STATE' || !(await this.#runs())) throw error;
      }
    });
  }

  async #runs(): Promise<boolean> {
    return (await this.#domain.info()).state === 'running';
  }
}
