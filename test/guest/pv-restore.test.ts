// Restoring PV guests: what is refused when it is admitted, when a checkpoint is whole, and when the stream is
// complete; page tables ahead of their pages; pins in batches; checkpoints; and that a failure anywhere gives back all
// that was mapped, once.

import { expect } from 'chai';
import type { MissingStaticData, RestoreOps } from '../../src/guest/ops.js';
import { restoreOpsX86Pv } from '../../src/guest/x86-pv/restore.js';
import { MemoryMachine, XEN_FRAMES } from '../../src/hypervisor/memory/machine.js';
import { type MemoryPvCall, MemoryPvDomain } from '../../src/hypervisor/memory/pv-domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { INVALID_FRAME, RecordType } from '../../src/stream/format.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { encodePvP2mFrames } from '../../src/stream/records/pv.js';
import { readFixture } from '../fixtures/xen.js';
import { readAll } from '../stream/streams.js';
import { readPvImage } from './pv-image.js';
import { snapshotOf } from './pv-snapshot.js';
import { endpointsOfTests, planOf, privateSource } from './pv-support.js';
import {
  type Trial,
  emptyDomain,
  failureOf,
  pageAt,
  restoreTrial,
  rewritten,
  saveTrial,
  spoiled,
  trialGuest,
  without,
} from './pv-trial.js';

/** vcpu_guest_context of 64 bits, behind the record's 8 octets. */
const CONTEXT = { edx: 624, gdtFrames: 4840, gdtEntries: 4968, cr1: 5000, cr3: 5016 };
const START_INFO = { store: 56, console: 72 };
const SUCCESS = { checkpoint: () => Promise.resolve('success' as const) };

async function plainStream(
  options: Parameters<typeof trialGuest>[0] = {},
): Promise<{ trial: Trial; octets: Uint8Array }> {
  const trial = trialGuest(options);
  const { octets } = await saveTrial(trial);
  return { trial, octets };
}

async function remusStream(checkpoints: number): Promise<{ trial: Trial; octets: Uint8Array }> {
  const trial = trialGuest();
  const { domain, guest } = trial;
  const { octets } = await saveTrial(trial, {
    streamType: 'remus',
    checkpoints,
    between: (epoch) => {
      domain.write(guest.dataPfns[epoch] ?? 0, Uint8Array.of(epoch + 1));
    },
  });
  return { trial, octets };
}

/** A PAGE_DATA body of the given pages of another. */
function pagesOf(body: Uint8Array, wanted: (pfn: number, type: number) => boolean): Uint8Array {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const count = view.getUint32(0, true);
  const entries: Uint8Array[] = [];
  const pages: Uint8Array[] = [];
  let at = 8 + count * 8;
  for (let i = 0; i < count; i++) {
    const entry = view.getBigUint64(8 + i * 8, true);
    const type = Number(entry >> 60n);
    const hasData = type <= 4 || (type >= 9 && type <= 12);
    if (wanted(Number(entry & 0xffffffffn), type)) {
      entries.push(body.subarray(8 + i * 8, 16 + i * 8));
      if (hasData) pages.push(body.subarray(at, at + 4096));
    }
    if (hasData) at += 4096;
  }
  const header = new Uint8Array(8);
  new DataView(header.buffer).setUint32(0, entries.length, true);
  return new Uint8Array(Buffer.concat([header, ...entries, ...pages]));
}

/** The stream with PAGE_DATA taken apart into records, in this order. */
function paged(octets: Uint8Array, ...parts: ((pfn: number, type: number) => boolean)[]): Uint8Array {
  return rewritten(octets, (records) =>
    records.flatMap((record) =>
      record.type === RecordType.PAGE_DATA
        ? parts.map((part) => ({ type: record.type, body: pagesOf(record.body, part) }))
        : [record],
    ),
  );
}

const isTable = (type: number): boolean => type !== 0 && type < 13;

