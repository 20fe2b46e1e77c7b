// A witness whose requests and replies are lost, as they are told to be.

import { WitnessError } from '../../src/failover/error.js';
import type { Register, RegisterWitness } from '../../src/failover/register.js';

/**
 * `lost`: the request does not arrive. `unheard`: it is done, the reply is lost. `late`: it arrives when later ones have,
 * and nobody hears of it. Of a read all three are the same.
 */
export type Fate = 'done' | 'lost' | 'unheard' | 'late';

export class LossyWitness implements RegisterWitness {
  readonly name = 'lossy';
  readonly #inner: RegisterWitness;
  readonly #fates: Fate[];
  #late: (() => Promise<unknown>)[] = [];

  /** `fates` of the next requests; then all are done. */
  constructor(inner: RegisterWitness, fates: readonly Fate[]) {
    this.#inner = inner;
    this.#fates = [...fates];
  }

  read(domain: string, signal?: AbortSignal): Promise<Register | null> {
    return this.#request(() => this.#inner.read(domain, signal), false);
  }

  compareAndSet(...given: Parameters<RegisterWitness['compareAndSet']>): Promise<'won' | 'lost'> {
    // What is on its way is not called back.
    const [domain, expected, claim, token, signal] = given;
    if (signal?.aborted) return Promise.reject(new WitnessError('ABORTED', 'not waited for'));
    return this.#request(() => this.#inner.compareAndSet(domain, expected, claim, token), true);
  }

  close(): void | Promise<void> {
    return this.#inner.close();
  }

  /** What is late arrives. */
  async arrive(): Promise<void> {
    const late = this.#late;
    this.#late = [];
    for (const work of late) await work();
  }

  async #request<T>(work: () => Promise<T>, isWrite: boolean): Promise<T> {
    const fate = this.#fates.shift() ?? 'done';
    if (fate === 'done') return work();
    if (isWrite && fate === 'late') this.#late.push(work);
    if (isWrite && fate === 'unheard') await work();
    throw new WitnessError(fate === 'lost' ? 'UNREACHABLE' : 'TIMEOUT', `a request is ${fate}`);
  }
}
