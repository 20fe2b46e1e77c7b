// What the standby has, over the streams: the real saver and the real restorer, with links that break at any record, and
// acknowledgements that do not arrive. Whatever happens, what is committed equals what was captured.

import { expect } from 'chai';
import fc from 'fast-check';
import type { SharedPoint } from '../../src/channel/contract.js';
import { chained } from '../../src/channel/link/digest.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { Shared } from '../../src/primary/shared.js';
import { openRestore, type RestoreSteps } from '../../src/restore/steps.js';
import { openSave, type SaveSteps } from '../../src/save/steps.js';
import { StreamError } from '../../src/stream/error.js';
import { MemoryDomain } from '../memory/domain.js';
import { RecordingSink, pagePattern, sourceOf, targetFor } from '../save/support.js';

const PAGES = 40;

interface Epoch {
  readonly octets: Uint8Array;
  readonly digest: bigint;
  readonly memory: Uint8Array;
  readonly context: Uint8Array;
}

/** One domain, its standby, and the streams between them. */
class Pair {
  readonly domain: MemoryDomain;
  target: MemoryDomain;
  readonly shared: Shared;
  /** Pages sent in each first checkpoint that went on from another stream. */
  readonly resumed: number[] = [];
  /** What the standby says that it has. */
  point: SharedPoint | null = null;
  #restorer: RestoreSteps | null = null;
  /** The last that was committed. */
  #last: Epoch | undefined;
  #generation = 0;
  #streams = 0;

  constructor(emulator: boolean) {
    this.domain = new MemoryDomain({ pages: PAGES, emulator });
    this.target = targetFor(PAGES, emulator);
    this.shared = new Shared(this.domain);
    for (let pfn = 0; pfn < PAGES; pfn++) this.domain.write(pfn, pagePattern(pfn, 0));
  }

  /** The guest writes these pages, and to what is not memory. */
  dirty(pfns: readonly number[]): void {
    const generation = ++this.#generation;
    for (const pfn of pfns) this.domain.write(pfn, pagePattern(pfn, generation));
    const state = new Uint8Array(16).fill(generation);
    if (this.domain.emulatorContext) this.domain.emulatorState = state;
    else this.domain.context = state;
  }

  /**
   * One stream of so many checkpoints, before each of which pages are written. Of the last one, `arrives` of 1 arrives; the
   * acknowledgements of the last `unheard` that arrive whole are lost. `given up`: while one more is captured.
   */
  async stream(
    writes: readonly (readonly number[])[],
    { arrives, unheard, givenUp }: { arrives: number; unheard: number; givenUp: boolean },
  ): Promise<void> {
    const { shared } = this;
    const resumes = shared.has(this.point);
    const streamUuid = `S${++this.#streams}`;
    expect(shared.begin(streamUuid, resumes ? this.point : null)).to.equal(true);
    const sink = new RecordingSink();
    const steps = await openSave({
      domain: this.domain,
      sink,
      streamType: 'remus',
      live: true,
      dirtyLog: shared,
      resumes,
      callbacks: {
        suspend: () => this.domain.suspend(),
        postcopy: () => this.domain.resume(),
        precopyPolicy: ({ iteration }) => (iteration > 1 ? 'stop-and-copy' : 'continue-precopy'),
      },
    });
    const epochs: Epoch[] = [];
    for (const [epoch, pfns] of writes.entries()) {
      this.dirty(pfns);
      epochs.push(await this.#capture(steps, sink, epoch));
    }
    if (givenUp) await this.#giveUp(steps);
    await steps.close(null);
    await this.#restore(streamUuid, resumes, epochs, arrives, unheard);
  }

  async #capture(steps: SaveSteps, sink: RecordingSink, epoch: number): Promise<Epoch> {
    const from = sink.bytes;
    expect(await steps.capture()).to.equal('captured');
    this.shared.captured(epoch);
    const memory = this.domain.memory.slice();
    const context = (this.domain.emulatorContext ? this.domain.emulatorState : this.domain.context).slice();
    await steps.resume();
    await steps.send();
    await sink.drain();
    const octets = sink.octets().slice(from);
    const digest = BigInt(this.#generation);
    this.shared.sent(epoch, digest);
    return { octets, digest, memory, context };
  }

  /** Pages are taken out of the log, and what comes of them is nobody's. */
  async #giveUp(steps: SaveSteps): Promise<void> {
    this.dirty([1, 2, 3]);
    await steps.capture();
    await steps.resume();
  }