describe('the restorer of PV guests', () => {
  it('has all ten functions', () => {
    expect(Object.keys(restoreOpsX86Pv)).to.have.members([
      'pfnToGfn',
      'pfnIsValid',
      'setGfn',
      'setPageType',
      'localisePage',
      'setup',
      'processRecord',
      'staticDataComplete',
      'streamComplete',
      'cleanup',
      // Beside libxc's ten.
      'recordTypes',
      'checkRecord',
    ]);
  });

  it('populates what page tables point to when they come first, and the pages then land there', async () => {
    for (const width of [4, 8] as const) {
      const { trial, octets } = await plainStream({ width });
      const last = snapshotOf(trial.domain);
      const target = emptyDomain();
      const tablesFirst = paged(
        octets,
        (_pfn, type) => isTable(type),
        (_pfn, type) => !isTable(type),
      );
      await restoreTrial(tablesFirst, target);
      const snapshot = snapshotOf(target);
      for (const pfn of trial.guest.dataPfns) {
        expect(
          Buffer.compare(
            snapshot.pages.get(pfn) ?? new Uint8Array(0),
            last.pages.get(pfn) ?? new Uint8Array(1),
          ),
        ).to.equal(0);
      }
      for (const [pfn] of trial.guest.tables) {
        expect(
          Buffer.compare(
            snapshot.pages.get(pfn) ?? new Uint8Array(0),
            last.pages.get(pfn) ?? new Uint8Array(1),
          ),
        ).to.equal(0);
      }
    }
  });

  it('gives memory to a page that a table points to and that never comes', async () => {
    const { trial, octets } = await plainStream();
    const [pfn = 0] = trial.guest.dataPfns;
    const target = emptyDomain();
    await restoreTrial(
      paged(octets, (other) => other !== pfn),
      target,
    );
    expect(target.mfnOf(pfn)).not.to.equal(INVALID_FRAME);
    expect(target.words(pfn).every((word) => word === 0)).to.equal(true);
  });

  it('pins page tables again, 1024 in one call', async () => {
    const { octets } = await plainStream({ pfns: 2400, pinnedTables: 2100 });
    const target = emptyDomain({ pages: 2400 });
    await restoreTrial(octets, target);
    // And both top tables.
    expect(target.pv.pinBatches).to.deep.equal([1024, 1024, 54]);
  });

  it('tells Xen that the guest is one of 32 bits', async () => {
    const { octets } = await plainStream({ width: 4 });
    const target = emptyDomain();
    expect(target.pv.width).to.equal(8);
    await restoreTrial(octets, target);
    expect(target.pv.width).to.equal(4);

    const stubborn = emptyDomain();
    stubborn.pv.setGuestWidth = () => Promise.resolve();
    const error = await failureOf(restoreTrial(octets, stubborn));
    expect(error.code).to.equal('BAD_GUEST_WIDTH');
  });

  it('gives the guest its shared info with no event pending, and all masked', async () => {
    const { octets } = await plainStream();
    const full = spoiled(octets, RecordType.SHARED_INFO, (body) => body.fill(0x5a, 0, 3088));
    const target = emptyDomain();
    await restoreTrial(full, target);
    const page = target.pv.sharedInfo;
    const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
    expect(page[0]).to.equal(0x5a);
    expect(view.getBigUint64(31 * 64 + 8, true)).to.equal(0n);
    expect(page.subarray(2048, 2560).every((octet) => octet === 0)).to.equal(true);
    expect(page.subarray(2560, 3072).every((octet) => octet === 0xff)).to.equal(true);
    // Wall-clock time is the new host's.
    expect(page.subarray(3072, 3088).every((octet) => octet === 0)).to.equal(true);
    expect(view.getBigUint64(3088, true)).to.equal(80n);
    expect(view.getBigUint64(3096, true)).to.equal(0n);
  });

  it('reports the static data that is missing, and infers its end in a stream of version 2', async () => {
    const { octets } = await plainStream();
    const old = rewritten(
      octets,
      (records) => records.filter(({ type }) => type !== RecordType.STATIC_DATA_END),
      2,
    );
    for (const stream of [octets, old]) {
      const missing: MissingStaticData[] = [];
      await restoreDomain({
        domain: emptyDomain(),
        source: privateSource(stream),
        streamType: 'plain',
        callbacks: {
          ...SUCCESS,
          staticDataDone: (what) => {
            missing.push(what);
            return Promise.resolve();
          },
        },
      });
      expect(missing).to.deep.equal([{ cpuid: true, msr: true }]);
    }
  });

  it('takes empty vCPU records, which Xen 4.6 to 4.8 wrote, for nothing', async () => {
    const { octets } = await plainStream();
    const padded = rewritten(octets, (records) =>
      records.flatMap((record) =>
        record.type === RecordType.X86_PV_VCPU_BASIC
          ? [record, ...[4, 5, 6, 12].map((type) => ({ type, body: record.body.slice(0, 8) }))]
          : [record],
      ),
    );
    const target = emptyDomain();
    await restoreTrial(padded, target);
    expect(target.pv.vcpus.map(({ xsave, msrs }) => [xsave.length, msrs.length])).to.deep.equal([
      [856, 0],
      [0, 32],
    ]);
  });

  it('compares in verify mode, page tables too', async () => {
    const { trial, octets } = await plainStream();
    const [pfn = 0] = trial.guest.dataPfns;
    const twice = rewritten(octets, (records) =>
      records.flatMap((record) => {
        if (record.type !== RecordType.PAGE_DATA) return [record];
        const other = record.body.slice();
        other[pageAt(other, pfn)] = (other[pageAt(other, pfn)] ?? 0) ^ 1;
        const verify = { type: RecordType.VERIFY, body: new Uint8Array(0) };
        return [record, verify, { type: record.type, body: other }];
      }),
    );
    const seen: number[] = [];
    await restoreDomain({
      domain: emptyDomain(),
      source: privateSource(twice),
      streamType: 'plain',
      callbacks: {
        ...SUCCESS,
        verifyMismatch: (found) => seen.push(...found.map((mismatch) => mismatch.pfn)),
      },
    });
    expect(seen).to.deep.equal([pfn]);
  });

  describe('refuses, before it touches the domain,', () => {
    const info = new Uint8Array([8, 4, 0, 0, 0, 0, 0, 0]);
    const isType =
      (type: number) =>
      (record: StreamRecord): boolean =>
        record.type === type;
    const cases: readonly [string, string, (octets: Uint8Array, trial: Trial) => Uint8Array][] = [
      [
        'a stream without X86_PV_INFO',
        'UNEXPECTED_RECORD',
        (octets) => without(octets, RecordType.X86_PV_INFO),
      ],
      [
        'a second X86_PV_INFO',
        'UNEXPECTED_RECORD',
        (octets) =>
          rewritten(octets, (records) => [{ type: RecordType.X86_PV_INFO, body: info }, ...records]),
      ],
      [
        'a p2m before the end of the static data',
        'UNEXPECTED_RECORD',
        (octets) => without(octets, RecordType.STATIC_DATA_END),
      ],
      ['pages before the p2m', 'PFN_OUT_OF_RANGE', (octets) => without(octets, RecordType.X86_PV_P2M_FRAMES)],
      [
        'a p2m larger than the domain',
        'PFN_OUT_OF_RANGE',
        (octets) =>
          spoiled(octets, RecordType.X86_PV_P2M_FRAMES, (_body, view) => view.setUint32(4, 80, true)),
      ],
      [
        'shared info before X86_PV_INFO',
        'UNEXPECTED_RECORD',
        (octets) =>
          rewritten(octets, (records) => [...records.filter(isType(RecordType.SHARED_INFO)), ...records]),
      ],
      [
        'a vCPU before X86_PV_INFO',
        'UNEXPECTED_RECORD',
        (octets) =>
          rewritten(octets, (records) => [
            ...records.filter(isType(RecordType.X86_PV_VCPU_BASIC)),
            ...records,
          ]),
      ],
      [
        'a vCPU that the domain does not have',
        'BAD_VCPU',
        (octets) =>
          spoiled(octets, RecordType.X86_PV_VCPU_XSAVE, (_body, view) => view.setUint32(0, 2, true)),
      ],
      [
        'a vCPU of another width',
        'BAD_RECORD',
        (octets) =>
          rewritten(octets, (records) =>
            records.map((record) =>
              record.type === RecordType.X86_PV_VCPU_BASIC
                ? { ...record, body: record.body.slice(0, 2808) }
                : record,
            ),
          ),
      ],
      [
        'a page table that maps a pfn that is not there',
        'BAD_FRAME',
        (octets, trial) => spoilTable(octets, trial, 1, 400, (80n << 12n) | 1n),
      ],
      [
        'a page table that maps a pfn beyond 32 bits',
        'BAD_FRAME',
        (octets, trial) => spoilTable(octets, trial, 3, 100, (1n << 44n) | 1n),
      ],
      [
        'a page table that maps a superpage',
        'SUPERPAGE',
        (octets, trial) => spoilTable(octets, trial, 2, 400, 0x81n),
      ],
    ];
    for (const [what, code, spoil] of cases) {
      it(what, async () => {
        const { trial, octets } = await plainStream();
        const target = emptyDomain();
        const error = await failureOf(restoreTrial(spoil(octets, trial), target));
        expect(error.code).to.equal(code);
        expect(error.facts['offset']).to.be.a('number');
        expect(target.machine.openMappings).to.equal(0);
        // No page was written, or none but those of records before.
        expect(target.pv.pinBatches).to.deep.equal([]);
      });
    }

    it('an L4 table of a 32-bit guest', async () => {
      const { trial, octets } = await plainStream({ width: 4 });
      const [pfn = 0] = trial.guest.dataPfns;
      const error = await failureOf(restoreTrial(retyped(octets, pfn, 4), emptyDomain()));
      expect(error.code).to.equal('BAD_PAGE_TYPE');
      expect(error.facts).to.include({ pfn, level: 4, levels: 3 });
    });

    it('a domain whose hypervisor does no PV', async () => {
      const { octets } = await plainStream();
      const target = emptyDomain();
      Object.defineProperty(target, 'pv', { value: undefined });
      expect((await failureOf(restoreTrial(octets, target))).code).to.equal('UNSUPPORTED_DOMAIN_TYPE');
    });
  });

  describe('refuses to complete', () => {
    const cases: readonly [string, string, (octets: Uint8Array, trial: Trial) => Uint8Array][] = [
      [
        'without vCPU 0',
        'INCOMPLETE',
        (octets) =>
          rewritten(octets, (records) =>
            records.filter((record) => record.type !== RecordType.X86_PV_VCPU_BASIC || record.body[0] !== 0),
          ),
      ],
      ['with a start_info that is not there', 'BAD_FRAME', (octets) => spoilVcpu(octets, CONTEXT.edx, 80n)],
      [
        'with a start_info beyond 32 bits',
        'BAD_FRAME',
        (octets) => spoilVcpu(octets, CONTEXT.edx, 1n << 33n),
      ],
      [
        'with a start_info that is a page table',
        'BAD_PAGE_TYPE',
        (octets, { guest }) => spoilVcpu(octets, CONTEXT.edx, BigInt(guest.rootPfn)),
      ],
      [
        'with a GDT frame that is a page table',
        'BAD_PAGE_TYPE',
        (octets, { guest }) => spoilVcpu(octets, CONTEXT.gdtFrames, BigInt(guest.rootPfn)),
      ],
      ['with a GDT that is too large', 'BAD_VCPU', (octets) => spoilVcpu(octets, CONTEXT.gdtEntries, 7169n)],
      [
        'with a cr3 that is no top page table',
        'BAD_PAGE_TYPE',
        (octets, { guest }) => spoilVcpu(octets, CONTEXT.cr3, BigInt(guest.dataPfns[0] ?? 0) << 12n),
      ],
      [
        'with a cr1 that is no top page table',
        'BAD_PAGE_TYPE',
        (octets, { guest }) => spoilVcpu(octets, CONTEXT.cr1, (BigInt(guest.dataPfns[0] ?? 0) << 12n) | 1n),
      ],
      [
        'with a xenstore ring that is not there',
        'BAD_FRAME',
        (octets, trial) => spoilStartInfo(octets, trial, START_INFO.store),
      ],
      [
        'with a console ring that is not there',
        'BAD_FRAME',
        (octets, trial) => spoilStartInfo(octets, trial, START_INFO.console),
      ],
      [
        'with a p2m page that is not there',
        'BAD_P2M',
        (octets) =>
          spoiled(octets, RecordType.X86_PV_P2M_FRAMES, (_body, view) => view.setUint32(8, 80, true)),
      ],
      [
        'with a p2m page that is a page table',
        'BAD_P2M',
        (octets, { guest }) =>
          spoiled(octets, RecordType.X86_PV_P2M_FRAMES, (_body, view) =>
            view.setUint32(8, guest.rootPfn, true),
          ),
      ],
      [
        'when Xen refuses a page table',
        'BAD_CONTEXT',
        (octets, { guest }) => retyped(octets, guest.dataPfns[0] ?? 0, 9),
      ],
    ];
    for (const [what, code, spoil] of cases) {
      it(what, async () => {
        const { trial, octets } = await plainStream();
        const target = emptyDomain();
        const error = await failureOf(restoreTrial(spoil(octets, trial), target));
        expect(error.code).to.equal(code);
        expect(target.machine.openMappings).to.equal(0);
        expect(target.state).to.equal('created');
      });
    }

    it('when there is not memory enough', async () => {
      const { octets } = await plainStream();
      const machine = new MemoryMachine({ frames: XEN_FRAMES + 60 });
      const target = new MemoryPvDomain({ machine, pages: 80, vcpus: 2 });
      expect((await failureOf(restoreTrial(octets, target))).code).to.equal('OUT_OF_MEMORY');
    });
  });

  describe('of a stream with checkpoints', () => {
    it('is at each checkpoint what Xen sent, wherever the stream is cut', async () => {
      const octets = readFixture('pv-remus-6ckpt.libxc');
      const ends = readAll(octets)
        .filter(({ type }) => type === RecordType.CHECKPOINT)
        .map(({ offset }) => offset + 8);
      expect(ends).to.have.length(6);
      for (const [i, end] of ends.entries()) {
        const next = ends[i + 1] ?? octets.length;
        for (const cut of [end, end + 1, Math.floor((end + next) / 2), next - 1]) {
          if (cut < end || cut > octets.length) continue;
          const target = emptyDomain({ pages: 1024, vcpus: 1 });
          const outcome = await restoreTrial(octets.subarray(0, cut), target, 'remus');
          expect(outcome).to.deep.equal({ kind: 'failover', epoch: i });
          const image = readPvImage(octets, i + 1);
          const plan = planOf(image);
          const snapshot = snapshotOf(target);
          const hosts = new Set([plan.startInfoPfn, 30, ...plan.p2mPfns]);
          for (const [pfn, page] of image.pages) {
            if (hosts.has(pfn)) continue;
            if (Buffer.compare(page, snapshot.pages.get(pfn) ?? new Uint8Array(0)) !== 0) {
              expect.fail(`page ${pfn} after a cut at ${cut}`);
            }
          }
        }
      }
    });

    it('fails over to the last one when the open one holds what cannot be, and says why', async () => {
      const { trial, octets } = await remusStream(3);
      const { rootPfn, dataPfns, kernel } = trial.guest;
      const pages = readAll(octets).filter(({ type }) => type === RecordType.PAGE_DATA).length;
      expect(pages).to.equal(3);
      const cases: readonly [string, Uint8Array][] = [
        ['BAD_FRAME', retypedEntry(octets, dataPfns[0] ?? 0)],
        ['BAD_FRAME', spoilVcpu(octets, CONTEXT.cr3, BigInt(dataPfns[5] ?? 0) << 12n, 2)],
        ['BAD_FRAME', spoilVcpu(octets, CONTEXT.edx, BigInt(rootPfn), 2)],
        ['BAD_VCPU', spoilVcpu(octets, CONTEXT.gdtEntries, 1n << 40n, 2)],
        ['BAD_P2M', addedP2m(octets, 79, [rootPfn])],
        ['PFN_OUT_OF_RANGE', addedP2m(octets, 80, kernel.plan.p2mPfns)],
      ];
      for (const [code, stream] of cases) {
        const target = emptyDomain();
        const outcome = await restoreTrial(stream, target, 'remus');
        expect(outcome.kind).to.equal('failover');
        if (outcome.kind !== 'failover') continue;
        expect(outcome.epoch).to.equal(0);
        expect(outcome.cause).to.include({ code });
        expect(target.pv.vcpus[0]?.online).to.equal(true);
        expect(target.machine.openMappings).to.equal(0);
      }
    });

    it('is not begun with a domain that could not run', async () => {
      const { octets } = await remusStream(2);
      const stream = rewritten(octets, (records) =>
        records.filter(({ type }) => type !== RecordType.X86_PV_VCPU_BASIC),
      );
      const acknowledged: number[] = [];
      const error = await failureOf(
        restoreDomain({
          domain: emptyDomain(),
          source: privateSource(stream),
          streamType: 'remus',
          callbacks: {
            checkpoint: (epoch) => {
              acknowledged.push(epoch);
              return Promise.resolve('success');
            },
          },
        }),
      );
      expect(error.code).to.equal('INCOMPLETE');
      expect(acknowledged).to.deep.equal([]);
    });

    it('takes pages of a p2m that grew in the same checkpoint', async () => {
      const { octets } = await remusStream(2);
      const grown = rewritten(octets, (records) => {
        const second = records.findIndex(({ type }) => type === RecordType.CHECKPOINT) + 1;
        const p2m = records.find(({ type }) => type === RecordType.X86_PV_P2M_FRAMES);
        if (p2m === undefined) throw new Error('no p2m');
        const frames = Uint32Array.of(new DataView(p2m.body.buffer, p2m.body.byteOffset).getUint32(8, true));
        const page = new Uint8Array(16 + 4096).fill(7);
        const view = new DataView(page.buffer);
        view.setBigUint64(0, 1n, true);
        view.setBigUint64(8, 95n, true);
        return [
          ...records.slice(0, second),
          {
            type: RecordType.X86_PV_P2M_FRAMES,
            body: encodePvP2mFrames({ startPfn: 0, endPfn: 99, frames }),
          },
          { type: RecordType.PAGE_DATA, body: page },
          ...records.slice(second),
        ];
      });
      const target = emptyDomain({ pages: 100 });
      expect(await restoreTrial(grown, target, 'remus')).to.deep.equal({ kind: 'complete', epochs: 2 });
      expect(target.octets(95).every((octet) => octet === 7)).to.equal(true);
      const view = new DataView(target.pv.sharedInfo.buffer, target.pv.sharedInfo.byteOffset);
      expect(view.getBigUint64(3088, true)).to.equal(80n);
    });
  });

  for (const streamType of ['plain', 'remus'] as const) {
    it(`cleans up exactly once when any call of the hypervisor fails (${streamType})`, async () => {
      const { octets } = streamType === 'plain' ? await plainStream({ width: 4 }) : await remusStream(2);
      const run = async (domain: MemoryPvDomain): Promise<{ error: Error | null; cleanups: number }> => {
        let cleanups = 0;
        const ops: RestoreOps = {
          ...restoreOpsX86Pv,
          async cleanup(context) {
            cleanups++;
            await restoreOpsX86Pv.cleanup(context);
          },
        };
        const source = privateSource(octets);
        const work = restoreDomain({
          domain,
          source,
          streamType,
          ops,
          endpoints: endpointsOfTests(),
          callbacks: SUCCESS,
        });
        try {
          await work;
          return { error: null, cleanups };
        } catch (error) {
          return { error: error as Error, cleanups };
        }
      };
      const whole = emptyDomain();
      expect(await run(whole)).to.deep.equal({ error: null, cleanups: 1 });
      const failed = new Set<MemoryPvCall>();
      for (let fail = 0; fail < whole.calls; fail++) {
        const domain = emptyDomain();
        domain.script = (call, number) => {
          if (number !== fail) return;
          failed.add(call);
          throw new HypervisorError('FAILED', 'as scripted', { number });
        };
        const { error, cleanups } = await run(domain);
        expect(error, `call ${fail}`).to.be.instanceOf(HypervisorError);
        expect((error as HypervisorError).facts).to.deep.equal({ number: fail });
        expect(cleanups, `call ${fail}`).to.equal(fail === 0 ? 0 : 1);
        expect(domain.machine.openMappings, `call ${fail}`).to.equal(0);
      }
      expect([...failed]).to.include.members([
        'populate',
        'writePages',
        'pv.info',
        'pv.mapM2p',
        'pv.mapFrames',
        'pv.setVcpuContext',
        'pv.setVcpuExtended',
        'pv.setVcpuXsave',
        'pv.setVcpuMsrs',
        'pv.pinTables',
        'pv.seedGrantTable',
        ...(streamType === 'plain' ? ['pv.setGuestWidth'] : []),
      ]);
    });
  }
});

