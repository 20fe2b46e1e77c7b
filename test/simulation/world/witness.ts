// The witness: one register. What is asked of it can be lost, come late, come twice; what it answers can be lost.
//
//   request ── late ─▶ down, or cut off? ─▶ applied, perhaps twice ── late ─▶ lost? ─▶ reply
//      └───────────── the client waits no longer than a limit ──────────────────────▶ no answer

import { sameRegister, written, type Register, type RegisterWrite } from '../../../src/failover/register.js';
import type { Random } from '../../support/random.js';
import type { Clock } from './clock.js';
import type { Network } from './network.js';
import type { Process } from './process.js';

export type Request = { readonly kind: 'read' } | { readonly kind: 'write'; readonly write: RegisterWrite };
/** As RegisterWitness answers; null: it did not. */
export type Reply = 'won' | 'lost' | { readonly register: Register | null } | null;

export const WITNESS = 'witness';

/** Of those that are lost for the client, so many get through later. */
const LATE_SHARE = 0.3;
const LATE_MS = 4000;

export class SimulatedWitness {
  register: Register | null = null;
  /** How many faults hold it. */
  down = 0;
  /** The share of requests, and of replies, that are lost, and of requests that come twice. */
  flaky = 0;
  /** A write has won. */
  wrote: (register: Register, before: Register | null) => void = () => undefined;
  readonly #clock: Clock;
  readonly #network: Network;
  readonly #random: Random;

  constructor(clock: Clock, network: Network, random: Random) {
    this.#clock = clock;
    this.#network = network;
    this.#random = random;
  }

  ask(
    host: string,
    process: Process,
    request: Request,
    limitMs: number,
    reply: (reply: Reply) => void,
  ): void {
    let waiting = true;
    const answered = (answer: Reply): void => {
      if (waiting) reply(answer);
      waiting = false;
    };
    process.after(limitMs, () => answered(null));
    const there = this.#network.way(host, WITNESS);
    const arrive = (): void => {
      if (this.down > 0 || there.cuts > 0 || this.#random() < this.flaky) this.#mislaid(request);
      else this.#serve(host, process, request, answered);
    };
    this.#clock.after(this.#network.takesMs(there), arrive);
  }

  /** Nobody waits for it any more, and it may come yet. */
  #mislaid(request: Request): void {
    if (request.kind === 'read' || this.#random() >= LATE_SHARE) return;
    this.#clock.after(LATE_MS * this.#random(), () => {
      if (this.down === 0) this.#apply(request);
    });
  }

  #serve(host: string, process: Process, request: Request, answered: (answer: Reply) => void): void {
    const back = this.#network.way(WITNESS, host);
    const first = this.#apply(request);
    // Of one that comes twice, either answer may be the one that is read.
    const twice = this.#random() < this.flaky;
    const answer = twice && this.#random() < 0.5 ? this.#apply(request) : first;
    if (back.cuts > 0 || this.#random() < this.flaky) return;
    this.#clock.after(this.#network.takesMs(back), () => process.run(WITNESS, () => answered(answer)));
  }

  #apply(request: Request): Reply {
    if (request.kind === 'read') return { register: this.register };
    const { write } = request;
    const before = this.register;
    if (!sameRegister(before, write.expected)) return 'lost';
    this.register = written(write);
    this.wrote(this.register, before);
    return 'won';
  }
}
