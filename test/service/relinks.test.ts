// A link that is lost and made again, over and over: each stream uses the memory of the one before, and nothing of a
// stream that is over stays.

import { expect } from 'chai';
import { queryObjects } from 'node:v8';
import { CLOSE_TIMEOUT_MS } from '../../src/channel/limits.js';
import { SocketPrimaryLink } from '../../src/channel/link/primary.js';
import { SocketSecondaryLink } from '../../src/channel/link/secondary.js';
import type { MemoryDomain } from '../memory/domain.js';
import { Capture } from '../../src/primary/capture.js';
import { StreamProgress } from '../../src/secondary/restore-news.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { Proxy } from './proxy.js';
import { TestPrimary, TestSecondary } from './world.js';

const RELINKS = 12;
/** One more than the epochs that may be on their way, one by default. */
const SLABS = 2;
/** A domain that does not answer for so long hangs. */
const HUNG_MS = 1000;
/** Of each kind: the present one, and one that a promise still holds. */
const LIVING_MAX = 2;
/** Of a timer that is early. */
const EARLY_MS = 20;

describe('service: a link that is made again and again', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  interface Pair {
    readonly primary: TestPrimary;
    readonly secondary: TestSecondary;
    readonly proxy: Proxy;
    /** What pages were copied into. */
    readonly slabs: Set<ArrayBufferLike>;
    /** Called when pages are copied; what it gives is waited for. */
    copied: () => Promise<void> | undefined;
  }

  async function pair(copied: Pair['copied'] = () => undefined): Promise<Pair> {
    const slabs = new Set<ArrayBufferLike>();
    const watch = (domain: MemoryDomain): void => {
      const copyPages = domain.copyPages.bind(domain);
      domain.copyPages = async (gfns, count, slab, offset) => {
        slabs.add(slab.buffer);
        await both.copied();
        await copyPages(gfns, count, slab, offset);
      };
    };
    const primary = new TestPrimary({ made: watch, checkpoint: { hypervisorTimeoutMs: HUNG_MS } });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const proxy = new Proxy(primary.port);
    cleanup.add(() => proxy.close());
    const secondary = new TestSecondary(primary.behind(await proxy.listen()), {
      failover: { reconnectWindowMs: 60_000 },
    });
    cleanup.add(() => secondary.service.stop());
    const both: Pair = { primary, secondary, proxy, slabs, copied };
    await secondary.start();
    await protectedBy(both, 1);
    return both;
  }

  async function protectedBy({ primary, secondary }: Pair, streams: number): Promise<void> {
    // More, if a busy machine let a link be lost.
    const committed = () => new Set(secondary.commits.map(({ streamUuid }) => streamUuid)).size;
    await until(`checkpoints of stream ${streams}`, () => committed() >= streams);
    await until('protected', () => primary.status().link === 'replicating');
  }

  it('captures into the same slabs, and lets go of whatever belonged to a stream', async () => {
    const both = await pair();
    for (let k = 1; k <= RELINKS; k++) {
      both.proxy.cut();
      await protectedBy(both, k + 1);
    }
    expect(both.slabs.size).to.equal(SLABS);
    for (const kind of [SocketPrimaryLink, Capture, SocketSecondaryLink, StreamProgress]) {
      expect(queryObjects(kind, { format: 'count' }), kind.name).to.be.within(1, LIVING_MAX);
    }
  });

  it('fills no slab that the socket of the stream before may still send from', async () => {
    const both = await pair();
    let lostAtMs = NaN;
    let copiedAtMs = NaN;
    both.primary.service.transitions$.subscribe(({ reason }) => {
      if (reason !== 'HEARTBEAT_TIMEOUT') return;
      lostAtMs = performance.now();
      // The saver that is given up may be just copying.
      setImmediate(() => {
        both.copied = () => {
          if (Number.isNaN(copiedAtMs)) copiedAtMs = performance.now();
          return undefined;
        };
      });
    });
    both.proxy.reset(); // nobody answers the primary's close on the connection that was
    await protectedBy(both, 2);
    expect(copiedAtMs - lostAtMs).to.be.at.least(CLOSE_TIMEOUT_MS - EARLY_MS);
    expect(both.slabs.size).to.equal(SLABS);
  });

  it('leaves a slab to a domain that hangs and may still copy into it', async () => {
    let hangs = true;
    const { slabs } = await pair(() => {
      const hung = hangs;
      hangs = false;
      return hung ? new Promise<void>(() => undefined) : undefined;
    });
    expect(slabs.size).to.equal(1 + SLABS);
  });
});
