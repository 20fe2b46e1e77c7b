// The last step out: a pipe, a terminal, a socket, a FIFO, a file. Each is read, or kept, by a stranger who may stall for
// ever, so writing to one never waits for it.
//
//   gate, tap, log ──▶ pump ──write──▶ outlet ──▶ the kernel
//     keeps the octets  │                │
//     until they are    └── asks again ◀─┘ took some, all, none
//     taken

export interface Outlet {
  /**
   * Offers octets: how many of the first were taken, at once or when that is known. 0: none, for now. One call at a
   * time; the memory is not changed afterwards. `untilMs`, of the monotonic clock: where somebody else does it for us,
   * it is not done later.
   * @throws the error that kept it from taking any, at once or as a rejection; they may be offered again
   */
  write(bytes: Uint8Array, untilMs?: number): number | Promise<number>;
  /** Resolves when what was taken is where it belongs. Not there: it always is. */
  settled?(): Promise<void>;
  /**
   * Opens it anew by its name: what comes from now on goes there, what was written stays where it is. Not there: it has
   * no name.
   * @throws Node's system error if it cannot be opened; then all goes on as before
   */
  reopen?(): Promise<void>;
  /** Safe to call twice. A write that is under way may still be carried out. */
  close(): void;
}

/** The most that is offered at a time: what is under way when a domain is fenced can no longer be taken back. */
export const PIECE_BYTES = 64 * 1024;

/** Takes everything, keeps nothing. */
export const NOWHERE: Outlet = { write: (bytes) => bytes.length, close: () => undefined };

/** A writer that takes all that it is given, or throws. */
export function outletOf(writer: { write(bytes: Uint8Array): void; close(): void }): Outlet {
  return {
    write: (bytes) => {
      writer.write(bytes);
      return bytes.length;
    },
    close: () => writer.close(),
  };
}
