// The promise of the prefix, with disks, where a domain stands by: wherever its stream is cut, what is taken over is the
// memory and the disks of the last checkpoint that was acknowledged. In the first stream, which goes into the images; and
// in one that goes on from there, which must not touch them before it has brought a checkpoint.

import { expect } from 'chai';
import { lastValueFrom } from 'rxjs';
import { ChannelError } from '../../src/channel/contract.js';
import { asError } from '../../src/errors.js';
import { MONOTONIC } from '../../src/flow/clock.js';
import { openRestore, type RestoreSteps } from '../../src/restore/steps.js';
import { saveDomain } from '../../src/save/save.js';
import { commits, type CommitLink } from '../../src/secondary/commits.js';
import { useless, type RestoreNews } from '../../src/secondary/restore-news.js';
import type { RecordSource } from '../../src/stream/flow.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { PAGES, ScribblingGuest, difference, noise, type DiskSnapshot } from '../save/disk-support.js';
import { RecordingSink, driver, sourceOf, type RecordedBoundary } from '../save/support.js';
import { seeded } from '../stream/streams.js';
import { LONG } from '../support/length.js';

/** Small, so that the streams are. */
const DISKS = [
  { id: 'root', bytes: 65_536 + 1024 },
  { id: 'data', bytes: 4096 },
];
const CHECKPOINTS = 3;
/** Of a record: around its beginning, its header, that of its disk writes, and their first extent. */
const IN_A_HEAD = [-1, 0, 1, 7, 8, 15, 16, 39, 40];
const STREAMS = ['one', 'two'] as const;

interface Recorded {
  /** Up to its last checkpoint: its owner dies behind it. */
  readonly octets: Uint8Array;
  readonly boundaries: readonly RecordedBoundary[];
  /** In each pause. */
  readonly snapshots: readonly DiskSnapshot[];
}

/** Two streams of one domain, one after the other; the second has what was written since the first. */
async function recordTwo(seed: number): Promise<readonly [Recorded, Recorded]> {
  const random = seeded(seed);
  const disks = new MemoryDisks({ disks: DISKS, turns: () => random(3) });
  for (const disk of DISKS.keys()) disks.image(disk).set(noise(disks.image(disk).length, random));
  const domain = new MemoryDomain({ pages: PAGES, disks });
  await domain.start();
  await disks.attach();
  const guest = new ScribblingGuest(domain, disks, random);
  const one = await recorded(domain, disks, true);
  const two = await recorded(domain, disks, false);
  guest.stop();
  return [one, two];
}

async function recorded(domain: MemoryDomain, disks: MemoryDisks, isFirst: boolean): Promise<Recorded> {
  const sink = new RecordingSink();
  const snapshots: DiskSnapshot[] = [];
  await saveDomain({
    ...{ domain, sink, streamType: 'remus', live: true },
    ...(!isFirst && {
      disks: { todo: (marked) => Promise.resolve(marked.map((map) => map ?? 'all')) },
    }),
    callbacks: driver({
      ...{ domain, checkpoints: CHECKPOINTS },
      suspended: (epoch) => (snapshots[epoch] = { memory: domain.memoryCopy(), disks: disks.imageCopies() }),
    }),
  });
  const boundaries = sink.boundaries.filter(({ end }) => !end);
  const octets = sink.octets().subarray(0, boundaries.at(-1)?.offset);
  return { octets, boundaries, snapshots };
}

function offsetsOf(octets: Uint8Array): number[] {
  const reader = new RecordReader();
  reader.push(octets);
  const offsets: number[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) offsets.push(record.offset);
  return offsets;
}

/** Where a stream is cut; `isTold`: all messages that belong to the octets before have come. */
interface Cut {
  readonly at: number;
  readonly isTold: boolean;
}

/** A standby that restores the streams, the last of which is cut. */
class Standing {
  readonly images = new MemoryDisks({ disks: DISKS });
  readonly domain = new MemoryDomain({ pages: PAGES, empty: true, disks: this.images });
  readonly acknowledged: number[] = [];
  #steps: RestoreSteps | null = null;