/** An entry of the first table of the level. */
function spoilTable(
  octets: Uint8Array,
  { guest }: Trial,
  level: number,
  index: number,
  entry: bigint,
): Uint8Array {
  const table = [...guest.tables].find(([, is]) => is === level)?.[0] ?? -1;
  return spoiled(octets, RecordType.PAGE_DATA, (body, view) => {
    view.setBigUint64(pageAt(body, table) + index * 8, entry, true);
  });
}

function spoilStartInfo(octets: Uint8Array, { guest }: Trial, field: number): Uint8Array {
  return spoiled(octets, RecordType.PAGE_DATA, (body, view) => {
    view.setBigUint64(pageAt(body, guest.kernel.plan.startInfoPfn) + field, 80n, true);
  });
}

function spoilVcpu(octets: Uint8Array, field: number, value: bigint, which = 0): Uint8Array {
  return spoiled(
    octets,
    RecordType.X86_PV_VCPU_BASIC,
    (_body, view) => {
      view.setBigUint64(field, value, true);
    },
    which,
  );
}

/** The page of a pfn is said to be of another type. */
function retyped(octets: Uint8Array, pfn: number, type: number): Uint8Array {
  return spoiled(octets, RecordType.PAGE_DATA, (_body, view) => {
    for (let at = 8; ; at += 8) {
      if (Number(view.getBigUint64(at, true) & 0xffffffffn) !== pfn) continue;
      view.setBigUint64(at, (BigInt(type) << 60n) | BigInt(pfn), true);
      return;
    }
  });
}

/** In the second checkpoint, the first dirty page is a page table with an entry that is not there. */
function retypedEntry(octets: Uint8Array, pfn: number): Uint8Array {
  return spoiled(
    octets,
    RecordType.PAGE_DATA,
    (body, view) => {
      view.setBigUint64(pageAt(body, pfn), (1n << 30n) | 1n, true);
      for (let at = 8; ; at += 8) {
        if (Number(view.getBigUint64(at, true) & 0xffffffffn) !== pfn) continue;
        view.setBigUint64(at, (1n << 60n) | BigInt(pfn), true);
        return;
      }
    },
    1,
  );
}

/** Another p2m in the second checkpoint. */
function addedP2m(octets: Uint8Array, endPfn: number, frames: readonly number[]): Uint8Array {
  return rewritten(octets, (records) => {
    const second = records.findIndex(({ type }) => type === RecordType.CHECKPOINT) + 1;
    const body = encodePvP2mFrames({ startPfn: 0, endPfn, frames: Uint32Array.from(frames) });
    return [
      ...records.slice(0, second),
      { type: RecordType.X86_PV_P2M_FRAMES, body },
      ...records.slice(second),
    ];
  });
}
