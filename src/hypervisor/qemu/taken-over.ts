// A domain that was taken over to, as one that can be protected in its turn. It is the standby's QEMU, and the standby's
// memory, whose end is the standby's. Its gates have been there since that QEMU was started, and pass; they are tested
// when they hold for the first time, and not at the takeover, which is not to wait for that.
//
//   standby ─ start ─▶ runs, gates pass ─ source() ─▶ watched ─ hold ─▶ tested ─▶ checkpoints

import { merge, type Observable } from 'rxjs';
import type { QemuMachine } from './machine.js';
import type { NetdevGate } from './network/netdev-gate.js';
import { QemuPrimary } from './primary.js';

export interface TakenOverOptions {
  readonly machine: QemuMachine;
  /** On its netdevs, passing. */
  readonly gates: readonly NetdevGate[];
  /** By what the guest was stopped on the primary, if not by us. */
  readonly stoppedBy: string | null;
  /** Whose memory it stands on: ends this one, too. */
  readonly owner: { destroy(): Promise<void> };
  /** Of what it took over. */
  readonly warnings$: Observable<string>;
}

export class TakenOver extends QemuPrimary {
  readonly #owner: TakenOverOptions['owner'];
  readonly #warnings$: TakenOverOptions['warnings$'];
  #watched = false;

  constructor({ machine, gates, stoppedBy, owner, warnings$ }: TakenOverOptions) {
    const netdevs = gates.map(({ netdev }) => netdev);
    // A disk that had failed there may be well here: it is asked again.
    const stillBy = stoppedBy === 'io-error' ? null : stoppedBy;
    super(machine, { state: 'created', stoppedBy: stillBy, gates, netdevs });
    for (const gate of gates) gate.testAtHold((test) => this.testIfRunning(test));
    this.#owner = owner;
    this.#warnings$ = warnings$;
  }

  override get warnings$(): Observable<string> {
    return merge(super.warnings$, this.#warnings$);
  }

  /** It is about to be protected. */
  beWatched(): void {
    if (this.#watched) return;
    this.#watched = true;
    this.keepWatch();
  }

  override destroy(): Promise<void> {
    return this.#owner.destroy();
  }

  /** Ends its QEMU; memory is its owner's. May be called twice. */
  close(): Promise<void> {
    return this.end('running');
  }

  protected override testGates(): Promise<void> {
    return Promise.resolve();
  }
}
