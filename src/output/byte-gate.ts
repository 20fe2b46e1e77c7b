// The gate for outputs that are octets (a serial port). Positions count the octets that the domain has emitted; a
// seal is a mark at a position, a release moves the exit up to a mark.
//
//   emitted:   a b c d e f g h
//   marks:         ^1    ^2         release(1): a b are out; held: c d e f g h
//
// Nothing is ever dropped but by discard(). A holder that fills up says so on pressure$; whoever drives the domain
// must then stop it, for the gate itself cannot.

import { BehaviorSubject, distinctUntilChanged, type Observable } from 'rxjs';
import { ByteQueue } from './byte-queue.js';
import type { OutputGate } from './gate.js';

export interface ByteGateOptions {
  /** Where released octets go, in order. The memory is the writer's to keep. */
  readonly write: (bytes: Uint8Array) => void;
  /** Octets held beyond which pressure$ is true. */
  readonly limitBytes: number;
}

interface Mark {
  readonly epoch: number;
  /** Octets emitted when the epoch was sealed. */
  readonly position: number;
}

export class ByteGate implements OutputGate {
  private readonly queue = new ByteQueue();
  private readonly pressure = new BehaviorSubject(false);
  private marks: Mark[] = [];
  private mode: 'holding' | 'passing' | 'discarded' = 'holding';
  private emitted = 0;
  private released = 0;

  /** True while more than the limit is held. Says the present state first. */
  readonly pressure$: Observable<boolean> = this.pressure.pipe(distinctUntilChanged());

  constructor(private readonly options: ByteGateOptions) {}

  get heldBytes(): number {
    return this.queue.length;
  }

  get emittedBytes(): number {
    return this.emitted;
  }

  get releasedBytes(): number {
    return this.released;
  }

  /** The domain says something. */
  push(bytes: Uint8Array): void {
    this.emitted += bytes.length;
    if (this.mode === 'discarded') return;
    if (this.mode === 'passing') {
      // A copy, as held octets are: the domain may reuse its buffer once this returns.
      this.write(bytes.slice());
      return;
    }
    this.queue.push(bytes);
    this.updatePressure();
  }

  seal(epoch: number): Promise<void> {
    if (this.mode === 'holding') this.marks.push({ epoch, position: this.emitted });
    return Promise.resolve();
  }

  release(epoch: number): Promise<void> {
    if (this.mode !== 'holding') return Promise.resolve();
    let position = -1;
    while (this.marks[0] !== undefined && this.marks[0].epoch <= epoch) {
      position = this.marks[0].position;
      this.marks.shift();
    }
    return this.attempt(() => this.letOut(position - (this.emitted - this.queue.length)));
  }

  discard(): Promise<void> {
    this.mode = 'discarded';
    this.marks = [];
    this.queue.clear();
    this.updatePressure();
    return Promise.resolve();
  }

  pass(): Promise<void> {
    if (this.mode === 'discarded') return Promise.resolve();
    this.mode = 'passing';
    this.marks = [];
    return this.attempt(() => this.letOut(this.queue.length));
  }

  hold(): Promise<void> {
    if (this.mode === 'passing') this.mode = 'holding';
    return Promise.resolve();
  }

  restart(): Promise<void> {
    this.marks = [];
    return Promise.resolve();
  }

  private letOut(count: number): void {
    if (count <= 0) return;
    try {
      this.queue.take(count, (piece) => this.write(piece));
    } finally {
      this.updatePressure();
    }
  }

  private write(bytes: Uint8Array): void {
    this.released += bytes.length;
    this.options.write(bytes);
  }

  private updatePressure(): void {
    this.pressure.next(this.queue.length > this.options.limitBytes);
  }

  /** A writer that throws rejects the call that led to it. */
  private attempt(action: () => void): Promise<void> {
    return new Promise((resolve) => {
      action();
      resolve();
    });
  }
}
