// A TCP connection: two directions, each in order. What is sent into a cut is sent again, later and later, as the kernel
// does it, whatever became of the process that said it; what reaches nobody is answered with a reset.
//
//   end ── send ─▶ wire: arrives, or is cut: again after 200 ms, 400 ms, … ─▶ process.run ─▶ receive
//    ▲                                                                             │ dead, or closed
//    └──────────────────────────── closed ◀───────────────────────────────────────┘

import type { ByeReason, Hello } from '../../../src/channel/contract.js';
import type { Point } from '../checkers/history.js';
import type { Clock } from './clock.js';
import type { Network, Way } from './network.js';
import type { Process } from './process.js';

/** What a primary answers, as far as it counts here. */
export interface Greeting {
  readonly host: string;
  readonly streamUuid: string;
  readonly pairing: string;
  readonly continuous: boolean;
  readonly resumes: boolean;
}

export type Message =
  | { readonly kind: 'hello'; readonly hello: Hello }
  | { readonly kind: 'welcome'; readonly welcome: Greeting }
  | { readonly kind: 'heartbeat' }
  | {
      readonly kind: 'checkpoint';
      readonly epoch: number;
      readonly point: Point;
      /** It is the last. */
      readonly handOver: boolean;
    }
  | { readonly kind: 'handed-over' }
  | { readonly kind: 'ack'; readonly epoch: number }
  | { readonly kind: 'bye'; readonly reason: ByeReason }
  | { readonly kind: 'error'; readonly code: string }
  /** By the kernel: nothing more comes; `reset`: nor is anything taken that was sent. */
  | { readonly kind: 'closed'; readonly reset?: true };

/** A host as its kernel is: up or down, and in it the process that has the socket. */
export interface Seat {
  readonly host: string;
  readonly isUp: () => boolean;
  readonly process: Process;
  /** The kernel closes for a process that is dead what was opened and not closed. */
  readonly opened: (end: End) => void;
  readonly closed: (end: End) => void;
}

const RESEND_FIRST_MS = 200;
const RESEND_MOST_MS = 1600;

export class End {
  readonly seat: Seat;
  receive: ((message: Message) => void) | null = null;
  closed = false;
  isReset = false;
  readonly #wire: Wire;

  constructor(seat: Seat, wire: Wire) {
    this.seat = seat;
    this.#wire = wire;
    seat.opened(this);
  }

  /** `takesMs`: of the many octets that go with it. */
  send(message: Message, takesMs = 0): void {
    if (!this.closed) this.#wire.send(message, takesMs);
  }

  /** The process is told, what it has said is forgotten; whoever sends to it hears that nobody is there. */
  reset(): void {
    this.#wire.forget();
    this.closed = true;
    this.isReset = true;
    this.seat.closed(this);
    this.seat.process.run(this, () => this.receive?.({ kind: 'closed' }));
  }

  /** By the process, or by the kernel when that is dead. */
  close(): void {
    if (this.closed) return;
    this.send({ kind: 'closed' });
    this.closed = true;
    this.seat.closed(this);
  }
}

export class Connection {
  readonly dialler: End;
  readonly listener: End;
  readonly #there: Wire;
  readonly #back: Wire;

  constructor(clock: Clock, network: Network, dialler: Seat, listener: Seat) {
    const there = new Wire(clock, network, network.way(dialler.host, listener.host), dialler);
    const back = new Wire(clock, network, network.way(listener.host, dialler.host), listener);
    this.dialler = new End(dialler, there);
    this.listener = new End(listener, back);
    there.arrived = (message) => arrived(this.listener, message, back);
    back.arrived = (message) => arrived(this.dialler, message, there);
    this.#there = there;
    this.#back = back;
  }

  /** Messages on their way. */
  get underWay(): number {
    return this.#there.underWay + this.#back.underWay;
  }
}

function arrived(end: End, message: Message, answer: Wire): void {
  const { process, isUp } = end.seat;
  if (!isUp()) return;
  if (message.kind === 'closed' && message.reset && !end.closed) end.reset();
  else if (process.alive && !end.closed) process.run(end, () => end.receive?.(message));
  else if ((!process.alive || end.isReset) && message.kind !== 'closed')
    answer.send({ kind: 'closed', reset: true }, 0);
}

interface Sent {
  readonly message: Message;
  readonly atMs: number;
}

class Wire {
  arrived: (message: Message) => void = () => undefined;
  readonly #clock: Clock;
  readonly #network: Network;
  readonly #way: Way;
  readonly #sender: Seat;
  readonly #sent: Sent[] = [];
  #lastMs = 0;
  #resendMs = 0;

  constructor(clock: Clock, network: Network, way: Way, sender: Seat) {
    this.#clock = clock;
    this.#network = network;
    this.#way = way;
    this.#sender = sender;
  }

  get underWay(): number {
    return this.#sent.length;
  }

  send(message: Message, takesMs: number): void {
    const atMs = Math.max(this.#lastMs, this.#clock.nowMs + this.#network.takesMs(this.#way) + takesMs);
    this.#lastMs = atMs;
    this.#sent.push({ message, atMs });
    this.#clock.after(atMs - this.#clock.nowMs, () => {
      if (this.#resendMs === 0) this.#deliver();
    });
  }

  /** All but what has left already, and is on its way. */
  forget(): void {
    if (this.#resendMs > 0) this.#sent.length = 0;
  }

  #deliver(): void {
    if (this.#way.cuts > 0 && this.#sent.length > 0) {
      this.#again();
      return;
    }
    this.#resendMs = 0;
    for (
      let next = this.#sent[0];
      next !== undefined && next.atMs <= this.#clock.nowMs;
      next = this.#sent[0]
    ) {
      this.#sent.shift();
      this.arrived(next.message);
    }
  }

  /** The kernel of a host that is down sends nothing again. */
  #again(): void {
    if (!this.#sender.isUp()) this.#sent.length = 0;
    this.#resendMs = Math.min(RESEND_MOST_MS, Math.max(RESEND_FIRST_MS, this.#resendMs * 2));
    this.#clock.after(this.#resendMs, () => this.#deliver());
  }
}
