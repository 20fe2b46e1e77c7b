// Back-pressure on the way out. Messages go to the socket in the order in which they were given, and what the socket
// holds never exceeds a limit in octets; a message that is larger than the limit goes alone.
//
//   push ─▶ [ waiting … ] ─▶ room? ─▶ socket ─▶ kernel
//                                     └ bufferedBytes ┘

/** Gives octets to the socket; `done` is called, in order, when the kernel has them. */
export type Transmit = (message: Uint8Array, done: () => void) => void;

interface Waiting {
  readonly message: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface Drain {
  /** Messages that must be done. */
  readonly count: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Outbox {
  readonly #limitBytes: number;
  readonly #transmit: Transmit;
  readonly #waiting: Waiting[] = [];
  readonly #drains: Drain[] = [];
  #pushed = 0;
  #done = 0;
  #bufferedBytes = 0;
  #error: Error | null = null;

  constructor(limitBytes: number, transmit: Transmit) {
    this.#limitBytes = limitBytes;
    this.#transmit = transmit;
  }

  /** Octets that the socket has and the kernel has not. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** Resolves when the message is with the socket. @throws what fail() was given */
  push(message: Uint8Array): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    this.#pushed++;
    if (this.#waiting.length === 0 && this.#hasRoom(message)) {
      this.#send(message);
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ message, resolve, reject });
    });
  }

  /** Resolves when the kernel has all that was pushed so far. @throws what fail() was given */
  drain(): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    if (this.#done === this.#pushed) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#drains.push({ count: this.#pushed, resolve, reject });
    });
  }

  /** Final: everything that waits is rejected, and everything that comes. */
  fail(error: Error): void {
    if (this.#error !== null) return;
    this.#error = error;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    for (const drain of this.#drains.splice(0)) drain.reject(error);
  }

  #hasRoom(message: Uint8Array): boolean {
    return this.#bufferedBytes === 0 || this.#bufferedBytes + message.length <= this.#limitBytes;
  }

  #send(message: Uint8Array): void {
    const { length } = message;
    this.#bufferedBytes += length;
    this.#transmit(message, () => {
      this.#bufferedBytes -= length;
      this.#done++;
      if (this.#error === null) this.#moveOn();
    });
  }

  #moveOn(): void {
    for (let next = this.#waiting[0]; next && this.#hasRoom(next.message); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#send(next.message);
      next.resolve();
    }
    for (let drain = this.#drains[0]; drain && drain.count <= this.#done; drain = this.#drains[0]) {
      this.#drains.shift();
      drain.resolve();
    }
  }
}
