// Walks through real streams: inspect's numbers are those of the record lists, every cut is told with the last complete
// checkpoint, and whatever the octets are, a walk ends with findings and within its bounds.

import { expect } from 'chai';
import fc from 'fast-check';
import { StreamError } from '../../../src/stream/error.js';
import { checkRecord } from '../../../src/stream/check.js';
import { PageIndex } from '../../../src/stream/examine/page-index.js';
import { PfnSet } from '../../../src/stream/examine/pfn-set.js';
import { type DomainType, PFN_MAX, RecordType } from '../../../src/stream/format.js';
import { LibxlRecordType, checkLibxlRecord } from '../../../src/stream/libxl.js';
import { RecordReader } from '../../../src/stream/record-reader.js';
import { readFixture, readRecordList } from '../../fixtures/xen.js';
import { itemsOf } from '../layered.js';
import { seeded } from '../streams.js';
import { checkpointed, judged, libxcStream, surveyed, walkOctets } from './support.js';

const listed = [
  'pv-save',
  'hvm-save',
  'pv-live',
  'pv-remus-6ckpt',
  'hvm-remus-6ckpt',
  'pv-linux-2vcpu-save-zeroed.libxc',
];
const typeNames: Readonly<Record<string, string>> = {
  '0': 'NOTAB',
  '1': 'L1TAB',
  '2': 'L2TAB',
  '3': 'L3TAB',
  '9': 'L1TAB_PIN',
  b: 'L3TAB_PIN',
  c: 'L4TAB_PIN',
  f: 'XTAB',
};

/** "1024 pfns first=0xf {0:1019,…}" of a list's line, as inspect says it. */
function pagesOf(detail: string) {
  const match = /^(\d+) pfns first=0x([0-9a-f]+) types=\{(.*)\}$/.exec(detail);
  if (match === null) {
    return undefined;
  }
  const types = Object.fromEntries(
    (match[3] ?? '').split(',').map((one) => {
      const [type = '', count] = one.split(':');
      return [typeNames[type] ?? type, Number(count)];
    }),
  );
  return { count: Number(match[1]), first: Number.parseInt(match[2] ?? '', 16), types };
}

/** Names and details of headers differ between lists and layers. */
function nameIn(layer: string, name: string, detail: string): string {
  return name === 'image' || name === 'domain' || name.startsWith('header') || detail.startsWith('header')
    ? layer === 'libxc'
      ? `${name} header`
      : 'header'
    : name;
}

