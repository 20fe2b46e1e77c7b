// Says whether what a domain says is let out, at the start and whenever that changes: whoever waits for a guest that is
// held looks for the fault in the guest.

import type { PrimaryDomainConfig } from '../config/schema.js';
import type { Logger } from '../report/log.js';
import type { LinkState } from '../report/reports.js';

export class OutputNotice {
  readonly #whenUnprotected: PrimaryDomainConfig['output']['whenUnprotected'];
  readonly #log: Logger;
  #last: 'held' | 'passed' | 'covered' | null = null;

  constructor(whenUnprotected: PrimaryDomainConfig['output']['whenUnprotected'], log: Logger) {
    this.#whenUnprotected = whenUnprotected;
    this.#log = log;
  }

  /** Of a domain that runs here, or will. */
  tell(link: LinkState): void {
    const unprotected = this.#whenUnprotected === 'hold' ? 'held' : 'passed';
    const now = link === 'replicating' ? 'covered' : unprotected;
    if (now === this.#last) return;
    this.#last = now;
    switch (now) {
      case 'held':
        this.#log.warn(
          'what the domain says (console, network) is HELD until a secondary protects it; ' +
            '"output: { whenUnprotected: pass }" would let it out',
        );
        return;
      case 'passed':
        this.#log.warn('what the domain says is let out, unprotected (output.whenUnprotected: pass)');
        return;
      case 'covered':
        this.#log.info('what the domain says is let out, checkpoint by checkpoint');
        return;
    }
  }
}
