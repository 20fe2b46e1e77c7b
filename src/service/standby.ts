// The domains of the secondary. Each has a gate, which holds until the domain is taken over.
//
//   spare ──fill──▶ filling ──adopt──▶ held ──▶ destroyed, or taken over
//
// spare: made ahead. filling: a stream is being restored into it and has no whole checkpoint yet. held: what to fail
// over to; the stream may go on into it. While a new stream fills one, an older one may still be held.

import type { Subscription } from 'rxjs';
import type { DomainEvent, TargetDomain } from '../hypervisor/port.js';
import { ByteGate } from '../output/byte-gate.js';
import type { ConsoleWriter } from './console.js';
import type { Logger } from './log.js';

export interface StandbyOptions {
  readonly open: () => Promise<TargetDomain>;
  readonly console: ConsoleWriter;
  readonly tap: ConsoleWriter | null;
  /** What a domain does by itself; only one that was started does anything. */
  readonly ended: (event: DomainEvent) => void;
  readonly log: Logger;
}

export class Standby {
  readonly gate: ByteGate;
  /** Resolves when the restorer is done with the domain. */
  restored: Promise<void> = Promise.resolve();
  readonly #subscriptions: Subscription;

  constructor(
    readonly domain: TargetDomain,
    { console, tap, ended, log }: StandbyOptions,
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

export class Standbys {
  held: Standby | null = null;
  #spare: Standby | null = null;
  #filling: Standby | null = null;
  readonly #options: StandbyOptions;

  constructor(options: StandbyOptions) {
    this.#options = options;
  }

  /** Makes the spare. Fails as openTarget does. */
  async prepare(): Promise<TargetDomain> {
    this.#spare = new Standby(await this.#options.open(), this.#options);
    return this.#spare.domain;
  }

  /** The domain for a new stream: the spare, or one made now. */
  async fill(): Promise<Standby> {
    const spare = this.#spare;
    this.#spare = null;
    this.#filling = spare ?? new Standby(await this.#options.open(), this.#options);
    return this.#filling;
  }

  /** The one being filled is held from now on; resolves when the one held before is destroyed. */
  async adopt(): Promise<void> {
    const before = this.held;
    this.held = this.#filling;
    this.#filling = null;
    await before?.destroy();
  }

  async discardFilling(): Promise<void> {
    const filling = this.#filling;
    this.#filling = null;
    await filling?.destroy();
  }

  async discardHeld(): Promise<void> {
    const { held } = this;
    this.held = null;
    await held?.destroy();
  }

  async discardSpare(): Promise<void> {
    const spare = this.#spare;
    this.#spare = null;
    await spare?.destroy();
  }
}
