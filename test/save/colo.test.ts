// COLO, the saver's side by itself: what Xen's saver wrote, from a domain that did what Xen's guest did; and what is
// said of a back channel that does not carry what it should.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import type { SaveOps } from '../../src/guest/ops.js';
import { saveOpsX86Hvm } from '../../src/guest/x86-hvm/save.js';
import { MemoryDomain } from '../memory/domain.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import type { SaveCallbacks } from '../../src/save/callbacks.js';
import type { BackSource } from '../../src/save/colo.js';
import { saveDomain } from '../../src/save/save.js';
import { PAGE_SIZE, RecordType, hasPageData } from '../../src/stream/format.js';
import { decodePageData, PageBatch } from '../../src/stream/page-data.js';
import { RecordReader, type RecordReaderOptions } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { decodeHvmParams } from '../../src/stream/records/hvm.js';
import { decodeTscInfo } from '../../src/stream/records/tsc.js';
import { encodeRecord } from '../../src/stream/writer.js';
import { readFixture } from '../fixtures/xen.js';
import { expectSameBytes } from '../stream/streams.js';
import { driver as remusDriver, RecordingSink } from './support.js';

/** What Xen's streams walk: 4 GiB less the 16 MiB below it. */
const XEN_PAGES = 0xff000;

function backOf(octets: Uint8Array, options: RecordReaderOptions = {}): ChunkSource {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(octets);
  }
  return new ChunkSource(chunks(), { ...options, withoutHeaders: true });
}

function driver(domain: MemoryDomain, checkpoints: number): SaveCallbacks {
  let taken = 0;
  return {
    suspend: () => domain.suspend(),
    async checkpoint(_epoch, sent) {
      await sent;
      taken++;
      return 'continue';
    },
    postcopy: () => domain.resume(),
    waitCheckpoint: () => Promise.resolve(taken === checkpoints ? 'finish' : 'continue'),
  };
}

/** The records of the stream, checkpoint by checkpoint. */
function checkpointsOf(octets: Uint8Array): StreamRecord[][] {
  const reader = new RecordReader();
  reader.push(octets);
  const checkpoints: StreamRecord[][] = [[]];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    checkpoints.at(-1)?.push(record);
    if (record.type === RecordType.CHECKPOINT) checkpoints.push([]);
  }
  return checkpoints.slice(0, -1);
}

/** The guest does what a PAGE_DATA record tells of it. */
function become(domain: MemoryDomain, record: StreamRecord, logged: (index: number) => boolean): void {
  const batch = new PageBatch();
  decodePageData(record, batch);
  let at = batch.dataOffset;
  for (let i = 0; i < batch.count; i++) {
    const pfn = batch.pfns[i] ?? 0;
    if (!hasPageData(batch.types[i] ?? 0)) {
      // Logged even where there was nothing.
      if (domain.loggingDirty) domain.punch(pfn);
      continue;
    }
    domain.populated.set(pfn);
    const page = record.body.subarray(at, at + PAGE_SIZE);
    if (logged(i)) domain.write(pfn, page);
    else domain.memory.set(page, pfn * PAGE_SIZE);
    at += PAGE_SIZE;
  }
}

function setState(domain: MemoryDomain, records: readonly StreamRecord[]): void {
  for (const record of records) {
    if (record.type === RecordType.X86_TSC_INFO) domain.tsc = decodeTscInfo(record);
    if (record.type === RecordType.HVM_CONTEXT) domain.context = record.body;
    if (record.type === RecordType.HVM_PARAMS) {
      for (const { index, value } of decodeHvmParams(record)) domain.params.set(index, value);
    }
  }
}

const pagesIn = (records: readonly StreamRecord[]): StreamRecord[] =>
  records.filter(({ type }) => type === RecordType.PAGE_DATA);

