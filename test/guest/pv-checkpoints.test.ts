// PV guests in streams with checkpoints: cut anywhere, the last whole one; what could not run is not acknowledged.

import { expect } from 'chai';
import { restoreDomain } from '../../src/restore/restore.js';
import { RecordType } from '../../src/stream/format.js';
import { encodePvP2mFrames } from '../../src/stream/records/pv.js';
import { readFixture } from '../fixtures/xen.js';
import { readAll } from '../stream/streams.js';
import { readPvImage } from './pv-image.js';
import { snapshotOf } from './pv-snapshot.js';
import { addedP2m, remusStream, retypedEntry, spoilVcpu } from './pv-streams.js';
import { planOf, privateSource } from './pv-support.js';
import { emptyDomain, failureOf, restoreTrial, rewritten } from './pv-trial.js';

/** vcpu_guest_context of 64 bits, behind the record's 8 octets. */
const CONTEXT = { edx: 624, gdtEntries: 4968, cr3: 5016 };

describe('a PV guest', () => {
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
});
