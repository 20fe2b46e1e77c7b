// What a restorer of PV guests refuses: when a record is admitted, and what only shows when the stream is complete.

import { expect } from 'chai';
import { MemoryMachine, XEN_FRAMES } from '../memory/machine.js';
import { MemoryPvDomain } from '../memory/pv-domain.js';
import { RecordType } from '../../src/stream/format.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { plainStream, retyped, spoilStartInfo, spoilTable, spoilVcpu } from './pv-streams.js';
import { emptyDomain, failureOf, restoreTrial, rewritten, spoiled, type Trial, without } from './pv-trial.js';

/** vcpu_guest_context of 64 bits, behind the record's 8 octets. */
const CONTEXT = { edx: 624, gdtFrames: 4840, gdtEntries: 4968, cr1: 5000, cr3: 5016 };
const START_INFO = { store: 56, console: 72 };

describe('the restorer of PV guests', () => {
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
        'with a cr1 that was never translated',
        'BAD_VCPU',
        (octets, { guest }) => spoilVcpu(octets, CONTEXT.cr1, BigInt(guest.rootPfn) << 12n),
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
});
