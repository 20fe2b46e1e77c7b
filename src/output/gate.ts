// Output commit. What the domain says in an epoch stays behind the gate until that epoch is safe on the secondary.
//
//   domain says: a b | c d | e          | = seal, at each suspend
//   epochs:       0     1    2 (open)
//   release(1) lets out a b c d, in order; e waits for the seal and release of 2.
//
// A gate stands for one way out of the domain (its serial port, one network interface). Seal and release may take
// time (a QEMU netdev is toggled over QMP), hence the promises.

export interface OutputGate {
  /**
   * Closes the open epoch: what was emitted so far belongs to `epoch`. Called while the domain is suspended, or, where
   * that would lengthen the pause, shortly before: what is said in between is held an epoch longer than it must be.
   */
  seal(epoch: number): Promise<void>;
  /** Lets out all that belongs to `epoch` and to those before it. What nobody takes yet stays held, until somebody does. */
  release(epoch: number): Promise<void>;
  /** Fenced: drops all that is held, and all that will come. Final. */
  discard(): Promise<void>;
  /** Unprotected: lets out all that is held and all that comes, until hold() is called. */
  pass(): Promise<void>;
  /** Holds again from now on (the state in which a gate is made), also what was let out and is still here. */
  hold(): Promise<void>;
  /** A new stream numbers its epochs from 0 again: sealed epochs that were not released join the open one. */
  restart(): Promise<void>;
  /** Octets held now. */
  readonly heldBytes: number;
  /** Octets that the domain has emitted since it was created: the position in its output at which an epoch ends. */
  readonly emittedBytes: number;
  /** Octets that are out. */
  readonly releasedBytes: number;
}
