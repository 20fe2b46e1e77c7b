// The gate for outputs that are octets (a serial port). Positions count the octets that the domain has emitted; a
// seal is a mark at a position, a release moves the bar up to a mark. What is before the bar may leave, at the pace of
// the outlet; it is held, and counts as held, until the outlet has taken it.
//
//   emitted:   a b c d e f g h
//   marks:         ^1    ^2         release(1): a b may leave
//   outlet:      ^ took a           held: b c d e f g h, of which b may leave
//
// Nothing is ever dropped but by discard(). A holder that fills up says so on pressure$; whoever drives the domain
// must then stop it, for the gate itself cannot.

import { BehaviorSubject, type Observable } from 'rxjs';
import { ByteQueue } from './byte-queue.js';
import type { OutputGate } from './gate.js';
import { PIECE_BYTES, type Outlet } from './outlet.js';
import { Pump, type PumpReports } from './pump.js';

export interface ByteGateOptions extends PumpReports {
  /** Where released octets go, in order. */
  readonly outlet: Outlet;
  /** Octets held beyond which pressure$ is true. */
  readonly limitBytes: number;
}

interface Mark {
  readonly epoch: number;
  /** Octets emitted when the epoch was sealed. */
  readonly position: number;
}

export class ByteGate implements OutputGate {
  readonly #limitBytes: number;
  readonly #queue = new ByteQueue();
  readonly #pressure = new BehaviorSubject(false);
  readonly #pump: Pump;
  #marks: Mark[] = [];
  #mode: 'holding' | 'passing' | 'discarded' = 'holding';
  #emitted = 0;
  #released = 0;
  /** What is before this position may leave. */
  #bar = 0;

  /** True while more than the limit is held. Says the present state first. */
  readonly pressure$: Observable<boolean> = this.#pressure.asObservable();

  constructor(options: ByteGateOptions) {
    this.#limitBytes = options.limitBytes;
    this.#pump = new Pump(
      options.outlet,
      { next: () => this.#next(), taken: (count) => this.#taken(count) },
      options,
    );
  }

  get heldBytes(): number {
    return this.#queue.length;
  }

  /** Of the held ones, those that may leave, if only the outlet took them. */
  get waitingBytes(): number {
    return Math.max(0, Math.min(this.#bar - this.#released, this.#queue.length));
  }

  get emittedBytes(): number {
    return this.#emitted;
  }

  /** What the outlet has taken. */
  get releasedBytes(): number {
    return this.#released;
  }

  /** The domain says something. */
  push(bytes: Uint8Array): void {
    this.#emitted += bytes.length;
    if (this.#mode === 'discarded') return;
    this.#queue.push(bytes);
    if (this.#mode === 'passing') this.#pump.run();
    this.#updatePressure();
  }

  seal(epoch: number): Promise<void> {
    if (this.#mode === 'holding') this.#marks.push({ epoch, position: this.#emitted });
    return Promise.resolve();
  }

  release(epoch: number): Promise<void> {
    if (this.#mode !== 'holding') return Promise.resolve();
    while (this.#marks[0] !== undefined && this.#marks[0].epoch <= epoch) {
      this.#bar = this.#marks[0].position;
      this.#marks.shift();
    }
    this.#pump.run();
    return Promise.resolve();
  }

  discard(): Promise<void> {
    this.#mode = 'discarded';
    this.#marks = [];
    this.#queue.clear();
    this.#updatePressure();
    return Promise.resolve();
  }

  pass(): Promise<void> {
    if (this.#mode === 'discarded') return Promise.resolve();
    this.#mode = 'passing';
    this.#marks = [];
    this.#bar = Infinity;
    this.#pump.run();
    return Promise.resolve();
  }

  hold(): Promise<void> {
    if (this.#mode === 'discarded') return Promise.resolve();
    this.#mode = 'holding';
    this.#bar = this.#released;
    return Promise.resolve();
  }

  restart(): Promise<void> {
    this.#marks = [];
    return Promise.resolve();
  }

  /**
   * The end: what may leave has so long to do so, then nothing more does. Resolves to how many octets were left that
   * might have left.
   */
  async end(timeoutMs: number): Promise<number> {
    await this.#pump.settled(timeoutMs);
    this.#pump.end();
    return this.waitingBytes;
  }

  #next(): Uint8Array | null {
    if (this.#mode === 'discarded') return null;
    return this.#queue.peek(Math.min(PIECE_BYTES, this.#bar - this.#released));
  }

  #taken(count: number): void {
    this.#released += count;
    this.#queue.drop(count);
    this.#updatePressure();
  }

  #updatePressure(): void {
    const full = this.#queue.length > this.#limitBytes;
    if (full !== this.#pressure.value) this.#pressure.next(full);
  }
}
