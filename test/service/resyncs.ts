// A standby that is met again is sent what has changed since, whatever the register said meanwhile; and what it is then,
// may be taken over. For any hypervisor.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { PAGE_SIZE } from '../../src/stream/format.js';
import { successiveTicksOf, ticksOf } from '../hypervisor/support.js';
import type { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PATIENCE_MS } from './agent-pair.js';
import { Proxy } from './proxy.js';
import { TwoAgents, type TwoAgentsOptions } from './two-agents.js';

/** Of a page in the stream: itself, and its place in the list of its record. */
const PAGE_BYTES = PAGE_SIZE + 8;

export interface ResyncOptions extends Pick<TwoAgentsOptions, 'hypervisor' | 'hypervisors'> {
  readonly memoryBytes: number;
  /** Pages that the guest writes in each tick. */
  readonly dirtyPages: number;
}

export interface Resynchronised {
  readonly bytes: number;
  /** What has changed, and 5 % of memory. */
  readonly allowedBytes: number;
  /** That the guest has written, many of them more than once. */
  readonly pagesPerSecond: number;
}

export class Resync {
  readonly two: TwoAgents;
  readonly #proxy: Proxy;
  readonly #options: ResyncOptions;

  static async start(cleanup: Cleanup, options: ResyncOptions): Promise<Resync> {
    const proxies = { alpha: new Proxy(0), beta: new Proxy(0) };
    const { hypervisor, hypervisors } = options;
    const two = await TwoAgents.start(cleanup, { hypervisor, proxies, ...(hypervisors && { hypervisors }) });
    await two.more();
    expect(two.owner).to.equal('alpha');
    return new Resync(two, proxies.alpha, options);
  }

  private constructor(two: TwoAgents, proxy: Proxy, options: ResyncOptions) {
    this.two = two;
    this.#proxy = proxy;
    this.#options = options;
  }

  /** Nothing gets through for so long. Resolves when it is protected again, to the octets of the checkpoint that did that. */
  async cut(ms: number): Promise<Resynchronised> {
    const { two } = this;
    const before = two.checkpoints.at(-1)?.streamUuid;
    const [last = 0] = ticksOf(two.said).slice(-1);
    const began = performance.now();
    this.#proxy.mode = 'refuse';
    this.#proxy.cut();
    await sleep(ms);
    this.#proxy.mode = 'forward';
    const first = () =>
      two.checkpoints.find(
        ({ streamUuid, epoch }) => streamUuid !== before && epoch === 0 && this.#isPresent(streamUuid),
      );
    await until('protected again', () => first() !== undefined, PATIENCE_MS);
    const [now = 0] = ticksOf(two.said).slice(-1);
    const { memoryBytes, dirtyPages } = this.#options;
    // What it says of the last ticks may be held: a few more.
    const changedBytes = (now - last + 10) * dirtyPages * PAGE_BYTES;
    const { bytes, synchronisation } = first() ?? expect.fail('it is protected again');
    expect(synchronisation?.resumes, 'it goes on').to.equal(true);
    const pagesPerSecond = ((now - last) * dirtyPages * 1000) / (performance.now() - began);
    return { bytes, allowedBytes: changedBytes + 0.05 * memoryBytes, pagesPerSecond };
  }

  /** What it says is one history, over a takeover from what was brought last. */
  async takeOver(): Promise<void> {
    const { two } = this;
    await two.paired();
    await two.more();
    await two.agent('alpha').switchover('web');
    await two.more();
    await two.paired();
    expect(two.owner).to.equal('beta');
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  }

  #isPresent(streamUuid: string): boolean {
    return this.two.status('alpha').streamUuid === streamUuid;
  }
}