  async restore(
    streamUuid: string,
    { octets, boundaries }: Recorded,
    { at, isTold }: Cut,
    chunk: number,
  ): Promise<RestoreNews> {
    const source = sourceOf(octets.subarray(0, at), chunk);
    this.acknowledged.length = 0;
    let restorer: RestoreSteps;
    try {
      restorer = await this.#restorer(streamUuid, source);
    } catch (error) {
      return useless(asError(error)); // as restoring.ts does
    }
    const told = boundaries.filter(({ offset }) => offset < at || (offset === at && isTold));
    const link: CommitLink = {
      boundary: () => {
        const [next] = told.splice(0, 1);
        if (!next) return Promise.reject(new ChannelError('LINK_CLOSED', 'cut'));
        const { epoch, end } = next;
        return Promise.resolve({
          epoch,
          end,
          bytes: 1,
          digest: 1n,
          outputBytes: 0,
          trial: false,
          handOver: false,
        });
      },
      acknowledge: (epoch) => {
        this.acknowledged.push(epoch);
        return Promise.resolve();
      },
      destroy: (error) => expect.fail(error.message),
    };
    return lastValueFrom(commits(restorer, link, MONOTONIC));
  }

  async #restorer(streamUuid: string, source: RecordSource): Promise<RestoreSteps> {
    const { domain } = this;
    if (this.#steps) await this.#steps.resume(source, streamUuid);
    const disks = { streamUuid };
    this.#steps ??= await openRestore({ domain, source, streamType: 'remus', disks, callbacks: {} });
    return this.#steps;
  }
}

describe('secondary: a stream with disks that is cut', () => {
  let recording: readonly [Recorded, Recorded];
  before(async () => (recording = await recordTwo(21)));

  async function expectPrefix(stream: 0 | 1, cut: Cut, chunk: number): Promise<void> {
    const standing = new Standing();
    const [one, two] = recording;
    const what = `stream ${STREAMS[stream]}, cut at ${cut.at}`;
    if (stream === 1) await standing.restore('one', one, { at: one.octets.length, isTold: true }, 70_000);
    const { boundaries, snapshots } = recording[stream];
    const end = await standing.restore(STREAMS[stream], stream === 0 ? one : two, cut, chunk);
    const whole = boundaries.filter(({ offset }) => offset < cut.at || (offset === cut.at && cut.isTold));
    expect(standing.acknowledged, what).to.deep.equal(whole.map(({ epoch }) => epoch));
    if (end.kind !== 'restored') throw new Error(`${what}: ${end.kind}`);
    const isOfOne = stream === 1 && whole.length === 0;
    const last = isOfOne ? one.snapshots.at(-1) : snapshots[whole.length - 1];
    // What does not come to a checkpoint of its own leaves what was held before as it was, however it ends.
    if (!isOfOne) expect(end.consistent, what).to.equal(last !== undefined);
    if (!last) {
      expect(standing.images.record).to.be.oneOf([null, 'in between']);
      return;
    }
    const point = isOfOne
      ? { streamUuid: 'one', epoch: one.boundaries.length - 1 }
      : { streamUuid: STREAMS[stream], epoch: whole.length - 1 };
    expect(standing.images.record, what).to.deep.equal(point);
    await standing.images.taken();
    const is = { memory: standing.domain.memoryCopy(), disks: standing.images.imageCopies() };
    expect(difference(is, last), what).to.equal(null);
  }

  for (const stream of [0, 1] as const) {
    const name = stream === 0 ? 'the first' : 'one that goes on from it';
    it(`${name}: at ${LONG ? 'every offset' : 'each record, and random offsets'}`, async () => {
      const { octets, boundaries } = recording[stream];
      const random = seeded(4);
      const cuts = new Set<number>([octets.length]);
      for (const offset of offsetsOf(octets)) {
        for (const within of IN_A_HEAD) cuts.add(offset + within);
      }
      for (let n = 0; n < 300; n++) cuts.add(random(octets.length));
      if (LONG) for (let at = 0; at < octets.length; at++) cuts.add(at);
      for (const at of cuts) {
        if (at >= 0 && at <= octets.length)
          await expectPrefix(stream, { at, isTold: true }, 1 + random(100_000));
      }
      // The message that ends a checkpoint is not there yet: it is not acknowledged, so it does not count.
      expect(boundaries).to.have.lengthOf(CHECKPOINTS);
      for (const { offset } of boundaries) await expectPrefix(stream, { at: offset, isTold: false }, 70_000);
    }).timeout(LONG ? 3_600_000 : 60_000);
  }
});
