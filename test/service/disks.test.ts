// Two agents, and a domain that writes to disks: what its standby holds is one moment of memory and disks, and what both
// have is not sent again.

import { expect } from 'chai';
import { CHUNK_BYTES } from '../../src/disk/dirty-map.js';
import type { Extents } from '../../src/disk/extents.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { MemoryDisks } from '../memory/disks.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { progressOf } from './memory-guest.js';
import { Proxy } from './proxy.js';
import { TestPrimary, TestSecondary } from './world.js';

const DISKS = [
  { id: 'root', bytes: 40 * CHUNK_BYTES },
  { id: 'data', bytes: 3 * CHUNK_BYTES + 512 },
];
const BYTES = DISKS.reduce((total, { bytes }) => total + bytes, 0);
const WRITE_BYTES = 700;
/** Of the guest's own, before it is protected. */
const OLD_WRITES = 2000;

/** Where write number n goes, and what it is. Half of them go to the same few chunks. */
function writeOf(n: number): { disk: number; offset: number; data: Uint8Array } {
  const hash = Math.imul(n, 0x85ebca6b) >>> 0;
  const disk = hash % 3 === 0 ? 1 : 0;
  const { bytes } = DISKS[disk] ?? { bytes: 0 };
  const room = n > OLD_WRITES && disk === 0 ? 4 * CHUNK_BYTES : bytes;
  return {
    disk,
    offset: (hash >>> 4) % (room - WRITE_BYTES),
    data: new Uint8Array(WRITE_BYTES).fill((n * 17 + 3) & 255),
  };
}

/** The images after write number n, for ever larger n. */
class Replay {
  readonly images = DISKS.map(({ bytes }) => new Uint8Array(bytes));
  #n = 0;

