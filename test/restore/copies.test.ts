// A copy of a domain that is being restored: it is of one checkpoint, whatever is committed meanwhile, and nothing that is
// wrong with it is felt by the restore.

import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import fc from 'fast-check';
import { codeOf } from '../../src/errors.js';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { REST_MS, SLAB_PAGES } from '../../src/hypervisor/page-stamps.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { DomainCopy } from '../../src/restore/copy.js';
import { openRestore, type RestoreSteps } from '../../src/restore/steps.js';
import { DomainType, PageType, RecordType } from '../../src/stream/format.js';
import {
  EmulatorId,
  LibxlRecordType,
  encodeEmulatorContext,
  encodeLibxlHeader,
} from '../../src/stream/libxl.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { MemoryDomain } from '../memory/domain.js';
import { sourceOf } from '../save/support.js';
import { pageDataBody } from '../stream/streams.js';

const PAGES = 2 * SLAB_PAGES + 40;

function allOf(pages: number): Bitmap {
  const all = new Bitmap(pages);
  all.setAll();
  return all;
}

/** Each page says which it is, and of which write. */
function filled(generation = 0): MemoryDomain {
  const domain = new MemoryDomain({ pages: PAGES });
  for (let pfn = 0; pfn < PAGES; pfn++) domain.write(pfn, Uint8Array.of(pfn & 255, pfn >> 8, generation));
  return domain;
}

const empty = (): MemoryDomain => new MemoryDomain({ pages: PAGES, empty: true });

/** It answers some turns later, as a domain in a thread does. */
function slow(domain: MemoryDomain, turns: () => number): MemoryDomain {
  const late =
    <Given extends unknown[], Answer>(call: (...given: Given) => Promise<Answer>) =>
    async (...given: Given): Promise<Answer> => {
      for (let k = turns(); k > 0; k--) await turn();
      return call(...given);
    };
  return Object.assign(domain, {
    copyPages: late(domain.copyPages.bind(domain)),
    writePages: late(domain.writePages.bind(domain)),
  });
}

describe('restore: a copy of a domain', () => {
  it('is of the moment when it was begun, whatever is written meanwhile', async () => {
    const write = fc.record({
      first: fc.nat(PAGES - 1),
      count: fc.integer({ min: 1, max: 300 }),
      waits: fc.nat(3),
    });
    const property = fc.asyncProperty(
      fc.array(write, { maxLength: 12 }),
      fc.array(fc.nat(2), { minLength: 1, maxLength: 5 }),
      async (writes, pace) => {
        let calls = 0;
        const turns = () => pace[calls++ % pace.length] ?? 0;
        const from = slow(filled(), turns);
        const into = slow(empty(), turns);
        const before = from.memoryCopy();
        const copy = new DomainCopy(from, into, allOf(PAGES));
        const whole = copy.run();
        let generation = 0;
        for (const { first, count, waits } of writes) {
          for (let k = 0; k < waits; k++) await turn();
          const gfns = Uint32Array.from({ length: Math.min(count, PAGES - first) }, (_, k) => first + k);
          await copy.before(gfns, gfns.length);
          generation++;
          for (const gfn of gfns) from.write(gfn, Uint8Array.of(255, 255, generation));
        }
        await whole;
        expect(Buffer.compare(into.memory, before)).to.equal(0);
        // What it was copied with tells what has changed since.
        const changed = await copy.stamps.changed(into);
        expect(changed.count()).to.equal(0);
      },
    );
    await fc.assert(property, { numRuns: 60 });
  });

  it('that cannot be written ends, with the reason, and holds up nobody', async () => {
    const into = empty();
    into.script = (call) => {
      if (call === 'writePages') throw new HypervisorError('FAILED', 'no room');
    };
    const copy = new DomainCopy(filled(), into, allOf(PAGES));
    const outcome = copy.run().catch((error: unknown) => error);
    await copy.before(Uint32Array.of(1), 1);
    expect(await outcome).to.include({ code: 'FAILED', message: 'no room' });
    await copy.before(Uint32Array.of(2), 1);
  });

  it('that is ended while a domain does not answer is over at once, also for who waits for it', async () => {
    const from = filled();
    from.copyPages = () => new Promise<void>(() => undefined);
    const copy = new DomainCopy(from, empty(), allOf(PAGES));
    const outcome = copy.run().catch((error: unknown) => error);
    const written = copy.before(Uint32Array.of(1), 1);
    await turn();
    copy.end(new HypervisorError('DOMAIN_GONE', 'given up'));
    await written;
    expect(await outcome).to.have.property('message', 'given up');
  });
});

const headers = encodeHeaders({ domainType: DomainType.X86_HVM, xenMajor: 4, xenMinor: 17 });
const sde = encodeRecord(RecordType.STATIC_DATA_END);

function epoch(fill: number): Uint8Array {
  return concatenate([
    encodeRecord(RecordType.PAGE_DATA, pageDataBody([[0, PageType.NOTAB]], fill)),
    encodeRecord(RecordType.HVM_CONTEXT, Uint8Array.of(fill)),
    encodeRecord(RecordType.CHECKPOINT),
  ]);
}

async function restoreOf(
  epochs: readonly Uint8Array[],
): Promise<{ domain: MemoryDomain; steps: RestoreSteps }> {
  const domain = new MemoryDomain({ pages: 4, empty: true });
  const source = sourceOf(concatenate([headers, sde, ...epochs]));
  return { domain, steps: await openRestore({ domain, source, streamType: 'remus', callbacks: {} }) };
}

