// One domain of the secondary that is filled, kept, and perhaps started: with its gate, which holds until takeover.

import type { Subscription } from 'rxjs';
import type { DomainEvent, TargetDomain } from '../hypervisor/port.js';
import { ByteGate } from '../output/byte-gate.js';
import type { ConsoleWriter } from './console.js';
import type { Logger } from './log.js';

export class Standby {
  readonly gate: ByteGate;
  /** Resolves when the restorer is done with the domain. */
  restored: Promise<void> = Promise.resolve();
  readonly #subscriptions: Subscription;

  constructor(
    readonly domain: TargetDomain,
    console: ConsoleWriter,
    tap: ConsoleWriter | null,
    ended: (event: DomainEvent) => void,
    log: Logger,
  ) {
    // It holds what the domain says between its start and the gate's passing: a moment, hence no limit.
    this.gate = new ByteGate({ write: (bytes) => console.write(bytes), limitBytes: Infinity });
    this.#subscriptions = domain.output$.subscribe((bytes) => {
      try {
        tap?.write(bytes);
        this.gate.push(bytes);
      } catch (error) {
        log.error({ err: error }, 'output cannot be written');
      }
    });
    this.#subscriptions.add(domain.events$.subscribe(ended));
  }

  async destroy(): Promise<void> {
    await this.restored;
    this.#subscriptions.unsubscribe();
    await this.domain.destroy();
  }
}
