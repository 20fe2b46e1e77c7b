// Restoring PV guests: page tables ahead of their pages, pins in batches, what is new on the host, old streams; and
// that a failure anywhere gives back all that was mapped, once.

import { expect } from 'chai';
import type { MissingStaticData, RestoreOps } from '../../src/guest/ops.js';
import { restoreOpsX86Pv } from '../../src/guest/x86-pv/restore.js';
import type { MemoryPvDomain } from '../memory/pv-domain.js';
import { type MemoryPvCall } from '../memory/pv-domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { INVALID_FRAME, RecordType } from '../../src/stream/format.js';
import { snapshotOf } from './pv-snapshot.js';
import { isTable, paged, plainStream, remusStream, SUCCESS } from './pv-streams.js';
import { endpointsOfTests, privateSource } from './pv-support.js';
import { emptyDomain, failureOf, pageAt, restoreTrial, rewritten, spoiled } from './pv-trial.js';

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