  to(n: number): readonly Uint8Array[] {
    expect(n).to.be.at.least(this.#n);
    while (this.#n < n) {
      const { disk, offset, data } = writeOf(++this.#n);
      this.images[disk]?.set(data, offset);
    }
    return this.images;
  }
}

function expectSame(disks: MemoryDisks, images: readonly Uint8Array[], what: string): void {
  for (const [disk, image] of images.entries())
    expect(Buffer.compare(disks.image(disk), image), `${what}: disk ${disk}`).to.equal(0);
}

/** Counts the octets of data that are written to its images. */
function counted(disks: MemoryDisks): { bytes: number } {
  const sent = { bytes: 0 };
  const write = disks.write.bind(disks);
  disks.write = (disk: number, extents: Extents, data: Uint8Array) => {
    sent.bytes += data.length;
    return write(disk, extents, data);
  };
  return sent;
}

describe('service: disks', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function pair(checkpoint: Record<string, unknown> = {}, domain: Record<string, unknown> = {}) {
    const here = new MemoryDisks({ disks: DISKS });
    const there = new MemoryDisks({ disks: DISKS });
    const primary: TestPrimary = new TestPrimary(
      { disks: here, checkpoint, domain },
      {
        turnMs: 2,
        writesPerTurn: 4,
        beside: (n) => {
          const { disk, offset, data } = writeOf(n);
          here.guestWrites(disk, offset, data);
        },
      },
    );
    cleanup.add(() => primary.service.stop());
    await primary.start();
    await until('the guest has written', () => primary.guest().progress > OLD_WRITES + 100);
    const proxy = new Proxy(primary.port);
    cleanup.add(() => proxy.close());
    const reach = primary.behind(await proxy.listen());
    const sent = counted(there);
    const secondaryOf = async (): Promise<TestSecondary> => {
      const secondary = new TestSecondary(reach, { disks: there });
      cleanup.add(() => secondary.service.stop());
      const replay = new Replay();
      secondary.service.commits$.subscribe(() => {
        const domain = secondary.domains.findLast((each) => progressOf(each.memory) > 0);
        if (!domain) return;
        const n = progressOf(domain.memory);
        expectSame(there, replay.to(n), `after ${n} writes`);
      });
      await secondary.start();
      return secondary;
    };
    return { here, there, primary, proxy, sent, secondaryOf };
  }

  it('each commit is one moment of memory and disks, and so is what is taken over', async () => {
    const { there, primary, sent, secondaryOf } = await pair();
    const secondary = await secondaryOf();
    await until('40 checkpoints', () => secondary.commits.length >= 40);
    expect(sent.bytes).to.be.greaterThan(BYTES / 2);
    const first = primary.checkpoints.find(({ epoch }) => epoch === 0)?.synchronisation;
    expect(
      first?.disks.map(({ disk, doneBytes, totalBytes }) => [disk, doneBytes === totalBytes]),
    ).to.deep.equal([
      ['root', true],
      ['data', true],
    ]);
    const n = primary.guest().progress;
    await until('it is committed', () => progressOf(secondary.domains[0]?.memory ?? there.image(0)) >= n);
    expect(there.slabsOut).to.equal(0);
  });

  it('its status tells of each disk what is written, what waits, and whether it is in step', async () => {
    const { here, primary, secondaryOf } = await pair();
    const [alone] = primary.status().disks ?? [];
    expect(alone).to.include({ disk: 'root', bytes: 40 * CHUNK_BYTES, inStep: false, lost: null });
    const secondary = await secondaryOf();
    await until('replicating', () => primary.status().link === 'replicating');
    const inStep = () => primary.status().disks?.map((disk) => disk.inStep);
    expect(inStep()).to.deep.equal([true, true]);
    for (const { writeRequests, writtenBytes } of primary.status().disks ?? []) {
      expect(writtenBytes)
        .to.equal(writeRequests * WRITE_BYTES)
        .and.greaterThan(OLD_WRITES);
    }
    await until('some wait', () => (primary.status().disks ?? []).some((disk) => disk.journalBytes > 0));
    here.loses(1, 'lost on purpose');
    expect(inStep()?.[1]).to.equal(false);
    expect(primary.status().disks?.[1]?.lost).to.equal('lost on purpose');
    await until('in step again', () => inStep()?.every(Boolean) === true);
    expect(primary.status().disks?.[1]?.lost).to.equal(null);
    await secondary.service.stop();
    await until('out of step', () => inStep()?.some(Boolean) === false);
  });

  it('they are copied no faster than the configuration says', async () => {
    const { here, secondaryOf } = await pair({}, { disks: { bandwidth: '50MiB' } });
    const asked: unknown[] = [];
    const copy = here.copy.bind(here);
    here.copy = (order) => {
      asked.push(order.bytesPerSecond);
      return copy(order);
    };
    const secondary = await secondaryOf();
    await until('it is synchronised', () => secondary.commits.length > 0);
    expect(new Set(asked)).to.deep.equal(new Set([50 * 2 ** 20]));
  });

  it('after a cut only what was written since is sent; also to a standby that was restarted', async () => {
    const { primary, proxy, sent, secondaryOf } = await pair();
    const secondary = await secondaryOf();
    const replicating = () => primary.status().link === 'replicating';
    await until('checkpoints', () => secondary.commits.length >= 20);
    for (let cuts = 0; cuts < 3; cuts++) {
      sent.bytes = 0;
      const streams = new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size;
      proxy.cut();
      await until('another stream', () => {
        const now = new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size;
        return now > streams && replicating();
      });
      // The few chunks that are written to now, and whatever was written meanwhile.
      expect(sent.bytes).to.be.lessThan(BYTES / 3);
    }
    await secondary.service.stop();
    sent.bytes = 0;
    const again = await secondaryOf();
    await until('checkpoints of the next', () => again.commits.length >= 3 && replicating());
    expect(sent.bytes).to.be.lessThan(BYTES / 3);
  });

  it('where there is no room beside the images for what has changed, a synchronisation begins anew', async () => {
    const { there, primary, proxy, secondaryOf } = await pair();
    const secondary = await secondaryOf();
    await until('checkpoints', () => secondary.commits.length >= 5);
    const begun: string[] = [];
    const begin = there.begin.bind(there);
    there.begin = (how) => {
      begun.push(how);
      const failure = new HypervisorError('FAILED', 'no room beside the images', { code: 'ENOSPC' });
      there.failure = how === 'staged' ? failure : null;
      return begin(how);
    };
    proxy.cut();
    await until('in place', () => begun.includes('in-place'));
    const { length } = secondary.commits;
    await until('protected again', () => secondary.commits.length > length + 2);
    expect(primary.status().link).to.equal('replicating');
    expect(begun.length, begun.join()).to.be.lessThan(6);
    const last = primary.checkpoints.findLast(({ epoch }) => epoch === 0);
    expect(last?.synchronisation?.resumes).to.equal(false);
  });

  it('a standby whose images are of no known point has only sent what differs', async () => {
    const { there, primary, sent, secondaryOf } = await pair();
    const secondary = await secondaryOf();
    await until('checkpoints', () => secondary.commits.length >= 10);
    await secondary.service.stop();
    there.record = 'in between';
    there.durable$.next(null);
    sent.bytes = 0;
    const again = await secondaryOf();
    await until('checkpoints of the next', () => again.commits.length >= 3);
    expect(sent.bytes).to.be.lessThan(BYTES / 3);
    expect(primary.status().link).to.equal('replicating');
  });

  it('a checkpoint comes early where little room is left, and a disk that was lost is protected again', async () => {
    const { here, primary, secondaryOf } = await pair({ intervalMs: 5000 });
    const secondary = await secondaryOf();
    const commits = async (count: number, patienceMs?: number): Promise<void> => {
      const { length } = secondary.commits;
      await until(`${count} more`, () => secondary.commits.length >= length + count, patienceMs);
    };
    await until('it is protected', () => primary.status().link === 'replicating');
    for (let k = 0; k < 3; k++) {
      here.events$.next({ kind: 'pressure' });
      await commits(1, 3000);
    }
    here.loses(0);
    here.events$.next({ kind: 'pressure' });
    await until('it is noticed', () => primary.status().link !== 'replicating');
    await until('protected again', () => primary.status().link === 'replicating');
    here.events$.next({ kind: 'pressure' });
    await commits(1, 3000);
  });
});
