// Work that is done one after another, in the order given. Work that fails fails by itself: the next is done.

export class InOrder {
  #last: Promise<unknown> = Promise.resolve();

  /** Begins in a later turn of the event loop's microtasks, also if nothing is under way. */
  do<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined); // told to the caller
    return result;
  }

  /** Resolves when nothing is under way: all that was given, also while this waited, is done, well or badly. */
  async settled(): Promise<void> {
    for (let last: unknown = null; last !== this.#last;) await (last = this.#last);
  }
}