describe('restore: a checkpoint in another domain', () => {
  const small = (): MemoryDomain => new MemoryDomain({ pages: 4, empty: true });
  const code = (work: Promise<unknown>): Promise<string> => work.then(() => 'copied', codeOf);

  it('is the last one that was committed, with its context, and the next ones go on', async () => {
    const { domain, steps } = await restoreOf([epoch(1), epoch(2), epoch(3)]);
    for (let k = 0; k < 2; k++) {
      await steps.receive();
      await steps.commit();
    }
    await steps.receive();
    const before = domain.page(0).slice();
    const read = domain.copyPages.bind(domain);
    let answer: () => void = () => undefined;
    domain.copyPages = async (...given) => {
      await new Promise<void>((resolve) => (answer = resolve));
      return read(...given);
    };
    const into = small();
    const copied = steps.copyTo(into);
    const committed = steps.commit();
    await turn();
    expect(Buffer.compare(domain.page(0), before), 'not written before it is copied').to.equal(0);
    answer();
    expect(await committed).to.have.nested.property('applied.epoch', 2);
    const { epoch: of, load } = await copied.then((copy) => ({ epoch: copy.epoch, load: () => copy.load() }));
    expect(of).to.equal(1);
    expect(Buffer.compare(into.page(0), before)).to.equal(0);
    expect(Buffer.compare(domain.page(0), before)).to.not.equal(0);
    await load();
    expect([...into.context]).to.deep.equal([2]);
    expect(domain.context.length, 'its own context is set when it is completed').to.equal(0);
    await steps.close(null);
  });

  it('there is none before the first, none twice at a time, and none after the end', async () => {
    const { domain, steps } = await restoreOf([epoch(1)]);
    expect(await code(steps.copyTo(small()))).to.equal('NOT_COPIED');
    await steps.receive();
    await steps.commit();
    let answer: () => void = () => undefined;
    domain.copyPages = () => new Promise<void>((resolve) => (answer = resolve));
    const first = code(steps.copyTo(small()));
    expect(await code(steps.copyTo(small()))).to.equal('NOT_COPIED');
    await steps.breakOff(null);
    expect(await first).to.equal('NOT_COPIED');
    answer();
    expect(await code(steps.copyTo(small()))).to.equal('NOT_COPIED');
    await steps.close(null);
  });

  it('a commit that fails ends it', async () => {
    const { domain, steps } = await restoreOf([epoch(1), epoch(2)]);
    await steps.receive();
    await steps.commit();
    await steps.receive();
    const copied = code(steps.copyTo(small()));
    domain.writePages = () => Promise.reject(new HypervisorError('FAILED', 'refused'));
    expect(await code(steps.commit())).to.equal('FAILED');
    expect(await copied).to.equal('FAILED');
    await steps.close(null);
  });

  /** What its device model was given last, it has whole; its second checkpoint is answered when the test likes. */
  class Loading extends MemoryDomain {
    readonly checkpointsBack = 1;
    answer: (error: Error | null) => void = () => undefined;
    #first = true;
    readonly lastCheckpoint = (): Uint8Array => Uint8Array.of(7, 7, 7);

    checkpoint(): Promise<void> {
      if (this.#first) {
        this.#first = false;
        return Promise.resolve();
      }
      return new Promise((resolve, reject) => {
        this.answer = (error) => (error === null ? resolve() : reject(error));
      });
    }
  }

  async function loading(): Promise<{ domain: Loading; steps: RestoreSteps }> {
    const state = { emulatorId: EmulatorId.QEMU_UPSTREAM, index: 0, context: Uint8Array.of(7) };
    const emulator = [
      encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, encodeEmulatorContext(state)),
      encodeRecord(LibxlRecordType.CHECKPOINT_END),
    ];
    const opening = [encodeLibxlHeader(), encodeRecord(LibxlRecordType.LIBXC_CONTEXT), headers, sde];
    const domain = new Loading({ pages: 4, empty: true, emulator: true });
    const source = sourceOf(concatenate([...opening, epoch(1), ...emulator, epoch(2), ...emulator]));
    const steps = await openRestore({ domain, source, streamType: 'remus', callbacks: {} });
    await steps.receive();
    await steps.commit();
    await steps.receive();
    return { domain, steps };
  }

  it('has the whole state of the device model', async () => {
    const { steps } = await loading();
    const into = new MemoryDomain({ pages: 4, empty: true, emulator: true });
    const copied = await steps.copyTo(into);
    await copied.load();
    expect([...into.emulatorState]).to.deep.equal([7, 7, 7]);
    await steps.close(null);
  });

  it('a checkpoint that the domain does not take ends it, though all its pages were there', async () => {
    for (const [answer, outcome] of [
      [null, 'copied'],
      [new HypervisorError('BAD_CONTEXT', 'refused'), 'NOT_COPIED'],
    ] as const) {
      const { domain, steps } = await loading();
      const copied = code(steps.copyTo(small()));
      await turn();
      const committed = steps.commit();
      // All is copied when the copy has rested, which it began to before we do.
      await sleep(REST_MS + 5);
      domain.answer(answer);
      expect((await committed).kind).to.equal(answer === null ? 'applied' : 'unusable');
      expect(await copied).to.equal(outcome);
      await steps.close(null);
    }
  });
});