describe('walk', () => {
  describe('survey', () => {
    for (const name of listed) {
      it(`${name}: the record list`, function () {
        this.timeout(20_000);
        const octets = readFixture(name);
        const { survey, records } = surveyed(octets);
        const list = readRecordList(name);
        expect(survey.bytes).to.equal(list.streamLength);
        expect(
          records.map(({ layer, name: record, offset, length, pages, checkpoint }) => ({
            layer,
            name: record,
            offset,
            length,
            pages,
            checkpoint,
          })),
        ).to.deep.equal(
          list.records
            .filter(({ layer }) => layer !== 'tail')
            .map(({ layer, name: record, offset, length, detail }) => ({
              layer,
              name: nameIn(layer, record, detail),
              offset,
              length,
              pages: pagesOf(detail),
              checkpoint: detail.startsWith('#') ? Number(detail.slice(1)) : undefined,
            })),
        );
        const tail = list.records.find(({ layer }) => layer === 'tail');
        expect(survey.trailingBytes).to.equal(tail?.length ?? 0);
        expect(judged(octets).findings.filter(({ severity }) => severity !== 'note')).to.deep.equal([]);
      });
    }

    it('says what guests they are of', () => {
      const summary = (name: string) => {
        const { survey } = surveyed(readFixture(name));
        const { layers, guest, width, levels, xen, vcpus, checkpoints, memory, end } = survey;
        return { layers, guest, width, levels, xen, vcpus, checkpoints, pages: memory.pages, end };
      };
      const hvm = { guest: 'x86 HVM', width: null, levels: null, xen: '4.17', vcpus: 1, pages: 1040 };
      const pv = { guest: 'x86 PV', width: 8, levels: 4, xen: '4.17', vcpus: 1, pages: 1024 };
      expect(summary('hvm-remus-6ckpt')).to.deep.equal({
        ...hvm,
        layers: ['xl', 'libxl', 'libxc'],
        checkpoints: 6,
        end: 'open',
      });
      expect(summary('hvm-colo-6ckpt.libxc')).to.deep.include({ ...hvm, layers: ['libxc'], checkpoints: 6 });
      expect(summary('pv-save')).to.deep.include({ ...pv, checkpoints: 0, end: 'ended' });
      expect(surveyed(readFixture('pv-save')).survey.xl?.name).to.equal('tpv');
      const linux = summary('pv-linux-2vcpu-save-zeroed.libxc');
      expect(linux).to.deep.include({ ...pv, vcpus: 2, pages: 24 * 1024, layers: ['libxc'] });
      const back = surveyed(readFixture('hvm-colo-back.libxc')).survey;
      expect(back).to.deep.include({ backChannel: true, guest: null, end: 'open' });
      expect(Object.keys(back.recordCounts)).to.deep.equal(['libxc CHECKPOINT_DIRTY_PFN_LIST']);
    });
  });

  describe('cuts', () => {
    for (const layer of ['libxc', 'libxl', 'xl'] as const) {
      it(`${layer}: each cut is told, with the last complete checkpoint`, () => {
        const octets = checkpointed('pv', layer);
        const { records } = surveyed(octets);
        const wholeAt: number[] = [];
        walkOctets(octets, { checkpoint: (_number, end) => wholeAt.push(end) });
        expect(wholeAt).to.have.lengthOf(3);
        const boundaries = records.flatMap(({ offset, length }) => [offset, offset + length]);
        const cuts = [...boundaries.flatMap((at) => [at - 1, at, at + 1]), 3, 8, 20];
        for (const length of cuts.filter((at) => at >= 8 && at <= octets.length)) {
          const { findings, end } = judged(octets.subarray(0, length));
          const number = wholeAt.filter((at) => at <= length).length;
          expect(end.checkpoint?.number ?? 0, `cut at ${length}`).to.equal(number);
          expect(end.checkpoint?.end).to.equal(wholeAt[number - 1]);
          expect(findings.map(({ rule }) => rule)).to.deep.equal([
            wholeAt.includes(length) ? 'no-end' : 'truncated',
          ]);
          expect(findings[0]?.message).to.contain(number === 0 ? 'no checkpoint is complete' : `${number}`);
        }
      });
    }

    it('a plain stream is cut at each boundary but its end', () => {
      const octets = libxcStream('hvm');
      for (const { offset } of surveyed(octets).records.slice(1)) {
        const { findings } = judged(octets.subarray(0, offset));
        expect(findings.map(({ rule }) => rule)).to.deep.equal(['truncated']);
      }
    });
  });

  describe('anything', () => {
    it('octets at random end in findings', () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
          surveyed(octets);
          expect(judged(octets).findings).to.have.length.of.at.least(1);
        }),
        { numRuns: 2000 },
      );
    });

    it('what the restorer refuses in a mutant is found in it', () => {
      const random = seeded(20_26);
      const originals = [checkpointed('pv', 'xl'), checkpointed('hvm', 'libxl'), libxcStream('pv')];
      let refused = 0;
      for (let round = 0; round < 3000; round += 1) {
        const original = originals[round % originals.length] ?? new Uint8Array(0);
        const mutant = original.slice(0, random(4) === 0 ? random(original.length) : original.length);
        const offsets = surveyed(original).records.map(({ offset }) => offset);
        for (let flips = 1 + random(3); flips > 0; flips -= 1) {
          const at = (offsets[random(offsets.length)] ?? 0) + random(24);
          if (at < mutant.length) {
            mutant[at] = random(256);
          }
        }
        surveyed(mutant);
        const { findings } = judged(mutant);
        const bad = findings.some(({ severity }) => severity === 'error' || severity === 'unreadable');
        if (!acceptable(mutant)) {
          refused += 1;
          expect(bad, `round ${round}: ${JSON.stringify(findings)}`).to.equal(true);
        }
      }
      expect(refused).to.be.greaterThan(500);
    });
  });

  describe('pfns', () => {
    it('the index holds the latest of each pfn, as a map does', () => {
      const entry = fc.tuple(fc.nat({ max: PFN_MAX }), fc.constantFrom(0, 1, 9, 13, 14, 15), fc.nat());
      fc.assert(
        fc.property(fc.array(entry, { maxLength: 3000 }), (entries) => {
          const index = new PageIndex();
          const map = new Map<number, [number, number]>();
          for (const [pfn, type, offset] of entries) {
            index.set(pfn, type, offset * 1024);
            map.set(pfn, [type, type >= 13 ? 0 : offset * 1024]);
          }
          expect(index.size).to.equal(map.size);
          const pfns = [...index.sortedPfns()];
          expect(pfns).to.deep.equal([...map.keys()].sort((one, other) => one - other));
          for (const pfn of pfns) {
            expect([index.typeOf(pfn), index.offsetOf(pfn)]).to.deep.equal(map.get(pfn));
          }
        }),
        { numRuns: 50 },
      );
    });

    it('the index takes 12 to 30 octets a pfn, dense or scattered', () => {
      for (const stride of [1, 4096, 65_521]) {
        const index = new PageIndex();
        for (let pfn = 0; pfn < 60_000; pfn += 1) {
          index.set(pfn * stride, 0, pfn * 4096);
        }
        expect(index.size).to.equal(60_000);
        expect(index.bytes / index.size).to.be.within(12, 30);
      }
    });

    it('the set counts as a set does', () => {
      fc.assert(
        fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat({ max: 200_000 }))), (steps) => {
          const set = new PfnSet();
          const model = new Set<number>();
          for (const [add, pfn] of steps) {
            set[add ? 'add' : 'delete'](pfn);
            model[add ? 'add' : 'delete'](pfn);
          }
          expect(set.size).to.equal(model.size);
        }),
      );
    });

    it('the set gives up on pfns that are scattered to waste memory', () => {
      const set = new PfnSet();
      for (let pfn = 0; pfn < 2 ** 30; pfn += 32_768) {
        set.add(pfn);
      }
      expect(set.size).to.equal(null);
    });
  });
});

/** The readers and checks of the restorer take all of it. */
function acceptable(octets: Uint8Array): boolean {
  try {
    const reader = new RecordReader();
    let domainType: DomainType = 2;
    for (const item of itemsOf(octets, reader)) {
      if (item.kind === 'headers') {
        domainType = item.headers.domainType as DomainType;
      } else if (item.layer === 'libxc') {
        checkRecord(item.record, domainType);
        if (!Object.values<number>(RecordType).includes(item.record.type) && item.record.type < 2 ** 31) {
          return false;
        }
      } else if (item.kind === 'record') {
        checkLibxlRecord(item.record);
        if (
          !Object.values<number>(LibxlRecordType).includes(item.record.type) &&
          item.record.type < 2 ** 31
        ) {
          return false;
        }
      }
    }
    reader.end();
    return true;
  } catch (error) {
    if (error instanceof StreamError) {
      return false;
    }
    throw error;
  }
}
