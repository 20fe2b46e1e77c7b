// The witness decides which of two sides that cannot see each other may run the domain: who holds the lease. A
// secondary acquires it before it takes over.
//
// Without one, a secondary that loses sight of a living primary takes over too. What keeps the world from seeing two
// domains then is the primary's gate, which holds (whenUnprotected: hold) because nobody acknowledges any more, and
// the fencing when the two see each other again. What nothing but a witness can prevent: that the secondary is
// restarted after it has taken over, unseen, and comes back to its old primary as a standby that knows of nothing.

/** The lease of one domain, for ever. */
export interface Lease {
  readonly domain: string;
}

export interface Witness {
  /** The lease, or null if another side holds it. @throws Error if the witness cannot be asked */
  acquire(domain: string): Promise<Lease | null>;
}

/** Grants always. `warn` is called once, the first time that it does. */
export function unwitnessed(warn: (message: string) => void): Witness {
  let warned = false;
  return {
    acquire(domain) {
      if (!warned) {
        warned = true;
        warn('no witness is configured: the secondary decides alone that the primary is dead');
      }
      return Promise.resolve({ domain });
    },
  };
}