  async #restore(
    streamUuid: string,
    resumes: boolean,
    epochs: readonly Epoch[],
    arrives: number,
    unheard: number,
  ): Promise<void> {
    const whole = epochs.slice(0, arrives === 1 ? epochs.length : -1);
    const all = Buffer.concat(epochs.map(({ octets }) => octets));
    const cutBytes = arrives === 1 ? 0 : Math.ceil((epochs.at(-1)?.octets.length ?? 0) * (1 - arrives));
    const source = sourceOf(all.subarray(0, all.length - cutBytes), 1024);
    if (!(await this.#open(source, resumes, whole.length > 0))) return;
    const restorer = this.#restorer ?? expect.fail('it is open');
    let digest = resumes ? (this.point?.digest ?? 0n) : 0n;
    for (const [epoch, sent] of whole.entries()) {
      expect(await restorer.receive()).to.deep.equal({ kind: 'checkpoint', epoch });
      digest = chained(digest, sent.digest);
      this.point = { streamUuid, epoch, digest };
      const committed = await restorer.commit();
      if (committed.kind !== 'applied') throw new Error('a checkpoint was not applied');
      if (epoch === 0 && resumes) this.resumed.push(committed.applied.pages);
      this.expectEquals(sent);
      if (epoch < whole.length - unheard) this.shared.acknowledged(epoch);
    }
    expect((await restorer.receive()).kind).to.equal('broken');
    await restorer.breakOff(null);
    await restorer.close(null);
    const last = whole.at(-1) ?? this.#last;
    this.#last = last;
    if (!last) return;
    this.expectEquals(last);
    const context = this.domain.emulatorContext ? this.target.emulatorState : this.target.context;
    expect(Buffer.compare(context, last.context), 'what is not memory').to.equal(0);
  }

  /** False: what comes is no whole domain, or not even the beginning of a stream. */
  async #open(source: ReturnType<typeof sourceOf>, resumes: boolean, whole: boolean): Promise<boolean> {
    if (this.#restorer && resumes) {
      try {
        await this.#restorer.resume(source);
        return true;
      } catch (error) {
        expect(error).to.be.an.instanceOf(StreamError).with.property('code', 'TRUNCATED');
        return false;
      }
    }
    if (!whole) return false;
    // As a secondary does: a stream that begins with all memory fills another domain.
    this.target = targetFor(PAGES, this.domain.emulatorContext !== undefined);
    const streamType = 'remus' as const;
    this.#restorer = await openRestore({ domain: this.target, source, streamType, callbacks: {} });
    return true;
  }

  expectEquals({ memory }: Epoch): void {
    expect(Buffer.compare(this.target.memory, memory), 'memory').to.equal(0);
  }
}

const pfns = fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: 6 });
const streamOf = fc.record({
  writes: fc.array(pfns, { minLength: 1, maxLength: 4 }),
  between: pfns,
  end: fc.record({
    arrives: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 0.99, noNaN: true })),
    unheard: fc.nat(2),
    givenUp: fc.boolean(),
  }),
});

describe('primary/shared', () => {
  for (const emulator of [false, true]) {
    it(`streams that break anywhere, one after another: what is committed is what was captured${emulator ? ', with a device model' : ''}`, async () => {
      let resumed = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(streamOf, { minLength: 2, maxLength: 6 }), async (streams) => {
          const pair = new Pair(emulator);
          await pair.domain.start();
          for (const { writes, between, end } of streams) {
            await pair.stream(writes, end);
            pair.dirty(between);
          }
          resumed += pair.resumed.length;
          await pair.shared.end();
        }),
        { numRuns: 200 },
      );
      expect(resumed, 'streams went on').to.be.greaterThan(100);
    });
  }

  it('sends what has changed since the last acknowledgement, and no more', async () => {
    const pair = new Pair(false);
    await pair.domain.start();
    await pair.stream([[], [3], [4, 5]], { arrives: 0.5, unheard: 0, givenUp: false });
    pair.dirty([9]);
    await pair.stream([[10]], { arrives: 1, unheard: 0, givenUp: false });
    // 4 and 5 were taken and did not arrive; 9 and 10 were written since.
    expect(pair.resumed).to.deep.equal([4]);
  });

  it('knows its own points only: another stream, epoch or digest is none', async () => {
    const pair = new Pair(false);
    await pair.domain.start();
    await pair.stream([[1], [2], [3]], { arrives: 1, unheard: 1, givenUp: false });
    const { shared, point } = pair;
    if (!point) throw new Error('nothing was committed');
    // The last one's acknowledgement was lost: both may be held.
    expect(point.epoch).to.equal(2);
    expect(shared.has(point)).to.equal(true);
    expect(shared.has({ ...point, digest: point.digest + 1n })).to.equal(false);
    expect(shared.has({ ...point, epoch: 1 })).to.equal(false);
    expect(shared.has({ ...point, streamUuid: 'other' })).to.equal(false);
    expect(shared.has(null)).to.equal(false);
    expect(shared.begin('T', { ...point, epoch: 0 })).to.equal(false);
  });

  it('a dirty log that failed: nobody knows what was taken, and the next stream begins with all memory', async () => {
    const pair = new Pair(false);
    await pair.domain.start();
    await pair.stream([[1], [2]], { arrives: 1, unheard: 0, givenUp: false });
    const clean = pair.domain.cleanLogDirty.bind(pair.domain);
    Object.assign(pair.domain, {
      cleanLogDirty: () => Promise.reject(new HypervisorError('FAILED', 'no')),
    });
    const failed = await pair.stream([[3]], { arrives: 1, unheard: 0, givenUp: false }).then(
      () => null,
      (error: unknown) => error,
    );
    expect(failed).to.be.an.instanceOf(HypervisorError);
    Object.assign(pair.domain, { cleanLogDirty: clean });
    expect(pair.shared.has(pair.point)).to.equal(false);
    await pair.shared.end();
    // The log was ended: it can be begun again.
    await pair.domain.enableLogDirty();
  });

  it('a dirty log that was begun too late to be waited for: the next stream takes it', async () => {
    const pair = new Pair(false);
    await pair.domain.start();
    // As a hypervisor does that hung, and was given up.
    await pair.domain.enableLogDirty();
    await pair.stream([[1], [2]], { arrives: 1, unheard: 0, givenUp: false });
    expect(pair.shared.has(pair.point)).to.equal(true);
  });
});