describe('a COLO save', () => {
  it('writes what Xen wrote, octet for octet: pages of both sides, named on the back channel', async () => {
    const octets = readFixture('hvm-colo-6ckpt.libxc');
    const checkpoints = checkpointsOf(octets);
    const [first = [], ...later] = checkpoints;
    const policy = (type: number): Uint8Array => first.find((one) => one.type === type)?.body ?? octets;
    const domain = new MemoryDomain({
      pages: XEN_PAGES,
      empty: true,
      cpuPolicy: {
        cpuid: policy(RecordType.X86_CPUID_POLICY),
        msrs: policy(RecordType.X86_MSR_POLICY),
      },
    });
    // Xen's first checkpoint: all pages, one more pass while the guest ran, one when it was suspended.
    const [suspendedPass, secondPass, ...firstPass] = pagesIn(first).reverse();
    for (const record of firstPass.reverse()) become(domain, record, () => false);
    await domain.start();

    let cleans = 0;
    let suspends = 0;
    domain.script = (call) => {
      if (call === 'cleanLogDirty' && cleans++ === 0 && secondPass) become(domain, secondPass, () => true);
      if (call !== 'suspend') return;
      const records = suspends === 0 ? first : (later[suspends - 1] ?? []);
      if (suspends === 0) {
        if (suspendedPass) become(domain, suspendedPass, () => true);
      } else {
        // The guest's own writes are every third page; the others are known from the secondary alone.
        for (const record of pagesIn(records)) become(domain, record, (index) => index % 3 === 0);
      }
      setState(domain, records);
      suspends++;
    };
    const sink = new RecordingSink();
    const result = await saveDomain({
      domain,
      sink,
      streamType: 'colo',
      live: true,
      back: backOf(readFixture('hvm-colo-back.libxc')),
      callbacks: driver(domain, checkpoints.length),
    });
    expect(result).to.include({ ended: 'finished', checkpoints: 6 });
    const written = sink.octets();
    expectSameBytes(written.subarray(0, octets.length), octets);
    expectSameBytes(written.subarray(octets.length), encodeRecord(RecordType.END));
  });

  const list = (...pfns: bigint[]): Uint8Array =>
    encodeRecord(RecordType.CHECKPOINT_DIRTY_PFN_LIST, new Uint8Array(new BigUint64Array(pfns).buffer));

  interface Trial {
    readonly domain: MemoryDomain;
    readonly outcome: RomulusError | { readonly pages: number[][] };
    readonly cleanups: number;
  }

  async function trial(back: BackSource): Promise<Trial> {
    const domain = new MemoryDomain({ pages: 10, holes: [9] });
    let cleanups = 0;
    const ops: SaveOps = {
      ...saveOpsX86Hvm,
      async cleanup(context) {
        cleanups++;
        await saveOpsX86Hvm.cleanup(context);
      },
    };
    await domain.start();
    const sink = new RecordingSink();
    const callbacks = driver(domain, 2);
    try {
      await saveDomain({ domain, sink, streamType: 'colo', live: true, callbacks, back, ops });
    } catch (error) {
      if (error instanceof RomulusError) return { domain, outcome: error, cleanups };
      throw error;
    }
    const batch = new PageBatch();
    const pages = checkpointsOf(sink.octets()).map((records) =>
      pagesIn(records).flatMap((record) => {
        decodePageData(record, batch);
        return [...batch.pfns.subarray(0, batch.count)];
      }),
    );
    return { domain, outcome: { pages }, cleanups };
  }

  it('takes a list that is empty, unsorted, twofold, or names a page without memory', async () => {
    const all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    for (const [pfns, expected] of [
      [[], []],
      [
        [7n, 3n, 7n, 9n],
        [3, 7, 9],
      ],
    ] as const) {
      const { outcome, domain } = await trial(backOf(list(...pfns)));
      expect(outcome).to.deep.equal({ pages: [all, expected] });
      expect(domain.loggingDirty).to.equal(false);
    }
  });

  const wrong: readonly (readonly [string, string, object, Uint8Array])[] = [
    ['END', 'UNEXPECTED_RECORD', { type: 0, epoch: 1 }, encodeRecord(RecordType.END)],
    ['a checkpoint', 'UNEXPECTED_RECORD', { type: 14, offset: 0 }, encodeRecord(RecordType.CHECKPOINT)],
    ['pages', 'UNEXPECTED_RECORD', { length: 16 }, encodeRecord(RecordType.PAGE_DATA, new Uint8Array(16))],
    ['an optional record', 'UNEXPECTED_RECORD', { type: 0x80000077 }, encodeRecord(0x80000077)],
    ['half a pfn', 'BAD_RECORD', { length: 12 }, encodeRecord(15, new Uint8Array(12))],
    ['a pfn just beyond', 'PFN_OUT_OF_RANGE', { pfn: 10, index: 1, p2mSize: 10 }, list(1n, 10n)],
    ['a pfn far beyond', 'PFN_OUT_OF_RANGE', { pfn: 1n << 40n }, list(1n << 40n)],
    ['no pfn at all', 'PFN_OUT_OF_RANGE', { pfn: (1n << 64n) - 1n }, list((1n << 64n) - 1n)],
    ['nothing', 'BACK_CHANNEL_BROKEN', { epoch: 1 }, new Uint8Array(0)],
    ['a part of a list', 'BACK_CHANNEL_BROKEN', { epoch: 1 }, list(1n, 2n).subarray(0, 20)],
    ['a list too long', 'RECORD_TOO_LONG', { length: 88 }, list(...new Array<bigint>(11).fill(1n))],
    ['no record', 'RECORD_TOO_LONG', { offset: 0 }, new Uint8Array(24).fill(0xff)],
  ];
  for (const [what, code, facts, octets] of wrong) {
    it(`fails with ${code} when the back channel brings ${what}`, async () => {
      const { domain, outcome, cleanups } = await trial(backOf(octets, { recordLengthMax: 80 }));
      expect(outcome).to.be.instanceOf(RomulusError).and.include({ code });
      expect((outcome as RomulusError).facts).to.include(facts);
      expect(domain.loggingDirty).to.equal(false);
      expect(domain.state, 'the caller decides').to.equal('suspended');
      expect(cleanups).to.equal(1);
    });
  }

  it('says what the back channel failed with', async () => {
    const cause = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });
    const { outcome } = await trial({ read: () => Promise.reject(cause) });
    expect(outcome).to.include({ code: 'BACK_CHANNEL_BROKEN', cause });
  });

  it('is refused without a back channel, and without waitCheckpoint', async () => {
    const domain = new MemoryDomain({ pages: 10 });
    const callbacks = driver(domain, 1);
    const options = { domain, sink: new RecordingSink(), streamType: 'colo', live: true } as const;
    for (const lacking of [
      { ...options, callbacks },
      { ...options, callbacks: remusDriver({ domain, checkpoints: 1 }), back: backOf(list()) },
    ]) {
      let code = '';
      await saveDomain(lacking).catch((error: unknown) => {
        code = (error as RomulusError).code;
      });
      expect(code).to.equal('BAD_OPTIONS');
    }
    expect(domain.calls).to.equal(0);
  });

  for (const [at, decision, code] of [
    ['checkpoint', 'abort', 'ABORTED'],
    ['waitCheckpoint', 'abort', 'ABORTED'],
    ['checkpoint', 'finish', null],
    ['waitCheckpoint', 'finish', null],
  ] as const) {
    it(`ends when ${at} says ${decision}, the domain ${at === 'checkpoint' && code !== null ? 'suspended' : 'running'}`, async () => {
      const domain = new MemoryDomain({ pages: 10 });
      await domain.start();
      const sink = new RecordingSink();
      let ended = '';
      await saveDomain({
        domain,
        sink,
        streamType: 'colo',
        live: true,
        back: backOf(list()),
        callbacks: {
          ...driver(domain, 3),
          [at]: async (_epoch: number, sent?: Promise<unknown>) => {
            await sent;
            return decision;
          },
        },
      }).then(
        (result) => {
          ended = result.ended;
        },
        (error: unknown) => {
          ended = (error as RomulusError).code;
        },
      );
      expect(ended).to.equal(code ?? 'finished');
      expect(domain.state).to.equal(at === 'checkpoint' && code !== null ? 'suspended' : 'running');
      expect(domain.loggingDirty).to.equal(false);
      expect(sink.boundaries.map(({ end }) => end)).to.deep.equal(code === null ? [false, true] : [false]);
    });
  }
});
